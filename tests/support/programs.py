"""Programs that stand in for others on the path, and scripts of the repository as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from support.studies import ROOT


def program(path: Path, script: str = "") -> Path:
    """Write a program of the shell's, its folder too; return its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def loaded(name: str) -> ModuleType:
    """Return a script of the repository as a module of its own."""
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module
