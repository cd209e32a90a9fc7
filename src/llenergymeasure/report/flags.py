"""What the validity codes mean, for whoever reads a table or the page."""

from llenergymeasure.units import DISQUALIFYING, VALIDITY


def meaning(code: str) -> str:
    """Return one code's meaning as a sentence."""
    known = VALIDITY.get(code)
    if known is None:
        return "A code of another version; see that version's documentation."
    return known.meaning


def consequence(code: str) -> str:
    """Return what the code does to the run: left out of means, or shown only."""
    return "left out of means" if code in DISQUALIFYING else "in means, shown"
