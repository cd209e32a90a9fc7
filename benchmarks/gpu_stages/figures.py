"""Every figure, computed from the kept recordings alone and without our meter's code."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from gpu_stages.keeping import read_json
from gpu_stages.meters import WINDOWS
from llenergymeasure.analysis.statistics import t_quantile

Numbers = npt.NDArray[np.float64]

_SETTLED_S = 0.25
"""How long after a stretch's begin its readings are looked at."""
_AVERAGE_S = 1.0
"""Mean of NVML's average channel on the cards that have one (its documentation)."""
_CLEAR_W = 50.0
"""The least step that counts as one."""


@dataclass(frozen=True)
class Channel:
    """Values of one quantity and the moments that they were new at, in s of the monotonic clock."""

    at_s: Numbers
    value: Numbers

    def held_mean(self, start_s: float, end_s: float) -> float | None:
        """Return the mean of a reading that holds until the next one."""
        inside = (self.at_s > start_s) & (self.at_s < end_s)
        before = np.flatnonzero(self.at_s <= start_s)
        if not len(before):
            return None
        at = np.concatenate([[start_s], self.at_s[inside], [end_s]])
        value = np.concatenate([[self.value[before[-1]]], self.value[inside]])
        return float(np.sum(value * np.diff(at)) / (end_s - start_s))

    def counted_w(self, start_s: float, end_s: float) -> float | None:
        """Return the mean power of a counter in J, which is taken as even between its ticks."""
        if len(self.at_s) < 2 or start_s < self.at_s[0] - 0.2 or end_s > self.at_s[-1] + 0.2:
            return None
        begin, end = np.interp([start_s, end_s], self.at_s, self.value)
        return float((end - begin) / (end_s - start_s))


def recording(path: Path) -> dict[str, Channel]:
    """Return what a recording of our meter holds of its one card, by quantity."""
    table = pq.read_table(path).to_pydict()
    found: dict[str, tuple[list[float], list[float]]] = {}
    for sensor, quantity, t_ns, before_ns, value in zip(
        *(table[each] for each in ("sensor", "quantity", "t_ns", "t_before_ns", "value")),
        strict=True,
    ):
        if sensor == "nvml" and value is not None:
            times, values = found.setdefault(quantity, ([], []))
            times.append((t_ns if before_ns is None else (t_ns + before_ns) / 2) / 1e9)
            values.append(value)
    return {name: Channel(np.array(t), np.array(v)) for name, (t, v) in found.items()}


# ------------------------------------------------------------ channels polled flat out


@dataclass(frozen=True)
class Mark:
    """What a load did from a moment on."""

    at_s: float
    what: str
    until_s: float


def marks(path: Path) -> list[Mark]:
    """Return a load's stretches; none where it never began."""
    if not path.is_file():
        return []
    lines = [line.split(maxsplit=1) for line in path.read_text().splitlines() if " " in line]
    moments = [int(ns) / 1e9 for ns, _ in lines]
    ends = [*moments[1:], moments[-1]] if moments else []
    return [Mark(at, what, end) for at, (_, what), end in zip(moments, lines, ends, strict=True)]


@dataclass(frozen=True)
class Ticks:
    """The counter's ticks as a regular grid.

    Attributes:
        period_s: of the grid.
        at_s: the grid's moments.
        counter_j: what the counter showed from each on.
        off_ms: how far the reads place the ticks from the grid, 5 % and 95 %.
        unsure_ms: how far the whole grid could lie earlier and later, by the reads around it.
    """

    period_s: float
    at_s: Numbers
    counter_j: Numbers
    off_ms: tuple[float, float]
    unsure_ms: tuple[float, float]

    @property
    def power_w(self) -> Numbers:
        """Mean power of each interval."""
        return np.asarray(np.diff(self.counter_j) / np.diff(self.at_s))


