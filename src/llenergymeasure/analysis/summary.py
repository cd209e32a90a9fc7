"""One row an experiment: means over its cycles, with intervals.

A mean covers completed runs that carry no disqualifying code and whose energy is of one kind,
one sensor and one set of scopes: a measured joule and an estimated one have no common mean.
Runs left out are counted in the row and stand in ``runs.parquet``.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from llenergymeasure.analysis.statistics import estimate
from llenergymeasure.results.table import RUN_SCHEMA, setting_array
from llenergymeasure.units import DISQUALIFYING, MISSING

METRICS = (
    "energy_per_output_token_j",
    "energy_per_request_j",
    "power_mean_w",
    "output_tokens_per_s",
    "request_latency_p50_s",
    "request_latency_p95_s",
    "time_to_first_token_p50_s",
)
PENDING = frozenset({"running", MISSING})
"""Statuses of runs that have not ended or not begun."""
STATISTICS = ("mean", "sd", "ci95_low", "ci95_high")
SETTING_COLUMNS = ("backend", "model", "precision", "runner")
"""Fixed columns that are settings: part of an experiment's label where they differ."""

SUMMARY_SCHEMA = pa.schema(
    [
        ("experiment", pa.string()),
        ("label", pa.string()),
        ("n", pa.int64()),
        ("n_planned", pa.int64()),
        ("n_failed", pa.int64()),
        ("n_pending", pa.int64()),
        ("n_disqualified", pa.int64()),
        ("n_other_meter", pa.int64()),
        *((name, pa.string()) for name in SETTING_COLUMNS),
        ("kind", pa.string()),
        ("energy_source", pa.string()),
        ("energy_scopes", pa.list_(pa.field("element", pa.string()))),
        *((f"{metric}_{name}", pa.float64()) for metric in METRICS for name in STATISTICS),
        ("energy_u95_rel", pa.float64()),
        ("energy_u_sys_rel", pa.float64()),
        ("window_s_mean", pa.float64()),
        ("validity", pa.list_(pa.field("element", pa.string()))),
    ],
    metadata=RUN_SCHEMA.metadata,
)
"""``n`` runs are in the means; ``n_failed`` ended without a result and ``n_pending`` have not
ended; ``n_disqualified`` carry a disqualifying code; ``n_other_meter`` have energy of another
kind, sensor or scope.
``energy_u95_rel`` and ``energy_u_sys_rel`` are the means of the runs' own ``u95_j`` and
``u_sys_j`` over their gross energy; ``validity`` is every code seen, left-out runs included."""

Row: TypeAlias = Mapping[str, Any]
Meter: TypeAlias = tuple[str | None, str | None, tuple[str, ...]]


def summarise(runs: pa.Table) -> pa.Table:
    """Return one row for every experiment, in the order of their first run.

    Standard deviation and interval are null for one run; a metric that some of the ``n`` runs
    lack is null, because its mean would not be over ``n``.
    """
    settings = [name for name in runs.column_names if name not in RUN_SCHEMA.names]
    groups: dict[str, list[Row]] = {}
    for row in runs.to_pylist():
        groups.setdefault(row["experiment"], []).append(row)
    labels = _labels([members[0] for members in groups.values()], settings)
    rows = [
        {**_summary_row(members), "label": label}
        for members, label in zip(groups.values(), labels, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=SUMMARY_SCHEMA)
    for name in settings:
        values = [members[0][name] for members in groups.values()]
        column = f"setting.{name}" if name in SUMMARY_SCHEMA.names else name
        table = table.append_column(column, _typed(values, runs.schema.field(name).type))
    return table


def in_means(row: Row) -> bool:
    """Return whether a run completed without a disqualifying code."""
    return row["status"] == "completed" and not DISQUALIFYING & set(row["validity"] or ())


def meter_of(row: Row) -> Meter:
    """Return what a run's energy is: its kind, sensor and scopes."""
    return row["kind"], row["energy_source"], tuple(row["energy_scopes"] or ())


def _summary_row(members: Sequence[Row]) -> dict[str, Any]:
    completed = [row for row in members if row["status"] == "completed"]
    sound = [row for row in completed if in_means(row)]
    meter = _prevailing_meter(sound or completed)
    used = [row for row in sound if meter_of(row) == meter]
    pending = sum(1 for row in members if row["status"] in PENDING)
    kind, source, scopes = meter
    first = members[0]
    row: dict[str, Any] = {
        "experiment": first["experiment"],
        **{name: first[name] for name in SETTING_COLUMNS},
        "n": len(used),
        "n_planned": len(members),
        "n_failed": len(members) - len(completed) - pending,
        "n_pending": pending,
        "n_disqualified": len(completed) - len(sound),
        "n_other_meter": len(sound) - len(used),
        "kind": kind,
        "energy_source": source,
        "energy_scopes": list(scopes) if kind else None,
        "energy_u95_rel": _mean_share(used, "energy_u95_j"),
        "energy_u_sys_rel": _mean_share(used, "energy_u_sys_j"),
        "window_s_mean": estimate(_values(used, "window_s")).mean,
        "validity": sorted({code for member in completed for code in member["validity"] or ()}),
    }
    for metric in METRICS:
        result = estimate(_values(used, metric))
        for name in STATISTICS:
            row[f"{metric}_{name}"] = getattr(result, name)
    return row


def _prevailing_meter(rows: Sequence[Row]) -> Meter:
    """Return the meter of the means: measured before estimated, then that of most runs."""
    if not rows:
        return None, None, ()
    counts = Counter(meter_of(row) for row in rows)
    ranks = {"measured": 0, "estimated": 1}
    return min(counts, key=lambda meter: (ranks.get(meter[0] or "", 2), -counts[meter], str(meter)))


def _values(rows: Sequence[Row], name: str) -> list[float]:
    """Return the values of one column, or none at all if any row lacks it."""
    values = [row[name] for row in rows]
    return values if all(value is not None and math.isfinite(value) for value in values) else []


def _mean_share(rows: Sequence[Row], name: str) -> float | None:
    parts, wholes = _values(rows, name), _values(rows, "energy_gross_j")
    if not parts or not wholes or min(wholes) <= 0:
        return None
    return estimate([part / whole for part, whole in zip(parts, wholes, strict=True)]).mean


def _labels(experiments: Sequence[Row], settings: Sequence[str]) -> list[str]:
    """Return a short name for every experiment from the settings in which they differ."""
    varied = [
        name
        for name in (*SETTING_COLUMNS, *settings)
        if len({str(row[name]) for row in experiments}) > 1
    ]
    labels = [_label(row, varied) for row in experiments]
    seen = Counter(labels)
    return [
        label if seen[label] == 1 else f"{label}, {row['experiment']}"
        for label, row in zip(labels, experiments, strict=True)
    ]


def _label(row: Row, varied: Sequence[str]) -> str:
    parts = [_label_part(name, row[name]) for name in varied if row[name] is not None]
    return ", ".join(parts) or row["model"] or row["experiment"]


def _label_part(name: str, value: Any) -> str:
    if name in SETTING_COLUMNS:
        return str(value)
    short = name.rpartition(".")[2]
    if isinstance(value, bool):
        return f"{short}={str(value).lower()}"
    return f"{short}={str(value).removesuffix('.0') if isinstance(value, float) else value}"


def _typed(values: list[Any], kind: pa.DataType) -> pa.Array:
    array = setting_array(values)
    return array if array.type == kind else array.cast(kind)
