"""Room on disks: what is free, and whether a folder can be written to."""

import os
import tempfile
from pathlib import Path


def free_bytes(path: Path) -> int | None:
    """Return what a process may still write where ``path`` is or will be; None if unknown."""
    try:
        found = os.statvfs(_nearest(path))
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def why_not_writable(folder: Path) -> str | None:
    """Return why nothing can be written into a folder; None if something was, and removed.

    A folder that is not there yet is made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable.") as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _nearest(path: Path) -> Path:
    """Return ``path``, or the nearest folder above it that exists."""
    at = path.absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    return at
