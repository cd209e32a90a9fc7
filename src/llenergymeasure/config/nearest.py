"""The known names that a misspelt one may stand for."""

import difflib
from collections.abc import Sequence


def nearest_names(name: str, known: Sequence[str], cutoff: float = 0.7) -> list[str]:
    """Return the names in ``known`` that ``name`` is likely a misspelling of, best first."""
    folded = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower()[:200], list(folded), n=2, cutoff=cutoff)
    return [folded[item] for item in close]
