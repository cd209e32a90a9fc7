"""Notes for readers of results: a preflight's warnings, and changes made to prompts."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llenergymeasure.errors import Problem


def notes_of(provenance: Mapping[str, Any]) -> list[str]:
    """Return the notes in a run's record; none if it has no such parts."""
    try:
        warned = provenance["preflight"]
        said = [str(Problem(each["message"], key=each.get("key"))) for each in warned]
        return [*said, *map(str, provenance["workload"]["notes"])]
    except (KeyError, TypeError):
        return []


def kind_of(note: str) -> str:
    """Return a note without its figures and processes, which is the same for notes of one kind."""
    return re.sub(r": .*\(pid \d+\)|[\d.]+", "", note)


def distinct(notes: Iterable[Iterable[str] | None]) -> list[tuple[str, int]]:
    """Return the notes of a study's runs, the first of each kind, with the number of its runs."""
    first: dict[str, str] = {}
    runs: dict[str, int] = {}
    for of_run in notes:
        for kind, note in {kind_of(note): note for note in of_run or ()}.items():
            first.setdefault(kind, note)
            runs[kind] = runs.get(kind, 0) + 1
    return [(note, runs[kind]) for kind, note in first.items()]


def noted_in(runs: int) -> str:
    """Return in how many runs a note occurs, as text; its figures are those of the first run."""
    return "noted in 1 run" if runs == 1 else f"noted in {runs} runs; this is the first"
