"""The known names that a misspelt one may stand for, and how a message asks for them."""

import difflib
from collections.abc import Iterable, Sequence

MAX_LISTED = 30


def nearest_names(name: str, choices: Sequence[str], cutoff: float = 0.7) -> list[str]:
    """Return the names in ``choices`` that ``name`` is likely a misspelling of, best first."""
    by_lower = {candidate.lower(): candidate for candidate in choices}
    matches = difflib.get_close_matches(name.lower()[:200], list(by_lower), n=2, cutoff=cutoff)
    return [by_lower[candidate] for candidate in matches]


def did_you_mean(names: Iterable[str]) -> str:
    """Return the end of a message that asks whether one of ``names`` was meant; empty for none."""
    joined = " or ".join(names)
    return f"; did you mean {joined}?" if joined else ""


def known_names_hint(name: object, choices: Sequence[str]) -> str:
    """Return the end of a message about a name that is none of ``choices``: the nearest, or all."""
    near = nearest_names(name, choices) if isinstance(name, str) else []
    if near or len(choices) > MAX_LISTED:
        return did_you_mean(near[:1])
    return f"; known here: {', '.join(choices)}"
