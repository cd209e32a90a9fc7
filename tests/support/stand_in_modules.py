"""Modules of the package that import an engine, imported with something in that engine's place."""

import sys
from collections.abc import Mapping
from importlib import import_module

import pytest


def stand_in(monkeypatch: pytest.MonkeyPatch, parts: Mapping[str, object], *users: str) -> None:
    """Have ``users`` import ``parts`` by these names when they are next asked for.

    What they are then is forgotten with the test; deleting alone would restore nothing where they
    had not been imported before.
    """
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in users:
        package, _, last = name.rpartition(".")
        monkeypatch.setattr(import_module(package), last, None, raising=False)
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
