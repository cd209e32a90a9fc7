"""What a stage leaves: each file whole or absent, whatever is killed and when."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from llenergymeasure.files import sync_folder, write_text

RESULTS = "results.json"


class Place:
    """Where one stage works and what it wants to keep.

    Attributes:
        work: for whatever the stage needs; thrown away.
        kept: raw recordings, copied to the output folder when the stage has ended, however.
        found: figures, in the output folder's ``results.json`` once the stage has ended.
    """

    def __init__(self, folder: Path) -> None:
        self.work, self.kept = folder / "work", folder / "kept"
        self.found: dict[str, Any] = {}
        self._found_file = folder / "found.json"
        self._lock = threading.Lock()
        for each in (self.work, self.kept):
            each.mkdir(parents=True, exist_ok=True)

    def save(self, **found: Any) -> None:
        """Add to what was found, so that a stage that is ended later has it."""
        with self._lock:
            self.found.update(found)
            write_json(self._found_file, self.found)

    def load(self) -> dict[str, Any]:
        """Return what the stage found up to its end."""
        found: dict[str, Any] = read_json(self._found_file)
        return found


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, default=str, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return a file's content, or an empty object where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def keep_folder(source: Path, target: Path) -> None:
    """Copy a folder to ``target``, whole or not at all; an older one is replaced."""
    beside = target.with_name(f".{target.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    if not any(source.iterdir()):
        return
    shutil.copytree(source, beside)
    for path in beside.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(beside)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    beside.replace(target)
    sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)
