"""Commands of our own that answer in the place of a machine's."""

from pathlib import Path


def stand_in(folder: Path, name: str, script: str) -> Path:
    """Write a command that runs a shell script, into a folder that is to be on PATH."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
