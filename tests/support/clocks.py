"""Clocks of a process tree that a test can set."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("jumping_clock.c")


def jumping_clock(folder: Path, variable: str) -> tuple[Path, dict[str, str]]:
    """A file with the seconds that a clock is ahead, and the variables that make it so."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library, ahead = folder / "jumping_clock.so", folder / "ahead"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    ahead.write_text("0")
    return ahead, {"LD_PRELOAD": str(library), variable: str(ahead)}
