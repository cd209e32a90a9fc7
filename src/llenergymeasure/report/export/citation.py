"""How to cite a study's numbers: BibTeX of the tool, and what fixes the study."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import llenergymeasure
from llenergymeasure.report.wording import plain

Row: TypeAlias = Mapping[str, Any]


def citation(plan: Mapping[str, Any], runs: Sequence[Row]) -> str:
    """Return a BibTeX entry of the tool, with the study and its design hash in its note."""
    versions = sorted({run["llenergymeasure_version"] for run in runs} - {None})
    version = ", ".join(versions) or llenergymeasure.__version__
    years = sorted(str(run["started_at"])[:4] for run in runs if run["started_at"])
    study = _braceless(plain(plan["study"], 80))
    return (
        "@software{llenergymeasure,\n"
        "  title = {LLenergyMeasure},\n"
        f"  version = {{{version}}},\n"
        + (f"  year = {{{years[-1]}}},\n" if years else "")
        + f"  note = {{Study {study}, design {plan['study_design_hash']}}}\n"
        "}\n"
    )


def _braceless(text: str) -> str:
    return text.replace("{", "(").replace("}", ")").replace("\\", "/")