def ticks(before_s: Numbers, after_s: Numbers, counter_j: Numbers) -> Ticks | None:
    """Return the grid of a polled counter, asked for from ``before_s`` to ``after_s`` each time."""
    new = np.flatnonzero(np.diff(counter_j))
    if len(new) < 20:
        return None
    low, high = before_s[new], after_s[new + 1]
    middle = (low + high) / 2
    gap = float(np.median(np.diff(middle)))
    number = np.round((middle - middle[0]) / gap)
    sharp = high - low <= np.quantile(high - low, 0.8)
    for _ in range(2):  # the second time counts with the period that the first one found
        period, origin = np.polyfit(number[sharp], middle[sharp], 1)
        number = np.round((middle - origin) / period)
    grid = origin + period * number
    off = np.quantile((middle - grid) * 1e3, [0.05, 0.95])
    unsure = (float(np.max(low - grid)) * 1e3, float(np.min(high - grid)) * 1e3)
    return Ticks(float(period), grid, counter_j[new + 1], (float(off[0]), float(off[1])), unsure)


def lag_ms(grid: Ticks, stretches: list[Mark]) -> list[float]:
    """Return how long after a load's end the counter follows, in ms for each clear step.

    The energy of the interval that holds the step and of the next, between the levels before and
    after, says when the step came. A load's begin draws more than its level for some 100 ms, which
    reads as if the step came early: only its end tells of the counter.
    """
    found, power = [], grid.power_w
    for before, this in pairwise(stretches):
        if (before.what, this.what) != ("on", "off"):
            continue
        k = int(np.searchsorted(grid.at_s, this.at_s))  # the step lies before tick k
        first = int(np.searchsorted(grid.at_s, before.at_s)) + 2
        last = int(np.searchsorted(grid.at_s, this.until_s)) - 1
        early, late = power[max(first, k - 4) : k - 1], power[k + 2 : min(last, k + 5)]
        if k < 1 or k + 1 >= len(grid.at_s) or not len(early) or not len(late):
            continue
        low, high = float(early.mean()), float(late.mean())
        if abs(high - low) < _CLEAR_W:
            continue
        energy = grid.counter_j[k + 1] - grid.counter_j[k - 1]
        step_s = (energy - high * grid.at_s[k + 1] + low * grid.at_s[k - 1]) / (low - high)
        found.append(float(step_s - this.at_s) * 1e3)
    return found


def gaps_ms(at_s: Numbers, value: Numbers) -> tuple[float, float, float] | None:
    """Return 5 %, median and 95 % of the time between a reading's changes, in ms."""
    new = np.flatnonzero(np.diff(value))
    if len(new) < 5:
        return None
    low, median, high = np.quantile(np.diff(at_s[new + 1]) * 1e3, [0.05, 0.5, 0.95])
    return float(low), float(median), float(high)


def raw(folder: Path) -> dict[str, Any]:
    """Return the figures of the channels polled flat out."""
    with np.load(folder / "raw.npz") as kept:
        rows = kept["rows"].astype(np.int64)
    start_s, asked_s, at_s = (rows[:, place] / 1e9 for place in range(3))
    counter_j, instant_w, average_w, usage_w = (rows[:, place] / 1e3 for place in range(3, 7))
    power_w = {"instant": instant_w, "average": average_w}
    grid, stretches = ticks(start_s, asked_s, counter_j), marks(folder / "marks.txt")
    steps_mj = np.diff(rows[:, 3])
    asked = usage_w > 0
    return {
        "polls": len(rows),
        "counter_call_ms": [*np.quantile((asked_s - start_s) * 1e3, [0.5, 0.95, 1])],
        "power_call_ms": [*np.quantile((at_s - asked_s) * 1e3, [0.5, 0.95, 1])],
        "gaps_ms": {
            "counter": gaps_ms(asked_s, counter_j),
            **{name: gaps_ms(at_s, value) for name, value in power_w.items()},
        },
        "unit_mj": int(np.gcd.reduce(steps_mj[steps_mj > 0])) if np.any(steps_mj > 0) else None,
        "usage_is_average": float(np.mean(usage_w[asked] == average_w[asked])),
        "ticks": grid,
        "lag_ms": [] if grid is None else lag_ms(grid, stretches),
        "stretches": [] if grid is None else _stretches(stretches, grid, at_s, power_w),
    }


