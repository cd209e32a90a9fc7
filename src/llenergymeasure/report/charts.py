"""The study's charts, as Vega-Lite through Altair.

Colours are those of :data:`COLOURS` exactly, so that the page can exchange them in its dark
dress. Texts of a study go in as data, never into an expression.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llenergymeasure.analysis.drift import Drift
from llenergymeasure.report.wording import Scale, plain, rounded, scale_for, with_half_width

COLOURS = {
    "ink": "#1d2126",
    "muted": "#5a636e",
    "line": "#dce1e6",
    "paper": "#ffffff",
    "measured": "#0072b2",
    "estimated": "#c04a00",
    "flag": "#a8326e",
}
"""Blue and vermilion stay apart under the common colour blindnesses (after Okabe and Ito,
2008); shape says the same: filled circles are measured, hollow diamonds estimated."""

WIDE, NARROW = 800, 340
NAME_WIDTH, VALUE_WIDTH = 240, 130
SHOWN_EXPERIMENTS = 40
LOG_RATIO, SCATTER_LOG_RATIO = 20.0, 8.0
"""From these ratios of largest to smallest mean on, axes are logarithmic."""
HEADROOM = 1.15
"""A linear axis ends this far above the largest value and, at most, three times the mean:
beyond, an interval of two or three runs would squeeze all else."""

MIN_REACH_PERCENT = 1.0
KINDS = ("measured", "estimated", "unknown")
STATES = ("in means", "flagged", "left out")

Row: TypeAlias = Mapping[str, Any]
Chart: TypeAlias = Any
Channel: TypeAlias = Any


@dataclass(frozen=True)
class OrderPoint:
    """One run in the order plot.

    Attributes:
        position: its place in the order in which runs began, from 1.
        deviation: energy per output token over its experiment's mean, less 1.
        state: one of :data:`STATES`.
    """

    position: int
    deviation: float
    state: str


def intervals(
    summary: Sequence[Row], runs: Sequence[Row], metric: str, work: str, *, wide: bool
) -> Chart:
    """Return experiments as rows: mean, 95 % interval, and a tick for each run in the mean.

    Where one run leaves no interval, a dashed line is the meter's own 95 % uncertainty.

    Args:
        summary: the experiments, in the order of the rows.
        runs: the runs in the means.
        metric: the energy's column in ``runs``.
        work: what the energy is for, in words.
        wide: for a page's full width; names stand above the rows otherwise.
    """
    import altair as alt

    shown = [row for row in summary if row[f"{metric}_mean"] is not None][:SHOWN_EXPERIMENTS]
    if not shown:
        return message("No run with energy to show", wide=wide)
    scale = scale_for((row[f"{metric}_mean"] for row in shown), "J")
    rows = [
        {"place": place, "label": plain(row["label"], 80), **_energy(row, metric, scale)}
        for place, row in enumerate(shown)
    ]
    places = {row["experiment"]: place for place, row in enumerate(shown)}
    ticks = [
        {"place": places[run["experiment"]], "value": scale(run[metric])}
        for run in runs
        if run["experiment"] in places and run[metric] is not None
    ]
    axis = _axis_scale(rows, logarithmic=_ratio(rows, "value") > LOG_RATIO)
    title = f"Energy per {work} ({scale.unit})"
    y = alt.Y("place:O", axis=None, scale=alt.Scale(padding=0.5))
    base = alt.Chart(alt.Data(values=rows)).encode(y=y)

    def x(name: str) -> Channel:
        ticks = alt.Axis(tickCount=8 if wide else 5)
        return alt.X(f"{name}:Q", title=title, scale=axis, axis=ticks)

    own = base.mark_rule(strokeWidth=1.5, strokeDash=[3, 3]).encode(
        x=x("own_low"), x2="own_high:Q", color=_kind(alt.Color)
    )
    single = (
        alt.Chart(alt.Data(values=ticks))
        .mark_tick(thickness=1, size=13, opacity=0.6, color=COLOURS["muted"])
        .encode(x=x("value"), y=y)
    )
    span = base.mark_rule(strokeWidth=2.5).encode(x=x("low"), x2="high:Q", color=_kind(alt.Color))
    means = _points(base).encode(x=x("value"))
    names = base.mark_text(
        align="right" if wide else "left",
        baseline="middle",
        dy=0 if wide else -16,
        limit=NAME_WIDTH - 14 if wide else NARROW - VALUE_WIDTH,
        color=COLOURS["ink"],
        fontSize=13.5,
    ).encode(x=alt.value(-12 if wide else 0), text="label:N")
    plot_width = WIDE - NAME_WIDTH - VALUE_WIDTH if wide else NARROW - 20
    figures = base.mark_text(
        align="left" if wide else "right",
        baseline="middle",
        dy=0 if wide else -16,
        color=COLOURS["muted"],
        fontSize=13.5,
    ).encode(x=alt.value(plot_width + 14 if wide else plot_width), text="shown:N")
    return alt.layer(single, own, span, means, names, figures).properties(
        width=plot_width, height=(28 if wide else 46) * len(rows)
    )


def throughput(summary: Sequence[Row], front: Collection[str], *, wide: bool) -> Chart:
    """Return energy per output token against throughput; numbers are the table's rows.

    Args:
        summary: the experiments, in the order of the table.
        front: those that none beats in both; a dashed line joins them.
        wide: for a page's full width.
    """
    import altair as alt

    metric, speed = "energy_per_output_token_j", "output_tokens_per_s"
    numbered = [
        (number, row)
        for number, row in enumerate(summary, start=1)
        if row[f"{metric}_mean"] is not None and row[f"{speed}_mean"]
    ][:SHOWN_EXPERIMENTS]
    if not numbered:
        return message("No run with energy to show", wide=wide)
    scale = scale_for((row[f"{metric}_mean"] for _, row in numbered), "J")
    rows = [
        {
            "number": str(number),
            "front": row["experiment"] in front,
            **_energy(row, metric, scale),
            "speed": row[f"{speed}_mean"],
            "speed_low": row[f"{speed}_ci95_low"],
            "speed_high": row[f"{speed}_ci95_high"],
        }
        for number, row in numbered
    ]
    logarithmic = any(_ratio(rows, name) > SCATTER_LOG_RATIO for name in ("value", "speed"))
    axis_x = _axis_scale(rows, "speed", "speed_high", logarithmic=logarithmic)
    axis_y = _axis_scale(rows, logarithmic=logarithmic)
    base = alt.Chart(alt.Data(values=rows))

    def x(name: str) -> Channel:
        return alt.X(f"{name}:Q", title="Throughput (output tokens/s)", scale=axis_x)

    def y(name: str) -> Channel:
        return alt.Y(f"{name}:Q", title=f"Energy per output token ({scale.unit})", scale=axis_y)

    colour = _kind(alt.Color)
    joined = (
        alt.Chart(alt.Data(values=[row for row in rows if row["front"]]))
        .mark_line(strokeWidth=1.2, strokeDash=[5, 4], color=COLOURS["muted"])
        .encode(x=x("speed"), y=y("value"), order="speed:Q")
    )
    rise = base.mark_rule(strokeWidth=1.5).encode(
        x=x("speed"), y=y("low"), y2="high:Q", color=colour
    )
    run = base.mark_rule(strokeWidth=1.5).encode(
        x=x("speed_low"), x2="speed_high:Q", y=y("value"), color=colour
    )
    points = _points(base).encode(x=x("speed"), y=y("value"))
    numbers = [
        alt.Chart(alt.Data(values=rows[first::2]))
        .mark_text(align=align, dx=shift, dy=-shift, fontSize=12.5, color=COLOURS["ink"])
        .encode(x=x("speed"), y=y("value"), text="number:N")
        for first, align, shift in ((0, "left", 8), (1, "right", -8))
    ]
    return alt.layer(joined, rise, run, points, *numbers).properties(
        width=WIDE - 60 if wide else NARROW - 56, height=340 if wide else 280
    )


def order(points: Sequence[OrderPoint], trend: Drift | None, *, wide: bool) -> Chart:
    """Return each run's energy against its experiment's mean, in the order they began.

    A run that was left out may lie beyond the axis: it is drawn at its edge.
    """
    import altair as alt

    if not points:
        return message("Needs two runs of one experiment", wide=wide)
    values = [
        {"position": point.position, "deviation": 100 * point.deviation, "state": point.state}
        for point in points
    ]
    counted = [100 * abs(point.deviation) for point in points if point.state != STATES[2]]
    reach = 1.2 * max([MIN_REACH_PERCENT, *counted])
    last = max(point.position for point in points)
    x = alt.X(
        "position:Q",
        title="Run, in the order in which they began",
        scale=alt.Scale(domain=[0.5, last + 0.5], nice=False),
        axis=alt.Axis(tickMinStep=1, format="d", tickCount=min(last, 10 if wide else 5)),
    )
    y = alt.Y(
        "deviation:Q",
        title="Energy against its experiment's mean (%)",
        scale=alt.Scale(domain=[-reach, reach], clamp=True),
    )
    colours = [COLOURS["measured"], COLOURS["flag"], COLOURS["muted"]]
    legend = alt.Legend(title=None, orient="top")
    dots = (
        alt.Chart(alt.Data(values=values))
        .mark_point(size=48, opacity=0.9, strokeWidth=1.8)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "state:N", legend=legend, scale=alt.Scale(domain=STATES, range=colours)
            ),
            shape=alt.Shape(
                "state:N",
                legend=legend,
                scale=alt.Scale(domain=STATES, range=["circle", "triangle-up", "cross"]),
            ),
        )
    )
    zero = (
        alt.Chart(alt.Data(values=[{"deviation": 0}])).mark_rule(color=COLOURS["muted"]).encode(y=y)
    )
    line = (
        alt.Chart(alt.Data(values=_trend_ends(points, trend)))
        .mark_line(color=COLOURS["ink"], strokeWidth=1.5, strokeDash=[6, 4])
        .encode(x=x, y=y)
    )
    return alt.layer(zero, line, dots).properties(
        width=WIDE - 60 if wide else NARROW - 50, height=260 if wide else 240
    )


def _trend_ends(points: Sequence[OrderPoint], trend: Drift | None) -> list[dict[str, float]]:
    if trend is None:
        return []
    counted = [point.position for point in points if point.state != STATES[2]]
    centre = sum(counted) / len(counted)
    return [
        {"position": place, "deviation": 100 * trend.per_run * (place - centre)}
        for place in (min(counted), max(counted))
    ]


def _energy(row: Row, metric: str, scale: Scale) -> dict[str, Any]:
    mean = scale(row[f"{metric}_mean"])
    low, high = row[f"{metric}_ci95_low"], row[f"{metric}_ci95_high"]
    own = None if low is not None else row["energy_u95_rel"]
    return {
        "kind": row["kind"] or "unknown",
        "value": mean,
        "low": None if low is None else scale(low),
        "high": None if high is None else scale(high),
        "shown": _shown(mean, None if high is None else scale(high) - mean),
        "own_low": None if own is None else mean * (1 - own),
        "own_high": None if own is None else mean * (1 + own),
    }


def _shown(mean: float, half_width: float | None) -> str:
    if half_width is None:
        return f"{rounded(mean)} (1 run)"
    return with_half_width(mean, half_width)


def _points(base: Chart) -> Chart:
    """Return the means' marks: filled circles where measured, hollow diamonds where estimated."""
    import altair as alt

    return base.mark_point(size=46, opacity=1, strokeWidth=1.8).encode(
        shape=alt.Shape(
            "kind:N",
            legend=None,
            scale=alt.Scale(domain=KINDS, range=["circle", "diamond", "square"]),
        ),
        stroke=_kind(alt.Stroke),
        fill=_kind(alt.Fill, ("measured", "paper", "paper")),
    )


