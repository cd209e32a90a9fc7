"""LLenergyMeasure: what LLM inference costs in energy, with an error bar that is true.

What ``__all__`` names is the Python interface. It is imported when it is first used, so that a
worker in an engine's image needs no more than it works with.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llenergymeasure.errors import (
    BackendError,
    ConfigurationError,
    LlemError,
    MeterError,
    PreflightError,
    ResultsError,
    RunFailedError,
    StudyLockedError,
)

if TYPE_CHECKING:
    from llenergymeasure.api.metering import Metered, meter
    from llenergymeasure.api.results import (
        ExperimentResult,
        FailedRun,
        StudyPaths,
        StudyResult,
        load_result,
        load_results,
    )
    from llenergymeasure.api.running import run_experiment, run_study

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "ConfigurationError",
    "ExperimentResult",
    "FailedRun",
    "LlemError",
    "MeterError",
    "Metered",
    "PreflightError",
    "ResultsError",
    "RunFailedError",
    "StudyLockedError",
    "StudyPaths",
    "StudyResult",
    "__version__",
    "load_result",
    "load_results",
    "meter",
    "run_experiment",
    "run_study",
]

_MODULES = {
    **dict.fromkeys(("Metered", "meter"), "api.metering"),
    **dict.fromkeys(("run_experiment", "run_study"), "api.running"),
    **dict.fromkeys(("ExperimentResult", "FailedRun", "StudyPaths", "StudyResult"), "api.results"),
    **dict.fromkeys(("load_result", "load_results"), "api.results"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
