"""Energy against a second objective: every experiment, and the Pareto front as a line."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from llenergymeasure.analysis.selection import Row
from llenergymeasure.report.charts import (
    NO_ENERGY,
    QUANTITIES,
    SHOWN_EXPERIMENTS,
    Axis,
    clipped_note,
    interval_marks,
    kind_colour,
    kind_points,
)
from llenergymeasure.report.drawing import (
    COLOURS,
    Chart,
    Figure,
    draw_figure,
    layer,
    no_figure,
    nominal,
    plot_size,
    quantitative,
)
from llenergymeasure.report.findings import ENERGY_PER_TOKEN
from llenergymeasure.report.formatting import join_words, plain, shortened

LABEL_LENGTH, NARROW_LABEL_LENGTH = 30, 20
LETTER_WIDTH, HEIGHT, BASELINE = 7, 13, 4
"""Of a label, in pixels; its baseline lies so far below its middle."""
MARK_RADIUS = 4


def front_figure(summary: Sequence[Row], front: Collection[str], metric: str) -> Figure:
    """Return energy per output token against another quantity.

    Experiments on the front are named; the others have the number of their row in the table.

    Args:
        summary: the experiments, in the order of the table.
        front: the ids of those that none beats in both.
        metric: the other quantity.
    """
    heading = f"Energy per output token against {QUANTITIES[metric][0].lower()}"
    numbered_rows = [
        (str(number), row)
        for number, row in enumerate(summary, start=1)
        if row[f"{ENERGY_PER_TOKEN}_mean"] is not None and row[f"{metric}_mean"] is not None
    ][:SHOWN_EXPERIMENTS]
    if not numbered_rows:
        return no_figure(heading, NO_ENERGY)
    shown_rows = [row for _, row in numbered_rows]
    energy, other = (Axis.for_rows(shown_rows, name) for name in (ENERGY_PER_TOKEN, metric))
    rows: list[dict[str, Any]] = [
        {
            **energy.values(row),
            **{f"x_{name}": value for name, value in other.values(row).items()},
            "kind": row["kind"] or "unknown",
            "number": number,
            "name": plain(row["label"]),
            "front": row["experiment"] in front,
        }
        for number, row in numbered_rows
    ]
    best = [row["name"] for row in rows if row["front"]]
    text = (
        f"On the Pareto front: {join_words(best[:8])}." if best else "No Pareto front was computed."
    )
    note = clipped_note(shown_rows, energy, other)
    return draw_figure(lambda wide: _scatter(rows, energy, other, wide=wide), heading, text, note)


def _scatter(rows: Sequence[dict[str, Any]], energy: Axis, other: Axis, *, wide: bool) -> Chart:
    x, y = other.channel("x_value"), energy.channel("value")
    colour = kind_colour()
    ends = ("x_low", "x_high")
    line = {"type": "line", "strokeWidth": 2, "color": COLOURS["green"]}
    on_front = [row for row in rows if row["front"]]
    return {
        "layer": [
            layer(on_front, line, x=x, y=y, order=quantitative("x_value")),
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
    """Yield names of those on the front and numbers of the others, without overlaps.

    Names are placed before numbers; a name without a free place is replaced by its number.
    """
    length, size = LABEL_LENGTH if wide else NARROW_LABEL_LENGTH, plot_size(340, 280, wide=wide)
    places = [(row, _mark_position(row, energy, other, size)) for row in rows]
    boxes = [(x - MARK_RADIUS, x + MARK_RADIUS, y) for _, (x, y) in places]
    for row, place in sorted(places, key=lambda row_and_place: not row_and_place[0]["front"]):
        name = [shortened(row["name"], length)] if row["front"] else []
        for text, (dx, dy) in product(
            (*name, row["number"]), _label_offsets(place, size, front=row["front"])
        ):
            width = LETTER_WIDTH * len(text)
            left = place[0] + dx - (width if dx < 0 else 0)
            right, baseline = left + width, place[1] + dy - BASELINE
            if left < 0 or right > size["width"]:
                continue
            if not any(a < right and left < b and abs(baseline - y) < HEIGHT for a, b, y in boxes):
                boxes.append((left, right, baseline))
                yield _label({**row, "text": text}, energy, other, dx, dy)
                break


def _mark_position(
    row: Mapping[str, Any], energy: Axis, other: Axis, size: Mapping[str, int]
) -> tuple[float, float]:
    """Return where a mark is, in pixels from the left and, below zero, from the bottom."""
    across, up = _axis_share(row["x_value"], other), _axis_share(row["value"], energy)
    return across * size["width"], -up * size["height"]


def _label_offsets(
    place: tuple[float, float], size: Mapping[str, int], *, front: bool
) -> list[tuple[int, int]]:
    """Return the places of a label around its mark, the best first: below it for the front."""
    across = (-5, 5) if place[0] > size["width"] / 2 else (5, -5)
    below = [14] if -place[1] > 0.12 * size["height"] else []
    return list(product(across, [*below, -9] if front else [-9, *below]))


def _label(row: dict[str, Any], energy: Axis, other: Axis, dx: int, dy: int) -> Chart:
    mark = {
        "type": "text",
        "align": "left" if dx > 0 else "right",
        "dx": dx,
        "dy": dy,
        "fontSize": 12.5,
        "color": COLOURS["ink" if row["front"] else "muted"],
    }
    x, y = other.channel("x_value"), energy.channel("value")
    return layer([row], mark, x=x, y=y, text=nominal("text"))


def _axis_share(value: float, axis: Axis) -> float:
    """Return the position of a value along an axis, as a share of its length."""
    if axis.logarithmic:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)