def _kind(channel: Any, colours: Iterable[str] = ("measured", "estimated", "muted")) -> Channel:
    import altair as alt

    scale = alt.Scale(domain=KINDS, range=[COLOURS[name] for name in colours])
    return channel("kind:N", legend=None, scale=scale)


def _axis_scale(
    rows: Sequence[Row], mean: str = "value", high: str = "high", *, logarithmic: bool
) -> Any:
    """Return a scale from zero, or a logarithmic one; what reaches beyond is drawn to its edge."""
    import altair as alt

    means = [row[mean] for row in rows]
    top = max(row[high] or row[mean] for row in rows)
    if logarithmic and min(means) > 0:
        return alt.Scale(
            type="log", domain=[min(means) / 1.5, max(means) * 1.5], clamp=True, nice=False
        )
    end = min(top * HEADROOM, 3 * max(means))
    return alt.Scale(domain=[0, end or 1], clamp=True, nice=True)


def _ratio(rows: Sequence[Row], name: str) -> float:
    """Return how many times the smallest mean the largest is; 1 where that has no sense."""
    values = [row[name] for row in rows]
    return max(values) / min(values) if min(values) > 0 else 1.0


def message(text: str, *, wide: bool) -> Chart:
    """Return a chart that says why there is none."""
    import altair as alt

    return (
        alt.Chart(alt.Data(values=[{}]))
        .mark_text(fontSize=14, color=COLOURS["muted"])
        .encode(text=alt.value(text))
        .properties(width=WIDE - 20 if wide else NARROW - 20, height=90)
    )
