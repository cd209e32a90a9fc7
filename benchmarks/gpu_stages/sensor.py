"""The sensor's figures, computed from what was polled flat out, without our meter's code."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

_SETTLED_S = 0.25
"""How long after a stretch's begin its readings are looked at."""
_AVERAGE_S = 1.0
"""Mean of NVML's average channel on the cards that have one (its documentation)."""
_CLEAR_W = 50.0
"""The least step that counts as one."""


@dataclass(frozen=True)
class Channel:
    """Values of one quantity and the moments that they were new at, in s of the monotonic clock.

    Each may have come so much earlier or later as ``unsure_s`` says (in 95 % of them).
    """

    at_s: Numbers
    value: Numbers
    unsure_s: float = 0.0

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
        blind_ms: between the reads around a tick, 95 %: it may have come at any time of that.
    """

    period_s: float
    at_s: Numbers
    counter_j: Numbers
    off_ms: tuple[float, float]
    unsure_ms: tuple[float, float]
    blind_ms: float

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
    blind = float(np.quantile(high - low, 0.95)) * 1e3
    shown_j = counter_j[new + 1]
    return Ticks(float(period), grid, shown_j, (float(off[0]), float(off[1])), unsure, blind)


def lag_ms(grid: Ticks, stretches: list[Mark]) -> list[float]:
    """Return how long after a load's end the counter follows, in ms for each clear step.

    The energy of the interval that holds the step and of the next, between the levels before and
    after, says when the step came. A load's begin draws more than its level for some 100 ms, which
    reads as if the step came early: only its end tells of the counter.
    """
    lags_ms, power = [], grid.power_w
    for before, this in pairwise(stretches):
        if (before.what, this.what) != ("on", "off"):
            continue
        k = int(np.searchsorted(grid.at_s, this.at_s))  # the step lies before tick k
        first = int(np.searchsorted(grid.at_s, before.at_s)) + 2
        last = int(np.searchsorted(grid.at_s, this.until_s)) - 1
        level_before, level_after = (
            power[max(first, k - 4) : k - 1],
            power[k + 2 : min(last, k + 5)],
        )
        if k < 1 or k + 1 >= len(grid.at_s) or not len(level_before) or not len(level_after):
            continue
        low, high = float(level_before.mean()), float(level_after.mean())
        if abs(high - low) < _CLEAR_W:
            continue
        energy = grid.counter_j[k + 1] - grid.counter_j[k - 1]
        step_s = (energy - high * grid.at_s[k + 1] + low * grid.at_s[k - 1]) / (low - high)
        lags_ms.append(float(step_s - this.at_s) * 1e3)
    return lags_ms


def gaps_ms(at_s: Numbers, value: Numbers) -> tuple[float, float, float] | None:
    """Return 5 %, median and 95 % of the time between a reading's changes, in ms."""
    new = np.flatnonzero(np.diff(value))
    if len(new) < 5:
        return None
    low, median, high = np.quantile(np.diff(at_s[new + 1]) * 1e3, [0.05, 0.5, 0.95])
    return float(low), float(median), float(high)


def raw(folder: Path) -> dict[str, Any]:
    """Return the figures of the channels polled flat out; nothing without them."""
    if not (folder / "raw.npz").is_file():
        return {}
    with np.load(folder / "raw.npz") as arrays:
        rows = arrays["rows"].astype(np.int64)
    start_s, asked_s, at_s = (rows[:, column] / 1e9 for column in range(3))
    counter_j, instant_w, average_w, usage_w = (rows[:, column] / 1e3 for column in range(3, 7))
    power_w = {"instant": instant_w, "average": average_w}
    grid, stretches = ticks(start_s, asked_s, counter_j), marks(folder / "marks.txt")
    steps_mj = np.diff(rows[:, 3])
    has_usage = usage_w > 0
    return {
        "polls": len(rows),
        "counter_call_ms": [*np.quantile((asked_s - start_s) * 1e3, [0.5, 0.95, 1])],
        "power_call_ms": [*np.quantile((at_s - asked_s) * 1e3, [0.5, 0.95, 1])],
        "gaps_ms": {
            "counter": gaps_ms(asked_s, counter_j),
            **{name: gaps_ms(at_s, value) for name, value in power_w.items()},
        },
        "unit_mj": int(np.gcd.reduce(steps_mj[steps_mj > 0])) if np.any(steps_mj > 0) else None,
        "usage_is_average": float(np.mean(usage_w[has_usage] == average_w[has_usage])),
        "ticks": grid,
        "lag_ms": [] if grid is None else lag_ms(grid, stretches),
        "stretches": [] if grid is None else _stretches(stretches, grid, at_s, power_w),
    }


