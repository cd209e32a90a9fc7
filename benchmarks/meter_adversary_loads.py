"""Loads that the meter was not tuned to, whose energy is known exactly, and their recordings.

Each load is drawn from a random generator alone, so that one seed gives one load.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Points = tuple[Floats, Floats]
"""Times in s and power in W, linear between points; two points at one time are a step."""

LIMIT_W = 700.0
SPIKE_LIMIT_W = 1000.0
LEAD_S = 1.5
TAIL_S = 2.0
"""What is recorded before and after a window; a window cut at ticks may end 0.2 s later."""
REST_S = 0.35
"""Least rest beside a bracketed window."""
PROBE_S = 70.0


@dataclass(frozen=True)
class Trace:
    """True power over time, linear between points; two points at one time are a step.

    Attributes:
        name: the load in a word or two.
        t_s: times from the recording's zero, shape (n,), not falling.
        power_w: power at them, shape (n,).
    """

    name: str
    t_s: Floats
    power_w: Floats

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Return the true energy of a stretch, exact but for rounding."""
        start_j, end_j = self.up_to_j(np.array([start_s, end_s]))
        return float(end_j - start_j)

    def up_to_j(self, moment_s: Floats) -> Floats:
        """Return the true energy from 0 s to each moment."""
        steps_j = np.diff(self.t_s) * (self.power_w[1:] + self.power_w[:-1]) / 2
        knots_j = np.concatenate(([0.0], np.cumsum(steps_j)))
        index = np.clip(np.searchsorted(self.t_s, moment_s, side="right") - 1, 0, len(self.t_s) - 2)
        span_s = self.t_s[index + 1] - self.t_s[index]
        x_s = moment_s - self.t_s[index]
        slope = np.divide(
            self.power_w[index + 1] - self.power_w[index],
            span_s,
            out=np.zeros_like(x_s),
            where=span_s > 0,
        )
        energy: Floats = knots_j[index] + self.power_w[index] * x_s + slope * x_s**2 / 2
        return energy


@dataclass(frozen=True)
class Scene:
    """One recording: a load and the stretch of it that is to be measured.

    Attributes:
        trace: true power over the whole recording, from 0 to ``end_s``.
        window_s: start and end of the window.
        rests_s: the rest beside it, as (start, end) before and after; None if there is none.
        end_s: length of the recording.
        limit_w: the card's power limit.
    """

    trace: Trace
    window_s: tuple[float, float]
    rests_s: tuple[tuple[float, float], tuple[float, float]] | None
    end_s: float
    limit_w: float


def _levels(edges_s: Floats, power_w: Floats, length_s: float) -> Points:
    """Return plateaus: ``power_w[i]`` ends at ``edges_s[i]``; the last one is cut at the end."""
    count = int(np.searchsorted(edges_s, length_s))
    inner_s = edges_s[:count]
    return np.concatenate(([0.0], np.repeat(inner_s, 2), [length_s])), np.repeat(
        power_w[: count + 1], 2
    )


def _serve(length_s: float, rng: np.random.Generator) -> Points:
    """Poisson arrivals; each prefill interrupts a decode whose power follows the batch size."""
    count = int(length_s * 6) + 40
    prefill_s = rng.uniform(0.05, 0.3, count)
    decode_s = rng.exponential(1 / rng.uniform(1.5, 4.0), count) + 0.002
    lasts_s = np.column_stack((decode_s, prefill_s)).ravel()
    watts = np.column_stack((rng.uniform(300, 400, count), rng.uniform(560, 690, count))).ravel()
    return _levels(np.cumsum(lasts_s), np.append(watts, 350.0), length_s)


def _offline(length_s: float, rng: np.random.Generator) -> Points:
    """Batches: a prefill, a decode that falls or rises by some percent, a gap of some ms."""
    t_s, power_w = [0.0], [rng.uniform(100, 140)]
    now_s = float(rng.uniform(0, 0.05))
    while now_s < length_s:
        gap_w, prefill_w = rng.uniform(100, 140), rng.uniform(600, 680)
        decode_w, drift = rng.uniform(340, 450), rng.uniform(-0.06, 0.06)
        prefill_end_s = now_s + rng.uniform(0.15, 0.45)
        decode_end_s = prefill_end_s + rng.uniform(1.0, 4.0)
        t_s += [now_s, now_s, prefill_end_s, prefill_end_s, decode_end_s, decode_end_s]
        power_w += [power_w[-1], prefill_w, prefill_w, decode_w, decode_w * (1 + drift), gap_w]
        now_s = decode_end_s + float(rng.uniform(0.005, 0.03))
    return _cut(np.array(t_s), np.array(power_w), length_s)