def behaviour(probe: dict[str, Any]) -> dict[str, Any]:
    """Return what our characterisation found of the first card: nature, lag, and each channel."""
    said = (probe.get("characterised") or [{}])[0].get("behaviour")
    if not said:
        return {}
    power = {each["quantity"]: each for each in said["power"]}
    found = {"nature": said["counter"], "lag_ms": _over(said.get("counter_lag_s"), 1e-3)}
    found["counter"] = {"period_ms": _over(said["counter_period_s"], 1e-3)}
    for name in ("instant", "average"):
        one = power.get(f"power_{name}_w", {})
        found[name] = {"period_ms": _over(one.get("update_period_s"), 1e-3)}
        found[name]["window_ms"] = _over(one.get("window_s"), 1e-3)
    return found


def _stretches(
    stretches: list[Mark], grid: Ticks, at_s: Numbers, power_w: dict[str, Numbers]
) -> list[dict[str, Any]]:
    """Return the mean power of each steady or pulsing stretch, by channel."""
    counter, found = Channel(grid.at_s, grid.counter_j), []
    channels = {name: Channel(at_s, value) for name, value in power_w.items()}
    for place, mark in enumerate(stretches):
        if not mark.what.startswith(("steady", "pulses")) or mark.until_s <= mark.at_s + _AVERAGE_S:
            continue
        after = stretches[place + 1].what if place + 1 < len(stretches) else ""
        span = (mark.at_s + _SETTLED_S, mark.until_s)
        # The average looks back a second: its mean is taken where all of that is in the stretch.
        settled = (mark.at_s + _AVERAGE_S, mark.until_s)
        found.append(
            {
                "what": mark.what,
                "busy_share": float(after.split()[1]) if after.startswith("done") else None,
                "counter_w": counter.counted_w(*span),
                "instant_w": channels["instant"].held_mean(*span),
                "average_w": channels["average"].held_mean(*settled),
            }
        )
    return found


def buffer(folder: Path) -> dict[str, Any] | None:
    """Return what the driver's buffer of samples says, against the counter; None without one."""
    if not (folder / "buffer.npz").exists():
        return None
    with np.load(folder / "buffer.npz") as kept:
        samples, polled = kept["samples"], kept["counter"]
        offset_s = float(kept["wall_minus_monotonic_ns"]) / 1e9
    if len(samples) < 2:
        return None
    at_s, value_w = samples[:, 0] / 1e6 - offset_s, samples[:, 1] / 1e3
    grid = ticks(polled[:, 0] / 1e9, polled[:, 1] / 1e9, polled[:, 2] / 1e3)
    found: dict[str, Any] = {"samples": len(samples), "stretches": []}
    found["gap_ms"] = [*np.quantile(np.diff(at_s) * 1e3, [0.05, 0.5, 0.95])]
    if grid is not None:
        power_w = {"instant": value_w, "average": value_w}
        found["stretches"] = _stretches(marks(folder / "marks.txt"), grid, at_s, power_w)
    return found


# ------------------------------------------------------------ windows and runs


def windows(folder: Path) -> list[dict[str, Any]]:
    """Return each window's power by each meter, in W."""
    smi = _nvidia_smi(folder / "nvidia_smi.csv")
    rows = read_json(folder / WINDOWS) or []
    paths = {folder / row["samples"] for row in rows}
    opened = {path: recording(path) if path.is_file() else {} for path in paths}
    return [{**row, **_window(row, opened[folder / row["samples"]], smi)} for row in rows]


def _window(
    row: dict[str, Any], channels: dict[str, Channel], smi: list[tuple[float, float]]
) -> dict[str, Any]:
    start_s, end_s = row["start_ns"] / 1e9, row["end_ns"] / 1e9
    seconds = end_s - start_s
    said = [watts for at_s, watts in smi if start_s < at_s < end_s]
    return {
        "seconds": seconds,
        **_means(channels, start_s, end_s),
        "zeus_w": _over(row.get("zeus_j"), seconds),
        "meter_w": _over(row.get("meter_j"), row["meter_s"]),
        "meter_u95_w": _over(row.get("meter_u95_j"), row["meter_s"]),
        "nvidia_smi_w": sum(said) / len(said) if said else None,
        "most_w": _most(channels, start_s, end_s),
        "j_per_token": _over(row.get("meter_j"), row.get("tokens")),
    }


