"""Means by factor as plain text."""

from collections.abc import Sequence

import pyarrow as pa

from llenergymeasure.report.wording import AS_IS, NOTHING, mean_text, plain, rounded_range
from llenergymeasure.screen import aligned

LABEL_LIMIT = 40


def groups_text(table: pa.Table, group_by: Sequence[str], metric: str) -> str:
    """Return one line a group: its values, its mean with interval, and what is not in it.

    Args:
        table: what :func:`llenergymeasure.analysis.pooling.summarise_by` found.
        group_by: the columns that make a group.
        metric: the column averaged.
    """
    header = [*group_by, "experiments", "n", "mean", "95 % interval", "not in it"]
    lines = [header]
    for row in table.to_pylist():
        mean, low, high = AS_IS.of(row, metric)
        others = [
            f"{row[name]} {told}"
            for name, told in (
                ("n_disqualified", "disqualified"),
                ("n_not_observed", "not observed"),
                ("n_failed", "without a result"),
            )
            if row[name]
        ]
        lines.append(
            [
                *(NOTHING if row[n] is None else plain(row[n], LABEL_LIMIT) for n in group_by),
                str(row["experiments"]),
                str(row["n"]),
                mean_text(mean, low, high),
                f"{rounded_range(low, high)} over {row['interval_method']}"
                if low is not None
                else row["interval_unavailable"],
                ", ".join(others) or NOTHING,
            ]
        )
    experiments = len(group_by)
    left = (*range(experiments), len(header) - 2, len(header) - 1)
    return f"Means of {metric}\n\n{aligned(lines, left, spare=(experiments,))}"
