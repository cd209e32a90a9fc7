"""The study's main figures: each quantity's mean against each swept setting.

A second setting is shown by colour and shape. Further ones are held at the values that most
experiments share, and the caption says so.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llenergymeasure.analysis.load_curve import LOAD_SETTINGS
from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.summary import SUMMARY_SCHEMA
from llenergymeasure.report.charts import Axis, clipped_note, interval_marks
from llenergymeasure.report.drawing import (
    COLOURS,
    NARROW,
    WIDE,
    Channel,
    Chart,
    Figure,
    draw_figure,
    layer,
    nominal,
    quantitative,
)
from llenergymeasure.report.findings import ENERGY_PER_TOKEN
from llenergymeasure.report.formatting import (
    count_text,
    join_words,
    mean_text,
    rounded,
    setting_text,
    setting_texts,
    shortened,
)
from llenergymeasure.results.columns import SETTING_COLUMNS

METRICS = (ENERGY_PER_TOKEN, "output_tokens_per_s", "power_mean_w")
BATCH_METRICS = (*METRICS, "request_latency_p50_s")
TRAFFIC_METRICS = (
    *METRICS,
    "goodput_requests_per_s",
    "request_latency_p95_s",
    "time_to_first_token_p99_s",
)
SHOWN_SETTINGS = 4
SERIES = (
    ("measured", "circle"),
    ("estimated", "square"),
    ("flag", "triangle-up"),
    ("green", "diamond"),
    ("gold", "triangle-down"),
    ("muted", "cross"),
)
"""Colour and shape of the second setting's values; further values are not drawn."""
LOG2_RATIO = 8.0
"""A numeric setting that spans this factor has a logarithmic axis of base 2."""
LISTED_TICKS = 10
OFFERED_RATE_TITLE = "Requests offered per second"


@dataclass(frozen=True)
class Sweep:
    """The experiments of one figure.

    Attributes:
        title: the setting along the axis, or the load that it asks for.
        numeric: whether the setting is a number.
        rows: the experiments, each with its place ``x`` and its ``series``.
        x_values: the places, in their order.
        series: the second setting's name; empty for none.
        series_values: its values as texts, in their order.
        notes: what is not drawn, and which settings are held fixed, as sentences.
    """

    title: str
    numeric: bool
    rows: list[dict[str, Any]]
    x_values: list[Any]
    series: str
    series_values: list[str]
    notes: list[str]


def sweep_figures(summary: Sequence[Row], offered: Mapping[str, float]) -> dict[str, Figure]:
    """Return a figure for each swept setting, the most interesting first.

    Args:
        summary: the experiments that one axis may hold.
        offered: requests offered a second by experiment, where there were any.
    """
    rows = [row for row in summary if row[f"{ENERGY_PER_TOKEN}_mean"] is not None]
    settings = swept_settings(rows) if rows else []
    figures = {}
    for setting in settings[:SHOWN_SETTINGS]:
        others = [name for name in settings if name != setting]
        sweep = make_sweep(rows, setting, others, offered)
        if sweep is None:
            continue
        metrics = TRAFFIC_METRICS if offered else BATCH_METRICS
        name = "against_" + re.sub(r"[^A-Za-z0-9_-]+", "_", setting)[:60]
        while name in figures:  # of a setting that is cut alike
            name += "_"
        figures[name] = _sweep_figure(sweep, metrics)
    return figures


def varied_settings(rows: Sequence[Row]) -> list[str]:
    """Return the columns of the settings in which experiments differ."""
    names = [*SETTING_COLUMNS, *(name for name in rows[0] if name not in SUMMARY_SCHEMA.names)]
    return [name for name in names if _n_values(rows, name) > 1]


def _n_values(rows: Sequence[Row], name: str) -> int:
    return len({str(row[name]) for row in rows})


