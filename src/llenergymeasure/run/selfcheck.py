"""``--selfcheck``: whether this interpreter can do a run, told without starting one."""

import json
import platform

import llenergymeasure
from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.spec import SPEC_VERSION
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError

_NEEDED = {"openai": {"openai": {"base_url": "http://127.0.0.1:8000/v1"}}}
"""What an experiment of a backend cannot do without."""


def selfcheck(backend: str) -> int:
    """Print what is here as JSON; return 0 if a run of ``backend`` could start, else 1."""
    report: dict[str, object] = {
        "backend": backend,
        "llenergymeasure": llenergymeasure.__version__,
        "spec_version": SPEC_VERSION,
        "python": platform.python_version(),
    }
    try:
        engine = registry.get(backend)
        config = ExperimentConfig.model_validate(
            {"model": "tiny-llama", "backend": backend, **_NEEDED.get(backend, {})}
        )
        problems = [str(problem) for problem in engine.problems(config)]
        report["versions"] = engine.versions()
    except (LlemError, ImportError) as error:
        problems = [str(error)]
    report["problems"] = problems
    print(json.dumps(report, indent=1))
    return EXIT_FAILED if problems else EXIT_OK
