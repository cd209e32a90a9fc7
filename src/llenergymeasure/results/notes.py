"""Notes for readers of results: why a run is left out, warnings, and changes made to prompts."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llenergymeasure.errors import Problem


def record_notes(provenance: Mapping[str, Any]) -> list[str]:
    """Return the notes in a run's record, each in one line; none if it has no such parts.

    The name of another user's process, which may stand in them, holds what that user likes.
    """
    try:
        warnings = provenance["preflight"]
        texts = [str(Problem(warning["message"], key=warning.get("key"))) for warning in warnings]
        left_out = map(str, provenance.get("disqualified") or ())  # versions before did not say it
        texts = [*left_out, *texts, *map(str, provenance["workload"]["notes"])]
        return [" ".join(text.split()) for text in texts]
    except (KeyError, TypeError):
        return []


def note_kind(note: str) -> str:
    """Return a note without its figures, processes and examples: the same for notes of one kind.

    What a server says of a request that failed may name that request.
    """
    return re.sub(r": .*\(pid \d+\)|; the first: .*|[\d.]+", "", note)


def distinct(notes: Iterable[Iterable[str] | None]) -> list[tuple[str, int]]:
    """Return the notes of a study's runs, the first of each kind, with the number of its runs."""
    first_by_kind: dict[str, str] = {}
    runs: dict[str, int] = {}
    for run_notes in notes:
        for kind, note in {note_kind(note): note for note in run_notes or ()}.items():
            first_by_kind.setdefault(kind, note)
            runs[kind] = runs.get(kind, 0) + 1
    return [(note, runs[kind]) for kind, note in first_by_kind.items()]


def noted_in(runs: int) -> str:
    """Return in how many runs a note occurs, as text; its figures are those of the first run."""
    return "noted in 1 run" if runs == 1 else f"noted in {runs} runs; this is the first"
