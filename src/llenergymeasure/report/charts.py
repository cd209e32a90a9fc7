"""The parts that the study's charts share, and those of means and of the order of runs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llenergymeasure.analysis.selection import Row
from llenergymeasure.report.drawing import (
    COLOURS,
    NARROW,
    WIDE,
    Channel,
    Chart,
    Figure,
    draw_figure,
    layer,
    no_figure,
    nominal,
    plot_size,
    quantitative,
)
from llenergymeasure.report.formatting import (
    AS_IS,
    Scale,
    count_text,
    scale_for,
    shortened,
    with_interval,
)
from llenergymeasure.units import percent

NAME_LENGTH = 34
"""The most characters of a name, next to the rows and (on a phone) above them."""
CHARACTER_WIDTH, VALUE_WIDTH = 8, 150
"""In pixels: of a name's widest common font, and of the values on the right."""

SHOWN_EXPERIMENTS = 40
LOG_AXIS_RATIO = 20.0
"""An axis is logarithmic if the largest mean is more than this many times the smallest."""
HEADROOM = 1.15
REACH = 3.0
"""An axis ends this far above its largest value, but at most at three times the largest mean: the
wide interval of two or three runs would squeeze the rest. An arrow head shows that it continues."""

MIN_REACH_PERCENT = 1.0
KINDS = ("measured", "estimated", "unknown")
IN_MEANS, FLAGGED, LEFT_OUT = STATES = ("in means", "flagged", "left out")
CLIPPED = "An arrow head marks an interval that goes on beyond the axis."
NO_ENERGY = "No run with energy to show"

QUANTITIES = {
    "energy_per_output_token_j": ("Energy per output token", "J"),
    "energy_per_request_j": ("Energy per request", "J"),
    "output_tokens_per_s": ("Throughput", "output tokens/s"),
    "goodput_requests_per_s": ("Goodput", "requests/s"),
    "power_mean_w": ("Mean power", "W"),
    "request_latency_p50_s": ("Median request latency", "s"),
    "request_latency_p95_s": ("Request latency, 95th percentile", "s"),
    "time_to_first_token_p99_s": ("Time to first token, 99th percentile", "s"),
    "quality_score": ("Quality score", ""),
}
"""The quantity that figures show of experiments: its name and unit."""


@dataclass(frozen=True)
class Axis:
    """The axis of one quantity of the experiments, which it takes from their rows.

    Attributes:
        metric: the quantity's name in the summary.
        title: what it is, with its unit.
        scale: the unit of the axis.
        low: where it begins.
        high: where it ends.
        logarithmic: whether equal steps are equal ratios.
    """

    metric: str
    title: str
    scale: Scale
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def for_rows(cls, rows: Sequence[Row], metric: str) -> "Axis":
        """Return the axis for the means of ``rows``, with as much of their intervals as fits."""
        title, unit = QUANTITIES[metric]
        means = [row[f"{metric}_mean"] for row in rows]
        scale = scale_for(means, unit) if unit else AS_IS
        lowest, highest = scale(min(means)), scale(max(means))
        ends = [row[f"{metric}_ci95_{end}"] for row in rows for end in ("low", "high")]
        known_ends = [scale(end) for end in ends if end is not None]
        high = min(max([highest, *known_ends]) * HEADROOM, REACH * highest)
        is_log = lowest > 0 and highest / lowest > LOG_AXIS_RATIO
        details = ", ".join(part for part in (scale.unit, "log scale" if is_log else "") if part)
        axis_title = f"{title} ({details})" if details else title
        if not is_log:
            return cls(metric, axis_title, scale, 0.0, high or 1.0, logarithmic=False)
        low = max(min([lowest, *known_ends]) / HEADROOM, lowest / REACH)
        return cls(metric, axis_title, scale, low, high, logarithmic=True)

    def values(self, row: Row) -> dict[str, float | None]:
        """Return an experiment's mean and its interval's ends in the unit of the axis."""
        mean, low, high = self.scale.interval(row, self.metric)
        return {"value": mean, "low": low, "high": high}

    def channel(self, field: str, **options: Any) -> Channel:
        """Return the encoding of a field along this axis."""
        scale = {
            "type": "log" if self.logarithmic else "linear",
            "domain": [self.low, self.high],
            "nice": False,
            "clamp": True,
        }
        axis = {
            **options.pop("axis", {}),
            **({"values": self._ticks()} if self.logarithmic else {}),
        }
        return quantitative(field, **{"scale": scale, "title": self.title, "axis": axis, **options})

    def _ticks(self) -> list[float]:
        """Return the ticks of a logarithmic axis: 1, 2 and 5 times each power of ten in it."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
        ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [tick for tick in ticks if self.low <= tick <= self.high]

    def clips(self, low: float | None, high: float | None) -> bool:
        """Return whether an interval continues beyond the axis."""
        return low is not None and high is not None and (low < self.low or high > self.high)


def clipped_note(rows: Sequence[Row], *axes: Axis) -> str:
    """Return the caption's note on intervals that continue beyond an axis."""
    for axis in axes:
        for row in rows:
            _, low, high = axis.scale.interval(row, axis.metric)
            if axis.clips(low, high):
                return CLIPPED
    return ""


