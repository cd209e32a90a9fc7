"""Power and temperature over the time of single runs, their phases in colour.

One run stands for each experiment: of those in the means the one nearest to the mean.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.errors import ResultsError
from llenergymeasure.recording.samples import Samples, read_samples
from llenergymeasure.report.charts import COLOURS, NARROW, WIDE, Chart
from llenergymeasure.report.figures import Figure, drawn
from llenergymeasure.report.findings import TOKEN
from llenergymeasure.report.wording import plain
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.units import NS_PER_S

Row: TypeAlias = Mapping[str, Any]

FIGURE_NAME = "power_over_time"
SHOWN_RUNS = 6
POINTS = 400
"""Points drawn of a run: each the mean over so much of its time."""

_POWER: tuple[Quantity, ...] = (
    "power_instant_w",
    "power_usage_w",
    "power_average_w",
    "power_model_w",
)
_WINDOW = "measure"
_COLOURS = {
    "idle": "#9aa4af",
    "load": "#7a5195",
    "warmup": "#e69f00",
    "measure": "#0072b2",
    "other": "#c9d0d6",
}
"""Phases by kind; named in the legend too, for nobody is to rely on the colours."""


@dataclass(frozen=True)
class Trace:
    """One run's series, in s from the start of its window.

    Attributes:
        label: the experiment and cycle.
        power: (time, W) of all devices together.
        temperature: (time, °C) of the warmest card; empty without one.
        phases: name, start and end.
    """

    label: str
    power: list[tuple[float, float]]
    temperature: list[tuple[float, float]]
    phases: list[tuple[str, float, float]]


def power_figure(study_dir: Path, summary: Sequence[Row], runs: Sequence[Row]) -> Figure | None:
    """Return power over time of up to :data:`SHOWN_RUNS` runs; null if no run has a series.

    Args:
        study_dir: the study's folder.
        summary: the experiments, ranked.
        runs: the runs in their means.
    """
    traces = [
        trace
        for row in summary[:SHOWN_RUNS]
        if (run := _typical(row, runs)) is not None
        and (trace := _trace(StudyFolder(study_dir), row, run)) is not None
    ]
    if not traces:
        return None
    return drawn(lambda wide: _chart(traces, wide=wide))


def _typical(row: Row, runs: Sequence[Row]) -> Row | None:
    mean = row[f"{TOKEN}_mean"]
    mine = [run for run in runs if run["experiment"] == row["experiment"] and run[TOKEN]]
    if mean is None or not mine:
        return None
    return min(mine, key=lambda run: (abs(run[TOKEN] - mean), run["cycle"]))


def _trace(study: StudyFolder, row: Row, run: Row) -> Trace | None:
    """Return a run's series; null where its files are gone or hold none."""
    folder = study.run(run["experiment"], run["cycle"])
    try:
        samples, record = read_samples(folder.samples), _record(folder)
    except (ResultsError, OSError, ValueError):
        return None
    zero_ns, sensor = record["window"]["start_monotonic_ns"], record["energy"]["source"]
    power = _power(samples, sensor, zero_ns)
    if not power:
        return None
    return Trace(
        f"{plain(row['label'], 60)}, cycle {run['cycle']}",
        power,
        _temperature(samples, zero_ns),
        [
            (
                each["name"],
                (each["start_monotonic_ns"] - zero_ns) / NS_PER_S,
                (each["end_monotonic_ns"] - zero_ns) / NS_PER_S,
            )
            for each in record["phases"]
        ],
    )


def _record(folder: RunFolder) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(folder.result.read_bytes())
    return record


def _power(samples: Samples, sensor: str, zero_ns: int) -> list[tuple[float, float]]:
    """Return the power of the sensor's devices together, at common times."""
    series = []
    for info in samples.header.sensors:
        if info.sensor != sensor:
            continue
        found = (samples.series(info.device, sensor, quantity) for quantity in _POWER)
        longest = next((each for each in found if len(each) > 1), None)
        if longest is not None:
            series.append(((longest.t_ns - zero_ns) / NS_PER_S, longest.value))
    if not series:
        return []
    low, high = max(times[0] for times, _ in series), min(times[-1] for times, _ in series)
    grid = np.linspace(low, high, 4 * POINTS)
    whole = np.sum([np.interp(grid, times, values) for times, values in series], axis=0)
    return _thinned(grid, whole)


