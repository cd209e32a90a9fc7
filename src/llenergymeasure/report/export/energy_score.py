"""A study's results as AI Energy Score reports them.

What the form asks for and was not observed stays empty; nothing is made up to fill it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llenergymeasure.analysis.tables import harmless_text
from llenergymeasure.report.findings import ranked
from llenergymeasure.report.wording import plain
from llenergymeasure.units import J_PER_WH

Row: TypeAlias = Mapping[str, Any]


def energy_score(summary: Sequence[Row]) -> str:
    """Return Wh per 1,000 queries of each experiment, as AI Energy Score reports it, as CSV.

    Source: AI Energy Score documentation: GPU energy in watt-hours per 1,000 queries. There a
    model's score holds for its data sets and hardware alone; here the settings are next to it.
    """
    intervals = (("", "mean"), ("_ci95_low", "ci95_low"), ("_ci95_high", "ci95_high"))
    return _csv(
        [
            {
                "model": row.get("model"),
                "experiment": row["experiment"],
                "settings": plain(row["label"], 200),
                "kind": row["kind"],
                **{
                    f"wh_per_1000_queries{suffix}": _thousand(row[f"energy_per_request_j_{name}"])
                    for suffix, name in intervals
                },
                "n": row["n"],
            }
            for row in ranked(summary)
        ]
    )


def _thousand(energy_j: float | None) -> float | None:
    return None if energy_j is None else 1000 * energy_j / J_PER_WH


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0] if rows else ()), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        texts = {key: harmless_text(each) for key, each in row.items() if isinstance(each, str)}
        writer.writerow({**row, **texts})
    return text.getvalue()
