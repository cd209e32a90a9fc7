"""The known names that a misspelt one may stand for, and how a message asks for them."""

import difflib
from collections.abc import Iterable, Sequence

FEW = 30


def nearest_names(name: str, known: Sequence[str], cutoff: float = 0.7) -> list[str]:
    """Return the names in ``known`` that ``name`` is likely a misspelling of, best first."""
    folded = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower()[:200], list(folded), n=2, cutoff=cutoff)
    return [folded[item] for item in close]


def did_you_mean(names: Iterable[str]) -> str:
    """Return the end of a message that asks whether one of ``names`` was meant; empty for none."""
    joined = " or ".join(names)
    return f"; did you mean {joined}?" if joined else ""


def among(name: object, known: Sequence[str]) -> str:
    """Return the end of a message about a name that is none of ``known``: the nearest, or all."""
    near = nearest_names(name, known) if isinstance(name, str) else []
    if near or len(known) > FEW:
        return did_you_mean(near[:1])
    return f"; known here: {', '.join(known)}"