def _temperature(samples: Samples, zero_ns: int) -> list[tuple[float, float]]:
    warmest: list[tuple[float, float]] = []
    for info in samples.header.sensors:
        found = samples.series(info.device, info.sensor, "temperature_celsius")
        seen = found.value[~np.isnan(found.value)]
        if len(seen) > 1 and (not warmest or seen.max() > max(value for _, value in warmest)):
            keep = ~np.isnan(found.value)
            warmest = _thinned((found.t_ns[keep] - zero_ns) / NS_PER_S, seen)
    return warmest


def _thinned(
    times_s: NDArray[np.float64], values: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Return at most :data:`POINTS` means over equal shares of the points."""
    parts = min(POINTS, len(values))
    places = np.array_split(np.arange(len(values)), parts)
    return [(float(np.mean(times_s[each])), float(np.mean(values[each]))) for each in places]


def _chart(traces: Sequence[Trace], *, wide: bool) -> Chart:
    import altair as alt

    panels = []
    for trace in traces:
        panels.append(_panel(trace, wide=wide))
        if trace.temperature:
            panels.append(_temperature_panel(trace, wide=wide))
    return alt.vconcat(*panels, spacing=14)


def _panel(trace: Trace, *, wide: bool) -> Chart:
    import altair as alt

    kinds = list(_COLOURS)
    bands = [
        {"phase": _kind(name), "start": start, "end": end} for name, start, end in trace.phases
    ]
    colour = alt.Color(
        "phase:N",
        scale=alt.Scale(domain=kinds, range=list(_COLOURS.values())),
        legend=alt.Legend(title=None, orient="top"),
    )
    x = _time_axis(trace)
    shades = (
        alt.Chart(alt.Data(values=bands))
        .mark_rect(opacity=0.25)
        .encode(x=x, x2="end:Q", color=colour)
    )
    line = (
        alt.Chart(alt.Data(values=[{"start": at, "power": value} for at, value in trace.power]))
        .mark_line(strokeWidth=1.3, color=COLOURS["ink"], interpolate="step-after")
        .encode(x=x, y=alt.Y("power:Q", title="Power (W)", scale=alt.Scale(zero=True)))
    )
    title = alt.Title(trace.label, anchor="start", fontSize=13.5, color=COLOURS["ink"])
    return alt.layer(shades, line).properties(title=title, **_size(130, wide=wide))


def _temperature_panel(trace: Trace, *, wide: bool) -> Chart:
    import altair as alt

    values = [{"start": at, "celsius": value} for at, value in trace.temperature]
    return (
        alt.Chart(alt.Data(values=values))
        .mark_line(strokeWidth=1.3, color=COLOURS["flag"])
        .encode(
            x=_time_axis(trace),
            y=alt.Y("celsius:Q", title="°C", scale=alt.Scale(zero=False)),
        )
        .properties(**_size(60, wide=wide))
    )


def _time_axis(trace: Trace) -> Any:
    import altair as alt

    starts = [start for _, start, _ in trace.phases] or [trace.power[0][0]]
    ends = [end for _, _, end in trace.phases] or [trace.power[-1][0]]
    return alt.X(
        "start:Q",
        title="Time from the start of the window (s)",
        scale=alt.Scale(domain=[min(starts), max(ends)], nice=False, clamp=True),
    )


def _kind(phase: str) -> str:
    return "idle" if phase.startswith("idle") else phase if phase in _COLOURS else "other"


def _size(height: int, *, wide: bool) -> dict[str, int]:
    return {"width": WIDE - 60 if wide else NARROW - 56, "height": height}