def behaviour(probe: dict[str, Any]) -> dict[str, Any]:
    """Return what our characterisation found of the first card: nature, lag, and each channel."""
    description = (probe.get("characterised") or [{}])[0].get("behaviour")
    if not description:
        return {}
    power = {channel["quantity"]: channel for channel in description["power"]}
    figures = {
        "nature": description["counter"],
        "lag_ms": over(description.get("counter_lag_s"), 1e-3),
    }
    figures["counter"] = {"period_ms": over(description["counter_period_s"], 1e-3)}
    for name in ("instant", "average"):
        channel = power.get(f"power_{name}_w", {})
        figures[name] = {"period_ms": over(channel.get("update_period_s"), 1e-3)}
        figures[name]["window_ms"] = over(channel.get("window_s"), 1e-3)
    return figures


def over(part: float | None, total: float | None) -> float | None:
    """Return a quotient; None where a part of it is not known."""
    return None if part is None or not total else part / total


def _stretches(
    stretches: list[Mark], grid: Ticks, at_s: Numbers, power_w: dict[str, Numbers]
) -> list[dict[str, Any]]:
    """Return the mean power of each steady or pulsing stretch, by channel."""
    counter, stretch_rows = Channel(grid.at_s, grid.counter_j), []
    channels = {name: Channel(at_s, value) for name, value in power_w.items()}
    for index, mark in enumerate(stretches):
        if not mark.what.startswith(("steady", "pulses")) or mark.until_s <= mark.at_s + _AVERAGE_S:
            continue
        after = stretches[index + 1].what if index + 1 < len(stretches) else ""
        span = (mark.at_s + _SETTLED_S, mark.until_s)
        # The average looks back a second: its mean is taken where all of that is in the stretch.
        settled = (mark.at_s + _AVERAGE_S, mark.until_s)
        stretch_rows.append(
            {
                "load": _load(mark.what),
                "busy_share": float(after.split()[1]) if after.startswith("done") else None,
                "counter_w": counter.counted_w(*span),
                "instant_w": channels["instant"].held_mean(*span),
                "average_w": channels["average"].held_mean(*settled),
            }
        )
    return stretch_rows


def _load(what: str) -> str:
    kind, *spans_s = what.split()
    spans_ms = " / ".join(f"{float(span_s) * 1e3:g}" for span_s in spans_s)
    return f"{spans_ms} ms" if kind == "pulses" else what


def buffer(folder: Path) -> dict[str, Any]:
    """Return what the driver's buffer of samples says, against the counter; nothing without it."""
    if not (folder / "buffer.npz").is_file():
        return {}
    with np.load(folder / "buffer.npz") as arrays:
        samples, polled = arrays["samples"], arrays["counter"]
        offset_s = float(arrays["wall_minus_monotonic_ns"]) / 1e9
    if len(samples) < 2:
        return {}
    at_s, value_w = samples[:, 0] / 1e6 - offset_s, samples[:, 1] / 1e3
    grid = ticks(polled[:, 0] / 1e9, polled[:, 1] / 1e9, polled[:, 2] / 1e3)
    figures: dict[str, Any] = {"samples": len(samples), "stretches": []}
    figures["gap_ms"] = [*np.quantile(np.diff(at_s) * 1e3, [0.05, 0.5, 0.95])]
    if grid is not None:
        power_w = {"instant": value_w, "average": value_w}
        figures["stretches"] = _stretches(marks(folder / "marks.txt"), grid, at_s, power_w)
    return figures