def _square(period_s: float, jitter_s: float = 0.0) -> Callable[..., Points]:
    def make(length_s: float, rng: np.random.Generator) -> Points:
        count = int(1.2 * length_s / period_s) + 10
        periods_s = period_s + jitter_s * rng.uniform(-1, 1, count)
        begins_s = rng.uniform(0, period_s) + np.concatenate(([0.0], np.cumsum(periods_s)[:-1]))
        duty = rng.uniform(0.35, 0.39)
        edges_s = np.column_stack((begins_s, begins_s + duty * periods_s)).ravel()
        pair_w = [rng.uniform(180, 200), rng.uniform(520, 560)]
        return _levels(edges_s, np.array(pair_w * count + pair_w[:1]), length_s)

    return make


def _low_load(length_s: float, rng: np.random.Generator) -> Points:
    """A card that nearly always waits."""
    count = int(length_s * 3) + 20
    waits_s, bursts_s = rng.exponential(1.2, count) + 0.02, rng.uniform(0.02, 0.12, count)
    watts = np.column_stack((rng.uniform(75, 95, count), rng.uniform(200, 450, count))).ravel()
    edges_s = np.cumsum(np.column_stack((waits_s, bursts_s)).ravel())
    return _levels(edges_s, np.append(watts, 85.0), length_s)


def _spikes(length_s: float, rng: np.random.Generator) -> Points:
    """A steady load with spikes to 1 kW of some milliseconds."""
    count = int(length_s * 8) + 20
    waits_s, spikes_s = rng.exponential(0.25, count) + 0.005, rng.uniform(0.002, 0.01, count)
    base_w = rng.uniform(300, 400)
    watts = np.column_stack((np.full(count, base_w), rng.uniform(850, 1000, count))).ravel()
    edges_s = np.cumsum(np.column_stack((waits_s, spikes_s)).ravel())
    return _levels(edges_s, np.append(watts, base_w), length_s)


def _speculative(length_s: float, rng: np.random.Generator) -> Points:
    """Drafts and verifications take turns, each as long as the last acceptance has it."""
    count = int(length_s * 60) + 20
    lasts_s = rng.uniform(0.01, 0.04, 2 * count)
    watts = np.column_stack((rng.uniform(230, 330, count), rng.uniform(430, 560, count))).ravel()
    return _levels(np.cumsum(lasts_s), np.append(watts, 300.0), length_s)


def _moe(length_s: float, rng: np.random.Generator) -> Points:
    """Waves of 300 ms: how unevenly the experts are loaded changes from wave to wave."""
    t_s = np.arange(0.0, length_s + 0.01, 0.01)
    wave = np.floor(t_s / 0.3).astype(np.int64)
    height_w = rng.uniform(40, 160, int(wave[-1]) + 1)[wave]
    power_w = rng.uniform(380, 430) + height_w * np.sin(2 * np.pi * t_s / 0.3)
    return _cut(t_s, power_w, length_s)


def _one_over_f(length_s: float, rng: np.random.Generator) -> Points:
    step_s = 0.005
    count = 1 << int(np.ceil(np.log2(length_s / step_s + 2)))
    frequency = np.fft.rfftfreq(count, step_s)
    frequency[0] = frequency[1]
    spectrum = np.exp(2j * np.pi * rng.random(len(frequency))) / np.sqrt(frequency)
    noise = np.fft.irfft(spectrum, count)
    power_w = np.clip(350 + 70 * noise / np.std(noise), 120, 690)
    t_s: Floats = step_s * np.arange(count, dtype=np.float64)
    return _cut(t_s, power_w, length_s)


def _constant(length_s: float, rng: np.random.Generator) -> Points:
    return np.array([0.0, length_s]), np.full(2, round(float(rng.uniform(250, 500)), 1))


def _ramps(length_s: float, rng: np.random.Generator) -> Points:
    turns_s = np.concatenate(([0.0], np.cumsum(rng.uniform(0.5, 3.0, int(2 * length_s) + 5))))
    return _cut(turns_s, rng.uniform(110, 650, len(turns_s)), length_s)


LOADS: dict[str, Callable[[float, np.random.Generator], Points]] = {
    "serve": _serve,
    "offline batches": _offline,
    "step 99.2 ms": _square(0.0992),
    "step 100 ms": _square(0.1),
    "step 24.97 ms": _square(0.02497),
    "step 33 ms": _square(0.033, 0.001),
    "step 8.3 ms": _square(0.0083, 0.0002),
    "low load": _low_load,
    "spikes": _spikes,
    "speculative": _speculative,
    "MoE waves": _moe,
    "1/f noise": _one_over_f,
    "constant": _constant,
    "ramps": _ramps,
}

QUICK_LOADS = ("serve", "offline batches", "step 100 ms", "speculative")


def limit_w(load: str) -> float:
    """Return the power limit of a card that carries a load."""
    return SPIKE_LIMIT_W if load == "spikes" else LIMIT_W


