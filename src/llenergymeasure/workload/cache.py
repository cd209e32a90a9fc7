"""This project's cache, and the folders in it that are made once."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from llenergymeasure.errors import BackendError
from llenergymeasure.files import sync_folder


def cache_folder() -> Path:
    """Return this project's cache: ``$LLEM_CACHE``, or its folder in the XDG cache.

    Source: XDG Base Directory Specification 0.8.
    """
    configured = os.environ.get("LLEM_CACHE")
    if configured:
        return Path(configured)
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path there is invalid and to be ignored, says the specification.
    base = Path(shared) if shared.startswith("/") else Path.home() / ".cache"
    return base / "llenergymeasure"


def make_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return ``folder``, made by ``make`` if it is not there yet.

    The folder appears whole or not at all. Of two processes that make it at once the second's
    work is thrown away; ``make`` must therefore always give the same content.

    Raises:
        BackendError: the cache cannot be written.
    """
    try:
        if not folder.is_dir():
            _make(folder, make)
    except OSError as error:
        raise BackendError(
            f"cannot write {folder}: {error}; set LLEM_CACHE to a folder that can be written"
        ) from error
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(unfinished)
        for path in unfinished.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(unfinished)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        else:
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