def interval_marks(
    rows: Iterable[Row],
    axis: Axis,
    along: Literal["x", "y"],
    across: Mapping[str, Channel],
    *,
    fields: tuple[str, str] = ("low", "high"),
    width: float = 1.5,
    options: Mapping[str, Any] | None = None,
) -> list[Chart]:
    """Return the intervals of ``rows``, with an arrow head where one continues beyond the axis.

    Args:
        rows: each with its interval's ends, or None, under the names in ``fields``.
        axis: on which they lie.
        along: which of the two axes that is.
        across: the other channels: the place on the other axis, and the colour.
        fields: the names of the ends.
        width: of the line.
        options: of the axis's encoding.
    """
    low, high = fields
    bounded_rows = [row for row in rows if row[low] is not None]
    ends = {along: axis.channel(low, **(options or {})), f"{along}2": {"field": high}}
    rules = layer(bounded_rows, {"type": "rule", "strokeWidth": width}, **ends, **across)
    down, up = ("left", "right") if along == "x" else ("down", "up")
    layers = [rules]
    for toward, edge, clipped_rows in (
        (down, axis.low, [row for row in bounded_rows if row[low] < axis.low]),
        (up, axis.high, [row for row in bounded_rows if row[high] > axis.high]),
    ):
        if clipped_rows:
            mark = {"type": "point", "size": 70, "opacity": 1, "filled": True}
            heads = [{**row, "end": edge} for row in clipped_rows]
            end = {along: axis.channel("end", **(options or {}))}
            layers.append(layer(heads, {**mark, "shape": f"triangle-{toward}"}, **end, **across))
    return layers


def intervals_figure(summary: Sequence[Row], runs: Sequence[Row], metric: str) -> Figure:
    """Return experiments as rows: mean, 95 % interval, and a tick for each run in the mean.

    If one run gives no interval, a dashed line shows the meter's own 95 % uncertainty.

    Args:
        summary: the experiments, in the order of the rows.
        runs: the runs in the means.
        metric: the energy's column in ``runs``.
    """
    title, _ = QUANTITIES[metric]
    shown_rows = [row for row in summary if row[f"{metric}_mean"] is not None][:SHOWN_EXPERIMENTS]
    if not shown_rows:
        return no_figure(title, NO_ENERGY)
    axis = Axis.for_rows(shown_rows, metric)
    rows = [{"place": place, **_labelled(row, axis)} for place, row in enumerate(shown_rows)]
    places = {row["experiment"]: place for place, row in enumerate(shown_rows)}
    ticks = [
        {"place": places[run["experiment"]], "value": axis.scale(run[metric])}
        for run in runs
        if run["experiment"] in places and run[metric] is not None
    ]
    text = "; ".join(f"{row['label']}: {row['text']} {axis.scale.unit}" for row in rows)
    note = clipped_note(shown_rows, axis)
    return draw_figure(lambda wide: _rows_chart(rows, ticks, axis, wide=wide), title, text, note)


def _labelled(row: Row, axis: Axis) -> dict[str, Any]:
    mean, values = axis.scale(row[f"{axis.metric}_mean"]), axis.values(row)
    text = with_interval(mean, values["low"], values["high"])
    has_interval = values["high"] is not None
    meter_u95_rel = None if has_interval else row["energy_u95_rel"]
    return {
        **values,
        "label": shortened(row["label"], NAME_LENGTH),
        "kind": row["kind"] or "unknown",
        "text": text if has_interval else f"{text} (1 run)",
        "meter_low": None if meter_u95_rel is None else mean * (1 - meter_u95_rel),
        "meter_high": None if meter_u95_rel is None else mean * (1 + meter_u95_rel),
    }