def swept_settings(rows: Sequence[Row]) -> list[str]:
    """Return the settings in which experiments differ: loads, then numbers, then texts.

    If settings always change together, only the first is used.
    """
    partitions: dict[tuple[int, ...], str] = {}
    for name in sorted(
        varied_settings(rows),
        key=lambda name: (name not in LOAD_SETTINGS, name in SETTING_COLUMNS),
    ):
        values = [str(row[name]) for row in rows]
        partitions.setdefault(tuple(map(values.index, values)), name)
    return sorted(
        partitions.values(),
        key=lambda name: (
            name not in LOAD_SETTINGS,
            not _is_numeric(rows, name),
            -len({row[name] for row in rows}),
        ),
    )


def _is_numeric(rows: Sequence[Row], name: str) -> bool:
    return all(
        row[name] is None
        or (isinstance(row[name], int | float) and not isinstance(row[name], bool))
        for row in rows
    )


def make_sweep(
    rows: Sequence[Row], setting: str, others: Sequence[str], offered: Mapping[str, float]
) -> Sweep | None:
    """Return the experiments of one figure; None if fewer than two places are left."""
    candidates = [row for row in rows if row[setting] is not None]
    series = next((name for name in others if _n_values(candidates, name) <= len(SERIES)), "")
    fixed_settings = [name for name in others if name != series]
    drawn_rows, notes = _fix_settings(candidates, fixed_settings)
    if len({row[setting] for row in drawn_rows}) < 2:
        return None
    if len(candidates) < len(rows):
        notes.append(
            f"Not drawn: {count_text(len(rows) - len(candidates), 'experiment')} without it."
        )
    by_load = setting in LOAD_SETTINGS and all(row["experiment"] in offered for row in drawn_rows)
    numeric = _is_numeric(drawn_rows, setting)
    value_texts = setting_texts(row[setting] for row in drawn_rows)
    series_texts = setting_texts(row[series] for row in drawn_rows) if series else {}

    def place(row: Row) -> Any:
        if by_load:
            return offered[row["experiment"]]
        return row[setting] if numeric else value_texts[row[setting]]

    placed_rows = [
        {**row, "x": place(row), "series": series_texts[row[series]] if series else ""}
        for row in drawn_rows
    ]
    series_values = [""]
    if series:
        series_values = [series_texts[value] for value in _ordered_values(drawn_rows, series)]
    return Sweep(
        title=OFFERED_RATE_TITLE if by_load else shortened(setting, 60),
        numeric=numeric,
        rows=placed_rows,
        x_values=sorted({row["x"] for row in placed_rows}),
        series=series,
        series_values=series_values,
        notes=notes,
    )


