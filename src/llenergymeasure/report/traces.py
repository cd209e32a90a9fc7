"""Power of single runs over time, their phases in colour, and the energy of each phase.

Each experiment is represented by one run: the one in its mean that is nearest to the mean.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llenergymeasure.analysis.selection import Row
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import load_json
from llenergymeasure.recording.samples import Samples, read_samples
from llenergymeasure.report.drawing import (
    COLOURS,
    Channel,
    Chart,
    Figure,
    draw_figure,
    layer,
    nominal,
    plot_size,
    quantitative,
)
from llenergymeasure.report.findings import ENERGY_PER_TOKEN
from llenergymeasure.report.formatting import count_text, rounded, scale_for, shortened
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.units import NS_PER_S

POWER_NAME, PHASES_NAME = "power_over_time", "energy_by_phase"
SHOWN_RUNS = 6
PANEL_HEIGHT = 82
POINTS, SAMPLES_PER_POINT = 400, 4
"""Points drawn of a run, and the looks within each point's time that it averages."""

_POWER: tuple[Quantity, ...] = (
    "power_instant_w",
    "power_usage_w",
    "power_average_w",
    "power_model_w",
)
_COLOURS = {
    "idle": "#9aa4af",
    "load": "#7a5195",
    "warmup": "#e69f00",
    "measure": "#0072b2",
    "other": "#57ab86",
}
"""Phases by kind; the legend names them, as not everyone can distinguish the colours."""


@dataclass(frozen=True)
class Trace:
    """One run's series, in s from the start of its window.

    Attributes:
        label: the experiment and cycle.
        power: (time, W) of all devices together.
        phases: name, start and end.
        energies: kind of phase and energy in J, of the phases whose energy is known.
    """

    label: str
    power: list[tuple[float, float]]
    phases: list[tuple[str, float, float]]
    energies: list[tuple[str, float]]


def trace_figures(
    study_dir: Path, summary: Sequence[Row], runs: Sequence[Row]
) -> dict[str, Figure]:
    """Return power over time, and energy by phase, of up to :data:`SHOWN_RUNS` runs.

    Args:
        study_dir: the study's folder.
        summary: the experiments, ranked.
        runs: the runs in their means.

    Returns:
        The figures for which any of these runs has the data.
    """
    traces = []
    for row in summary[:SHOWN_RUNS]:
        run = _typical_run(row, runs)
        trace = None if run is None else _read_trace(StudyFolder(study_dir), row, run)
        if trace is not None:
            traces.append(trace)
    figures = {}
    note = (
        f"{len(traces)} of {count_text(len(runs), 'run')} in the means: the one nearest to its "
        f"mean of each of {len(traces)} of {count_text(len(summary), 'experiment')}, in the order "
        "of the table."
    )
    if traces:
        peaks = [max(value for _, value in trace.power) for trace in traces]
        text = f"Highest power of each: {', '.join(rounded(peak) for peak in peaks)} W."
        figures[POWER_NAME] = draw_figure(
            lambda wide: _power_chart(traces, wide=wide), "Power over time", text, note
        )
    if any(trace.energies for trace in traces):
        text = "; ".join(_phases_text(trace) for trace in traces if trace.energies)
        figures[PHASES_NAME] = draw_figure(
            lambda wide: _phases_chart(traces, wide=wide), "Energy by phase", text, note
        )
    return figures


def _typical_run(row: Row, runs: Sequence[Row]) -> Row | None:
    mean = row[f"{ENERGY_PER_TOKEN}_mean"]
    candidates = [
        run for run in runs if run["experiment"] == row["experiment"] and run[ENERGY_PER_TOKEN]
    ]
    if mean is None or not candidates:
        return None
    return min(candidates, key=lambda run: (abs(run[ENERGY_PER_TOKEN] - mean), run["cycle"]))


def _read_trace(study: StudyFolder, row: Row, run: Row) -> Trace | None:
    """Return a run's series; None if its files are gone or hold none."""
    folder = study.run(run["experiment"], run["cycle"])
    try:
        samples, record = read_samples(folder.samples), load_json(folder.result)
    except (ResultsError, OSError, ValueError):
        return None
    zero_ns = record["window"]["start_monotonic_ns"]
    headline_sensors = {
        (reading["sensor"], reading["device"])
        for reading in record["energy"]["readings"]
        if reading.get("headline")
    }
    power = _total_power(samples, headline_sensors, zero_ns)
    if not power:
        return None
    return Trace(
        label=f"{shortened(row['label'], 44)}, cycle {run['cycle']}",
        power=power,
        phases=[
            (
                phase["name"],
                (phase["start_monotonic_ns"] - zero_ns) / NS_PER_S,
                (phase["end_monotonic_ns"] - zero_ns) / NS_PER_S,
            )
            for phase in record["phases"]
        ],
        energies=[
            (_phase_kind(phase["phase"]), phase["energy_j"])
            for phase in record["energy"]["phases"]
            if phase["energy_j"] is not None
        ],
    )


