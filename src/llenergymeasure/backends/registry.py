"""The backends this version can run."""

from importlib import import_module

from llenergymeasure.backends.base import Backend
from llenergymeasure.errors import ConfigurationError, Problem

_NAMES = ("openai", "pytorch", "sglang", "tensorrt", "vllm")
_MODULES = {name: f"llenergymeasure.backends.{name}" for name in _NAMES}
"""Each module has its backend as ``BACKEND``; imported when asked for, as engines are heavy."""


def get(name: str) -> Backend:
    """Return a backend by its name in a study.

    Raises:
        ConfigurationError: this version cannot run it.
    """
    module = _MODULES.get(name)
    if module is None:
        raise ConfigurationError(
            Problem(f"this version runs {', '.join(_MODULES)} alone", key="backend", found=name)
        )
    backend: Backend = import_module(module).BACKEND
    return backend


def names() -> tuple[str, ...]:
    """Return the names of the backends that this version can run."""
    return tuple(_MODULES)