def _fix_settings(rows: Sequence[Row], names: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return the experiments that share the most common values of ``names``, and a note on it."""
    varied = [name for name in names if _n_values(rows, name) > 1]
    if not varied:
        return list(rows), []
    counts = Counter(tuple(str(row[name]) for name in varied) for row in rows)
    values = counts.most_common(1)[0][0]
    drawn_rows = [row for row in rows if tuple(str(row[name]) for name in varied) == values]
    text = join_words(
        [
            f"{shortened(name, 40)}={shortened(value, 40)}"
            for name, value in zip(varied, values, strict=True)
        ]
    )
    others = count_text(len(rows) - len(drawn_rows), "more experiment")
    return drawn_rows, [f"Drawn at {text}; {others} in the table."]


def _ordered_values(rows: Sequence[Row], name: str) -> list[Any]:
    numeric = _is_numeric(rows, name)
    return sorted(
        {row[name] for row in rows},
        key=lambda value: (value is None, value or 0 if numeric else str(value)),
    )


def _sweep_figure(sweep: Sweep, metrics: Sequence[str]) -> Figure:
    axes = []
    for metric in metrics:
        rows = [row for row in sweep.rows if row[f"{metric}_mean"] is not None]
        if rows:
            axes.append(Axis.for_rows(rows, metric))
    notes = filter(None, [*sweep.notes, clipped_note(sweep.rows, *axes)])
    return draw_figure(
        lambda wide: _panels(sweep, axes, wide=wide),
        f"{axes[0].title.partition(' (')[0]} and other quantities against {sweep.title}",
        _means_text(sweep, axes[0]),
        " ".join(notes),
    )


def _means_text(sweep: Sweep, axis: Axis) -> str:
    """Return the means of the first quantity, in words."""
    parts = []
    for series in sweep.series_values:
        rows = [row for row in sweep.rows if row["series"] == series]
        rows.sort(key=lambda row: sweep.x_values.index(row["x"]))
        place_text = (
            rounded if sweep.title == OFFERED_RATE_TITLE else partial(setting_text, limit=200)
        )
        means = ", ".join(
            f"{mean_text(*axis.values(row).values())} at {place_text(row['x'])}" for row in rows
        )
        parts.append(f"{sweep.series}={series}: {means}" if sweep.series else means)
    return f"{axis.title}: {'; '.join(parts)}."


def _panels(sweep: Sweep, axes: Sequence[Axis], *, wide: bool) -> Chart:
    return {
        "concat": [_panel(sweep, axis, wide=wide) for axis in axes],
        "columns": 2 if wide else 1,
        "spacing": {"row": 18, "column": 26},
        "resolve": {"scale": {"color": "shared", "shape": "shared"}},
    }


def _panel(sweep: Sweep, axis: Axis, *, wide: bool) -> Chart:
    rows = [
        {
            "x": row["x"],
            "series": row["series"],
            "kind": row["kind"] or "unknown",
            **axis.values(row),
        }
        for row in sweep.rows
        if row[f"{axis.metric}_mean"] is not None
    ]
    options = {"title": None, "axis": {"tickCount": 5}}
    y = axis.channel("value", **options)
    channels = {
        "x": setting_channel(sweep),
        "color": _series_channel(sweep, [COLOURS[name] for name, _ in SERIES]),
    }
    if not sweep.numeric and sweep.series:
        channels["xOffset"] = nominal("series", sort=sweep.series_values)
    line = layer(rows, {"type": "line", "strokeWidth": 1.5}, y=y, **channels)
    hollow = {"condition": {"test": "datum.kind != 'measured'", "value": COLOURS["paper"]}}
    points = layer(
        rows,
        {"type": "point", "size": 55, "opacity": 1, "filled": False, "strokeWidth": 1.8},
        y=y,
        shape=_series_channel(sweep, [shape for _, shape in SERIES]),
        fill=hollow | channels["color"],
        **channels,
    )
    return {
        "layer": [
            *([line] if sweep.numeric else []),
            *interval_marks(rows, axis, "y", channels, options=options),
            points,
        ],
        "title": axis.title,
        "width": (WIDE - 150) // 2 if wide else NARROW - 60,
        "height": 190 if wide else 170,
    }


def setting_channel(sweep: Sweep) -> Channel:
    """Return the setting's axis: of base 2 where it spans a large factor, or of categories."""
    if not sweep.numeric:
        return nominal("x", title=sweep.title, sort=sweep.x_values, axis={"labelAngle": 0})
    title, smallest, largest = sweep.title, sweep.x_values[0], sweep.x_values[-1]
    axis: dict[str, Any] = {
        "grid": False,
        "format": ".3~r" if sweep.title == OFFERED_RATE_TITLE else ".12~r",
    }
    if len(sweep.x_values) <= LISTED_TICKS:
        axis["values"] = sweep.x_values
    if smallest > 0 and largest / smallest >= LOG2_RATIO:
        title = f"{title} (log scale)"
        edge = (largest / smallest) ** 0.04
        scale = {
            "type": "log",
            "base": 2,
            "domain": [smallest / edge, largest * edge],
            "nice": False,
        }
    else:
        edge = 0.04 * (largest - smallest)
        scale = {"domain": [smallest - edge, largest + edge], "nice": False, "zero": False}
    return quantitative("x", title=title, scale=scale, axis=axis)


def _series_channel(sweep: Sweep, styles: Sequence[str]) -> Channel:
    """Return the second setting as colour or shape."""
    scale = {"domain": sweep.series_values, "range": styles[: len(sweep.series_values)]}
    title = shortened(sweep.series, 40)
    return nominal("series", title=title, scale=scale, **({} if sweep.series else {"legend": None}))