def _total_power(
    samples: Samples, headline_sensors: Collection[tuple[str, str]], zero_ns: int
) -> list[tuple[float, float]]:
    """Return the total power of the headline's sensors and devices, at common times."""
    series = []
    sensors = dict.fromkeys((info.sensor, info.device) for info in samples.header.sensors)
    for sensor, device in sensors:
        if (sensor, device) not in headline_sensors:
            continue
        candidates = (samples.series(device, sensor, quantity) for quantity in _POWER)
        power = next((candidate for candidate in candidates if len(candidate) > 1), None)
        if power is not None:
            series.append(((power.t_ns - zero_ns) / NS_PER_S, power.value))
    if not series:
        return []
    low, high = max(times[0] for times, _ in series), min(times[-1] for times, _ in series)
    grid = np.linspace(low, high, POINTS * SAMPLES_PER_POINT).reshape(POINTS, SAMPLES_PER_POINT)
    total_w = np.sum([np.interp(grid, times, values) for times, values in series], axis=0)
    return [*zip(grid.mean(axis=1).tolist(), total_w.mean(axis=1).tolist(), strict=True)]


def _power_chart(traces: Sequence[Trace], *, wide: bool) -> Chart:
    """Return a panel for each run, all with the same axes of time and power."""
    times_s = [time_s for trace in traces for _, *ends in trace.phases for time_s in ends]
    times_s += [time_s for trace in traces for time_s in (trace.power[0][0], trace.power[-1][0])]
    time = {"scale": {"domain": [min(times_s), max(times_s)], "nice": False}}
    max_power_w = max(value for trace in traces for _, value in trace.power)
    power = {
        "title": "W",
        "scale": {"domain": [0, 1.05 * max_power_w], "nice": False},
        "axis": {"tickCount": 3, "titleAngle": 0},
    }
    inner = {**time, "title": None, "axis": {"labels": False}}
    last = {**time, "title": "Time from the start of the window (s)"}
    panels = [
        _panel(trace, last if trace is traces[-1] else inner, power, wide=wide) for trace in traces
    ]
    return {"vconcat": panels, "spacing": 8}


def _panel(trace: Trace, time: Mapping[str, Any], power: Mapping[str, Any], *, wide: bool) -> Chart:
    bands = [
        {"phase": _phase_kind(name), "start": start, "end": end}
        for name, start, end in trace.phases
    ]
    points = [{"start": time_s, "power": value} for time_s, value in trace.power]
    line = {"type": "line", "strokeWidth": 1.3, "color": COLOURS["ink"]}
    shade = {"type": "rect", "opacity": 0.25}
    x, y = quantitative("start", **time), quantitative("power", **power)
    return {
        "layer": [
            layer(bands, shade, x=x, x2={"field": "end"}, color=_phase_colour()),
            layer(points, {**line, "interpolate": "step-after"}, x=x, y=y),
        ],
        "title": trace.label,
        **plot_size(PANEL_HEIGHT, wide=wide),
    }


def _phases_chart(traces: Sequence[Trace], *, wide: bool) -> Chart:
    """Return a bar for each run, from the energies of its phases."""
    scale = scale_for((energy for trace in traces for _, energy in trace.energies), "J")
    values = [
        {"run": trace.label, "phase": kind, "energy": scale(energy), "place": place}
        for trace in traces
        for place, (kind, energy) in enumerate(trace.energies)
    ]
    above = {"labelAlign": "left", "labelPadding": 0, "labelOffset": -16, "labelLimit": 0}
    names = {**above, "domain": False, "ticks": False}
    chart = layer(
        values,
        {"type": "bar", "size": 14},
        x=quantitative("energy", title=f"Energy ({scale.unit})", stack="zero"),
        y=nominal("run", title=None, sort=[trace.label for trace in traces], axis=names),
        color=_phase_colour(),
        order=quantitative("place"),
    )
    return {**chart, **plot_size(44 * len(traces), wide=wide)}


def _phases_text(trace: Trace) -> str:
    scale = scale_for((energy for _, energy in trace.energies), "J")
    sums: dict[str, float] = {}
    for kind, energy in trace.energies:
        sums[kind] = sums.get(kind, 0.0) + energy
    parts = [f"{kind} {rounded(scale(energy))} {scale.unit}" for kind, energy in sums.items()]
    return f"{trace.label}: {', '.join(parts)}"


def _phase_colour() -> Channel:
    scale = {"domain": list(_COLOURS), "range": list(_COLOURS.values())}
    return nominal("phase", title=None, scale=scale)


def _phase_kind(phase: str) -> str:
    return "idle" if phase.startswith("idle") else phase if phase in _COLOURS else "other"
