"""The backends this version can run."""

from importlib import import_module

from llenergymeasure.backends.base import Backend
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import BACKENDS


def get(name: str) -> Backend:
    """Return a backend by its name in a study; imported when asked for, as engines are heavy.

    Raises:
        ConfigurationError: this version cannot run it.
    """
    if name not in BACKENDS:
        names = ", ".join(sorted(BACKENDS))
        raise ConfigurationError(Problem(f"this version runs {names} alone", "backend", name))
    backend: Backend = import_module(f"llenergymeasure.backends.{name}").BACKEND
    return backend
