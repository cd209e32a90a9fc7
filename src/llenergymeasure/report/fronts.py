"""Energy against a second objective: every experiment, and the Pareto front as a line."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from llenergymeasure.analysis.selection import Row
from llenergymeasure.report.charts import (
    NO_ENERGY,
    QUANTITIES,
    SHOWN_EXPERIMENTS,
    Axis,
    beyond_note,
    interval_marks,
    kind_of,
    kind_points,
)
from llenergymeasure.report.figures import (
    COLOURS,
    Chart,
    Figure,
    drawn,
    layer,
    no_figure,
    numbers,
    plot_size,
    texts,
)
from llenergymeasure.report.findings import TOKEN
from llenergymeasure.report.wording import listed, plain, shortened

LABEL_LENGTH, NARROW_LABEL_LENGTH = 30, 20
LETTER_WIDTH, LINE_HEIGHT = 7, 13
"""Of a label, in pixels."""


def front_figure(summary: Sequence[Row], front: Collection[str], metric: str) -> Figure:
    """Return energy per output token against another quantity.

    Those on the front have their names, the others their row in the table of experiments.

    Args:
        summary: the experiments, in the order of the table.
        front: the ids of those that none beats in both.
        metric: the other quantity.
    """
    heading = f"Energy per output token against {QUANTITIES[metric][0].lower()}"
    shown = [
        (str(number), row)
        for number, row in enumerate(summary, start=1)
        if row[f"{TOKEN}_mean"] is not None and row[f"{metric}_mean"] is not None
    ][:SHOWN_EXPERIMENTS]
    if not shown:
        return no_figure(heading, NO_ENERGY)
    energy, other = (Axis.over([row for _, row in shown], name) for name in (TOKEN, metric))
    rows: list[dict[str, Any]] = [
        {
            **energy.values(row),
            **{f"x_{name}": value for name, value in other.values(row).items()},
            "kind": row["kind"] or "unknown",
            "number": number,
            "name": plain(row["label"]),
            "front": row["experiment"] in front,
        }
        for number, row in shown
    ]
    best = [row["name"] for row in rows if row["front"]]
    text = f"On the Pareto front: {listed(best[:8])}." if best else "No Pareto front was computed."
    note = beyond_note([row for _, row in shown], energy, other)
    return drawn(lambda wide: _scatter(rows, energy, other, wide=wide), heading, text, note)


def _scatter(rows: Sequence[dict[str, Any]], energy: Axis, other: Axis, *, wide: bool) -> Chart:
    x, y = other.channel("x_value"), energy.channel("value")
    colour = kind_of()
    ends = ("x_low", "x_high")
    line = {"type": "line", "strokeWidth": 2, "color": COLOURS["green"]}
    on_front = [row for row in rows if row["front"]]
    return {
        "layer": [
            layer(on_front, line, x=x, y=y, order=numbers("x_value")),
            *interval_marks(rows, energy, "y", {"x": x, "color": colour}),
            *interval_marks(rows, other, "x", {"y": y, "color": colour}, fields=ends),
            kind_points(rows, x, y),
            *_labels(rows, energy, other, wide=wide),
        ],
        **plot_size(340, 280, wide=wide),
    }


def _labels(
    rows: Sequence[dict[str, Any]], energy: Axis, other: Axis, *, wide: bool
) -> Iterator[Chart]:
    """Yield names of those on the front, and numbers of others; none lies on another.

    A name is below its mark where nothing else is, and has the first right to its place.
    """
    length, size = LABEL_LENGTH if wide else NARROW_LABEL_LENGTH, plot_size(340, 280, wide=wide)
    taken: list[tuple[float, float, float]] = []
    for row in sorted(rows, key=lambda row: not row["front"]):
        across, up = _share(row["x_value"], other), _share(row["value"], energy)
        is_right = across > 0.5
        text = shortened(row["name"], length) if row["front"] else row["number"]
        width = LETTER_WIDTH * len(text)
        left = across * size["width"] + (-5 - width if is_right else 5)
        for dy in (14, -9) if row["front"] and up > 0.12 else (-9,):
            right, at = left + width, dy - up * size["height"]
            if not any(left < b and a < right and abs(at - y) < LINE_HEIGHT for a, b, y in taken):
                break
        else:
            continue
        taken.append((left, right, at))
        mark = {
            "type": "text",
            "align": "right" if is_right else "left",
            "dx": -5 if is_right else 5,
            "dy": dy,
            "fontSize": 12.5,
            "color": COLOURS["ink" if row["front"] else "muted"],
        }
        x, y = other.channel("x_value"), energy.channel("value")
        yield layer([{**row, "text": text}], mark, x=x, y=y, text=texts("text"))


def _share(value: float, axis: Axis) -> float:
    """Return the share of an axis's length at which a value lies."""
    if axis.logarithmic:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)
