"""All forms in which a study's results are exported as text."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import llenergymeasure
from llenergymeasure.analysis.selection import Row, used_runs
from llenergymeasure.analysis.tables import harmless_text
from llenergymeasure.report.experiments import ENERGY_PER_REQUEST
from llenergymeasure.report.export.sci import sci
from llenergymeasure.report.export.spdx import spdx
from llenergymeasure.report.export.text_tables import escape_tex, latex, make_table, markdown
from llenergymeasure.report.findings import ranked
from llenergymeasure.report.formatting import join_words, plain
from llenergymeasure.report.method import distinct
from llenergymeasure.units import J_PER_WH

Writer: TypeAlias = Callable[[Row, Sequence[Row], Sequence[Row], Sequence[str]], str]
"""Makes the text from plan, experiments, runs, and the quantities of a table."""


def citation(plan: Mapping[str, Any], runs: Sequence[Row]) -> str:
    """Return a BibTeX entry of the tool, with the study and its design hash in its note."""
    versions = sorted({run["llenergymeasure_version"] for run in runs} - {None})
    version = ", ".join(versions) or llenergymeasure.__version__
    years = sorted(str(run["started_at"])[:4] for run in runs if run["started_at"])
    study = escape_tex(_without_braces(plain(plan["study"], 80)))
    return (
        "@software{llenergymeasure,\n"
        "  title = {LLenergyMeasure},\n"
        f"  version = {{{version}}},\n"
        + (f"  year = {{{years[-1]}}},\n" if years else "")
        + f"  note = {{Study {study}, design {plan['study_design_hash']}}}\n"
        "}\n"
    )


def _without_braces(text: str) -> str:
    return text.replace("{", "(").replace("}", ")").replace("\\", "/")


def energy_score(summary: Sequence[Row], runs: Sequence[Row]) -> str:
    """Return Wh per 1,000 queries of each experiment, as AI Energy Score reports it, as CSV.

    Source: AI Energy Score documentation: GPU energy in watt-hours per 1,000 queries. There a
    model's score holds for its data sets and hardware alone; here both are next to it.
    Values that the form asks for but were not observed stay empty.
    """
    used = used_runs(runs)
    return _csv(
        [
            {
                "model": row.get("model"),
                "experiment": row["experiment"],
                "settings": plain(row["label"], 200),
                "device": join_words(distinct(used.get(row["experiment"], ()), "gpu_name")),
                "kind": row["kind"],
                "wh_per_1000_queries": _wh_per_1000(row[f"{ENERGY_PER_REQUEST}_mean"]),
                "wh_per_1000_queries_ci95_low": _wh_per_1000(row[f"{ENERGY_PER_REQUEST}_ci95_low"]),
                "wh_per_1000_queries_ci95_high": _wh_per_1000(
                    row[f"{ENERGY_PER_REQUEST}_ci95_high"]
                ),
                "n": row["n"],
                "scopes": ";".join(row["energy_scopes"] or ()),
            }
            for row in ranked(summary)
        ]
    )


def _wh_per_1000(energy_j: float | None) -> float | None:
    return None if energy_j is None else 1000 * energy_j / J_PER_WH


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0] if rows else ()), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {key: harmless_text(text) for key, text in row.items() if isinstance(text, str)}
        writer.writerow({**row, **texts})
    return text.getvalue()


FORMS: dict[str, Writer] = {
    "markdown": lambda plan, summary, runs, columns: markdown(
        make_table(summary, runs, str(plan["study"]), columns)
    ),
    "latex": lambda plan, summary, runs, columns: latex(
        make_table(summary, runs, str(plan["study"]), columns), str(plan["study"])
    ),
    "citation": lambda plan, _summary, runs, _columns: citation(plan, runs),
    "energy-score": lambda _plan, summary, runs, _columns: energy_score(summary, runs),
    "sci": lambda plan, summary, runs, _columns: sci(plan, summary, runs),
    "spdx": lambda plan, summary, runs, _columns: spdx(plan, summary, runs),
}