def free_scene(load: str, length_s: float, rng: np.random.Generator) -> Scene:
    """Return a window somewhere in a load, which may begin just before it or end just after."""
    start_s = round(LEAD_S + float(rng.uniform(0, 0.1)), 9)
    end_s = round(start_s + length_s, 9)
    whole_s = end_s + TAIL_S
    work = LOADS[load](whole_s, rng)
    idle_w = float(rng.uniform(75, 95))
    from_s = start_s - float(rng.uniform(0.0, 0.12)) if rng.random() < 0.5 else 0.0
    to_s = end_s + float(rng.uniform(0.0, 0.3)) if rng.random() < 0.5 else whole_s
    parts = [_flat(0.0, from_s, idle_w), _between(work, from_s, to_s), _flat(to_s, whole_s, idle_w)]
    return Scene(_trace(load, parts), (start_s, end_s), None, whole_s, limit_w(load))


def bracketed_scene(load: str, length_s: float, rng: np.random.Generator) -> Scene:
    """Return work that begins and ends at rest, with other work or more rest around that."""
    rest_from_s = LEAD_S - REST_S
    start_s = round(LEAD_S + float(rng.uniform(0, 0.1)), 9)
    end_s = round(start_s + length_s, 9)
    rest_to_s = end_s + REST_S + float(rng.uniform(0, 0.1))
    whole_s = end_s + TAIL_S
    before_w = float(rng.uniform(75, 120))
    after_w = before_w + float(rng.uniform(-8, 8))
    work_s, work_w = LOADS[load](length_s, rng)
    lead = _flat(0.0, rest_from_s, before_w)
    if rng.random() < 0.5:
        lead = LOADS[load](rest_from_s, rng)
    tail = _flat(rest_to_s, whole_s, after_w)
    if rng.random() < 0.5:
        tail_s, tail_w = LOADS[load](whole_s - rest_to_s, rng)
        tail = rest_to_s + tail_s, tail_w
    parts = [
        lead,
        _flat(rest_from_s, start_s, before_w),
        (start_s + work_s, work_w),
        _flat(end_s, rest_to_s, after_w),
        tail,
    ]
    rests_s = ((rest_from_s, start_s), (end_s, rest_to_s))
    return Scene(_trace(load, parts), (start_s, end_s), rests_s, whole_s, limit_w(load))


def probe_trace(rng: np.random.Generator) -> tuple[Trace, Floats]:
    """Return a probe and its steps: rest for 3 s, 40 steps between rest and load, then rest."""
    edges_s = 3.0 + np.cumsum(rng.uniform(1.35, 1.75, 40))
    levels_w = np.where(np.arange(41) % 2 == 0, 85.0, 550.0)
    t_s = np.concatenate(([0.0], np.repeat(edges_s, 2), [PROBE_S]))
    return Trace("probe", t_s, np.repeat(levels_w, 2)), edges_s


def scaled(scene: Scene, factor: float) -> Scene:
    """Return the same scene at another power."""
    trace = replace(scene.trace, power_w=factor * scene.trace.power_w)
    return replace(scene, trace=trace, limit_w=factor * scene.limit_w)


def _flat(from_s: float, to_s: float, power_w: float) -> Points:
    return np.array([from_s, to_s]), np.array([power_w, power_w])


def _cut(t_s: Floats, power_w: Floats, length_s: float) -> Points:
    """Return a load up to its length."""
    return _between((t_s, power_w), 0.0, length_s)


def _between(points: Points, from_s: float, to_s: float) -> Points:
    t_s, power_w = points
    inside = (t_s > from_s) & (t_s < to_s)
    start_w = _power_at(points, np.array([from_s]), "right")
    end_w = _power_at(points, np.array([to_s]), "left")
    return (
        np.concatenate(([from_s], t_s[inside], [to_s])),
        np.concatenate((start_w, power_w[inside], end_w)),
    )


def _power_at(points: Points, moments_s: Floats, side: Literal["left", "right"]) -> Floats:
    """Return the power at moments; at a step, that before it (``left``) or after it."""
    t_s, power_w = points
    index = np.searchsorted(t_s, moments_s, side=side)
    after = np.clip(index, 1, len(t_s) - 1)
    spans_s = np.maximum(t_s[after] - t_s[after - 1], 1e-12)
    share = (moments_s - t_s[after - 1]) / spans_s
    between_w = power_w[after - 1] + share * (power_w[after] - power_w[after - 1])
    outside = [index <= 0, index >= len(t_s)]
    watts: Floats = np.select(outside, [power_w[0], power_w[-1]], between_w)
    return watts


def _trace(load: str, parts: list[Points]) -> Trace:
    pieces = [(t_s, power_w) for t_s, power_w in parts if t_s[-1] > t_s[0]]
    t_s, power_w = (np.concatenate(column) for column in zip(*pieces, strict=True))
    # Sums of times may be a rounding apart.
    return Trace(load, np.maximum.accumulate(t_s), power_w)
