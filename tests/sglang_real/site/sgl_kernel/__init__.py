"""SGLang's CUDA kernels by name alone: SGLang imports them even where it computes without them.

Calling one is an error, so that a test which passes has computed with torch's own operations.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Absent:
    """A kernel that is not here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"{self._name} was called, and SGLang's CUDA kernels are not here")

    def __getattr__(self, name: str) -> "Absent":
        return _absent(self._name, name)


def __getattr__(name: str) -> Absent:
    return _absent(__name__, name)


def _absent(owner: str, name: str) -> Absent:
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent(f"{owner}.{name}")


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Absent:
        return _absent(self.__name__, name)


class _Finder(MetaPathFinder, Loader):
    """Finds every module below this one."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        below = fullname.startswith(f"{__name__}.")
        return ModuleSpec(fullname, self, is_package=True) if below else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module is its names."""


sys.meta_path.append(_Finder())