def _means(channels: dict[str, Channel], start_s: float, end_s: float) -> dict[str, Any]:
    """Return the mean power that each channel of a recording gives a window."""
    nothing = Channel(np.array([]), np.array([]))
    counter, average, instant = (
        channels.get(name, nothing)
        for name in ("energy_counter_j", "power_average_w", "power_instant_w")
    )
    return {
        "counter_w": counter.counted_w(start_s, end_s),
        "average_w": average.held_mean(start_s, end_s),
        "instant_w": instant.held_mean(start_s, end_s),
    }


def _over(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _nvidia_smi(path: Path) -> list[tuple[float, float]]:
    if not path.is_file():
        return []
    found = []
    for line in path.read_text().splitlines():
        parts = line.split(",")
        try:
            found.append((int(parts[0]) / 1e9, float(parts[1])))
        except (ValueError, IndexError):  # its last line may be cut off
            continue
    return found


def _most(channels: dict[str, Channel], start_s: float, end_s: float) -> float | None:
    """Return the greatest power around a window that any channel shows."""
    seen = []
    for name in ("power_instant_w", "power_average_w"):
        channel = channels.get(name)
        if channel is not None:
            near = (channel.at_s > start_s - 0.2) & (channel.at_s < end_s + 0.2)
            seen += [float(each) for each in channel.value[near]]
    return max(seen, default=None)


def runs(folder: Path) -> list[dict[str, Any]]:
    """Return what the runs of a stage cost, and what is to be checked of them."""
    return [_run(path) for path in sorted(folder.glob("*/*/result.json"))]


def _run(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_text())
    energy, performance = record["energy"], record["performance"]
    window = record["window"] or {}
    span = (window.get("start_monotonic_ns", 0) / 1e9, window.get("end_monotonic_ns", 0) / 1e9)
    samples = path.with_name("samples.parquet")
    channels = recording(samples) if samples.is_file() else {}
    heat = channels.get("temperature_celsius")
    provenance = record.get("provenance", {})
    cards = record.get("environment", {}).get("gpus") or []
    released = (provenance.get("gpu_memory_release") or {}).values()
    return {
        "study": path.parts[-3],
        "name": _named(record["config"]),
        "span_s": span,
        "window_s": span[1] - span[0] if span[1] > span[0] else None,
        "j_per_token": energy["per_output_token_j"],
        "power_w": energy["power_mean_w"],
        "tokens_per_s": performance["output_tokens_per_s"],
        "u95_rel": _over(energy.get("u95_j"), energy["gross_j"]),
        **_means(channels, *span),
        "temperatures_celsius": None if heat is None else (min(heat.value), max(heat.value)),
        "limit_w": next(
            (each["power_limit_w"] for each in cards if each.get("power_limit_w")), None
        ),
        "split": energy.get("split") or {},
        "validity": list(record["validity"]),
        "released": [each.get("released") for each in released if isinstance(each, dict)],
        "recorder_cpu_share": (provenance.get("recorder_cost") or {}).get("cpu_share"),
        "settle": provenance.get("settle"),
        "warmup": record.get("warmup_result"),
    }


def _named(config: dict[str, Any]) -> str:
    backend = config.get("backend", "pytorch")
    own = config.get(backend) or {}
    size = own.get("batch_size") or (own.get("engine") or {}).get("max_num_seqs")
    name = f"{backend}, {config['model']}"
    if size:
        name += f", {'sequences' if backend == 'vllm' else 'batch'} {size}"
    data = config.get("dataset")
    if isinstance(data, dict) and data.get("input_len"):
        name += f", {data['input_len']} + {data['output_len']} tokens"
    return name


def failures(folder: Path) -> dict[str, str]:
    """Return the message of each study that has a run without a result."""
    found = {}
    for path in sorted(folder.glob("*/*/outcome.json")):
        if not path.with_name("result.json").exists():
            error = json.loads(path.read_text()).get("error") or {}
            found[path.parts[-3]] = str(error.get("message"))
    return found


def mean_ratio(ratios: list[float]) -> tuple[float, float, float] | None:
    """Return the geometric mean of ratios and its 95 % interval, by Student's t."""
    if len(ratios) < 3:
        return None
    logs = np.log(ratios)
    half = t_quantile(len(logs) - 1) * float(np.std(logs, ddof=1)) / len(logs) ** 0.5
    low, centre, high = np.exp(np.mean(logs) + half * np.array([-1, 0, 1]))
    return float(centre), float(low), float(high)