def _rows_chart(rows: Sequence[Row], ticks: Sequence[Row], axis: Axis, *, wide: bool) -> Chart:
    y = {"field": "place", "type": "ordinal", "axis": None, "scale": {"padding": 0.5}}
    along = {"axis": {"tickCount": 8 if wide else 5}}
    x = axis.channel("value", **along)
    colour = kind_colour()
    across = {"y": y, "color": colour}
    tick = {"type": "tick", "thickness": 1, "size": 13, "opacity": 0.6, "color": COLOURS["muted"]}
    meter_rule = {"type": "rule", "strokeWidth": 1.5, "strokeDash": [3, 3]}
    meter_ends = {"x": axis.channel("meter_low", **along), "x2": {"field": "meter_high"}}
    text = {"type": "text", "baseline": "middle", "dy": 0 if wide else -16, "fontSize": 13.5}
    name_width = CHARACTER_WIDTH * max(len(row["label"]) for row in rows) + 12
    plot_width = WIDE - name_width - VALUE_WIDTH if wide else NARROW - 20
    names = {**text, "align": "left", "color": COLOURS["ink"]}
    values = {**text, "align": "left" if wide else "right", "color": COLOURS["muted"]}
    value_place = plot_width + 14 if wide else plot_width
    return {
        "layer": [
            layer(ticks, tick, x=x, y=y),
            layer(rows, meter_rule, y=y, color=colour, **meter_ends),
            *interval_marks(rows, axis, "x", across, width=2.5, options=along),
            kind_points(rows, x, y),
            layer(rows, names, x={"value": -name_width if wide else 0}, y=y, text=nominal("label")),
            layer(rows, values, x={"value": value_place}, y=y, text=nominal("text")),
        ],
        "width": plot_width,
        "height": (28 if wide else 46) * len(rows),
        # The reader's font may be wider than the one the figure is drawn with.
        "padding": {"left": 6, "right": 30 if wide else 6, "top": 6, "bottom": 6},
    }


def order_figure(points: Sequence[Row]) -> Figure:
    """Return each run's deviation from its experiment's mean, in the order in which runs began.

    A run that is in no mean may be beyond the axis: then it is drawn at its edge.

    Args:
        points: of each run its ``position`` in that order, from 1, its ``deviation`` from the mean
            in per cent, and its ``state``, one of :data:`STATES`.
    """
    title = "Energy of each run against its experiment's mean, by order"
    if not points:
        return no_figure(title, "Needs two runs of one experiment")
    deviations = [abs(point["deviation"]) for point in points if point["state"] != LEFT_OUT]
    largest = max(deviations, default=0.0)
    text = f"{count_text(len(points), 'run')}, at most {percent(largest / 100)} from the mean."
    return draw_figure(lambda wide: _order_chart(points, largest, wide=wide), title, text)


def _order_chart(points: Sequence[Row], largest: float, *, wide: bool) -> Chart:
    reach = 1.2 * max(MIN_REACH_PERCENT, largest)
    last = max(point["position"] for point in points)
    x = quantitative(
        "position",
        title="Run, in the order in which they began",
        scale={"domain": [0.5, last + 0.5], "nice": False},
        axis={"tickMinStep": 1, "format": "d", "tickCount": min(last, 10 if wide else 5)},
    )
    y = quantitative(
        "deviation",
        title="Energy against its experiment's mean (%)",
        scale={"domain": [-reach, reach], "clamp": True},
    )
    colours = [COLOURS["measured"], COLOURS["flag"], COLOURS["muted"]]
    shapes = ["circle", "triangle-up", "cross"]
    zero = layer([{"deviation": 0}], {"type": "rule", "color": COLOURS["muted"]}, y=y)
    dots = layer(
        points,
        {"type": "point", "size": 48, "opacity": 0.9, "strokeWidth": 1.8},
        x=x,
        y=y,
        color=nominal("state", title=None, scale={"domain": STATES, "range": colours}),
        shape=nominal("state", title=None, scale={"domain": STATES, "range": shapes}),
    )
    return {
        "layer": [zero, dots],
        **plot_size(260, 240, wide=wide),
    }


def kind_points(rows: Sequence[Row], x: Channel, y: Channel) -> Chart:
    """Return the means' marks: filled circles where measured, hollow diamonds where estimated."""
    shapes = {"domain": KINDS, "range": ["circle", "diamond", "square"]}
    return layer(
        rows,
        {"type": "point", "size": 46, "opacity": 1, "strokeWidth": 1.8},
        x=x,
        y=y,
        shape=nominal("kind", legend=None, scale=shapes),
        stroke=kind_colour(),
        fill=kind_colour(("measured", "paper", "paper")),
    )


def kind_colour(colours: Iterable[str] = ("measured", "estimated", "muted")) -> Channel:
    """Return a colour that says whether energy was measured or estimated."""
    scale = {"domain": KINDS, "range": [COLOURS[name] for name in colours]}
    return nominal("kind", legend=None, scale=scale)
