"""What a stage leaves: in the output folder as soon as it is measured, each file whole or absent.

Logs and tables of text grow line by line; of those the last line may be cut off.
"""

import json
import threading
from pathlib import Path
from typing import Any

from llenergymeasure.files import load_json, write_text

RESULTS = "results.json"

ENDING = threading.Event()
"""Is set once this process's stage was asked to end."""


class StageEndedError(Exception):
    """The stage was asked to end: it begins nothing more, and keeps what it has."""


def go_on() -> None:
    """Return where the stage may begin something.

    Raises:
        StageEndedError: it was asked to end.
    """
    if ENDING.is_set():
        raise StageEndedError("the stage was asked to end")


class Place:
    """Where one stage works and what it keeps.

    Attributes:
        work: for whatever the stage needs; thrown away.
        output: raw recordings, the stage's own folder in the output folder.
        figures: those found, in the output folder's ``results.json`` once the stage has ended.
    """

    def __init__(self, work: Path, output: Path) -> None:
        self.work, self.output = work, output
        self.figures: dict[str, Any] = {}
        self._figures_file = work / "found.json"
        self._lock = threading.Lock()
        for folder in (work, output):
            folder.mkdir(parents=True, exist_ok=True)

    def save(self, **figures: Any) -> None:
        """Add to what was found, so that a stage that is ended later has it."""
        with self._lock:
            self.figures.update(figures)
            write_json(self._figures_file, self.figures)

    def load(self) -> dict[str, Any]:
        """Return what the stage found up to its end."""
        figures: dict[str, Any] = read_json(self._figures_file)
        return figures


def put_aside(out: Path, stages: dict[str, Any], name: str) -> None:
    """Give what an earlier call left of a stage another name: nothing is lost."""
    number, other = 1, name
    while other in stages or (out / other).exists():
        other = f"{name}-earlier-{number}"
        number += 1
    row = stages.pop(name, {"skipped": ""})
    if "skipped" not in row:
        stages[other] = row
    if (out / name).exists():
        (out / name).rename(out / other)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1, default=str, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return a file's content, or an empty object where there is none."""
    return load_json(path) if path.is_file() else {}
