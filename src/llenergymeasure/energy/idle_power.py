"""What a device draws at rest, next to the work, and a window's energy without it.

Rest is measured bare (before anything is loaded), with the model loaded before the window, and
after it. What is taken off is the loaded rest, since a model in memory is part of serving it, and
of it the seconds next to the work: a card that has worked is warm and has not lowered its clocks
yet. How far any second of them lies off bounds what the rest within the window may have been.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.config.sensor_gain import Gain
from llenergymeasure.energy.knots import Knots
from llenergymeasure.units import NS_PER_S

IDLE_PREFIX = "idle"
"""Phases at rest are those whose name begins so: ``idle_before``, ``idle_after``, …"""

LOAD_PHASE = "load"

ADJACENT_S = 5.0
"""How many seconds next to the work stand for the rest within it."""

UNSTEADY = 0.05
"""A rest whose seconds differ from its mean by more than this share is not steady."""

PhaseSpan = tuple[str, int, int]
"""Name, start and end of a phase, in CLOCK_MONOTONIC ns."""


@dataclass(frozen=True)
class IdlePower:
    """The rest that is taken off.

    Attributes:
        power_w: mean power at rest, taken to be that within the window.
        deviation_w: by how much any second of the rests differs from that at most, or the work
            where it drew less.
        phases: the rests it is from.
        work_drew_less: whether ``deviation_w`` is by how much less the work drew.
    """

    power_w: float
    deviation_w: float
    phases: tuple[str, ...]
    work_drew_less: bool

    @property
    def is_steady(self) -> bool:
        """Return whether the rest can be taken as one power."""
        return self.deviation_w <= UNSTEADY * self.power_w

    def net_u95_j(self, gross_u95_j: float, gain: Gain, span_s: float) -> float:
        """Return the half width of a net energy: the gross one's, and how unsure the rest is."""
        return math.hypot(gross_u95_j, self.deviation_w * span_s / gain.gain)


def idle_power(
    knots: Knots, phases: Sequence[PhaseSpan], window: tuple[int, int]
) -> IdlePower | None:
    """Return the rest to take off; None if none was measured.

    Taken are the last rest before the window and the first after it, loaded ones if there are any;
    with a bare rest alone, that is what is taken.
    """
    loads = [end_ns for name, _, end_ns in phases if name == LOAD_PHASE]
    rests = [phase for phase in phases if phase[0].startswith(IDLE_PREFIX)]
    loaded = [phase for phase in rests if loads and phase[1] >= min(loads)] or rests
    span_ns = round(ADJACENT_S * NS_PER_S)
    before = [
        (name, max(start_ns, end_ns - span_ns), end_ns)
        for name, start_ns, end_ns in loaded
        if end_ns <= window[0]
    ][-1:]
    after = [
        (name, start_ns, min(end_ns, start_ns + span_ns))
        for name, start_ns, end_ns in loaded
        if start_ns >= window[1]
    ][:1]
    seconds_w, means_w, names = [], [], []
    for name, start_ns, end_ns in before + after:
        start_s, end_s = knots.seconds(start_ns), knots.seconds(end_ns)
        if end_s <= start_s or not knots.covers(start_s, end_s):
            continue
        # A counter's steps next to the work, the late ones after it, hold some of its energy.
        inner_s = start_s + 2 * knots.spacing_s, end_s - knots.spacing_s
        if inner_s[1] - inner_s[0] > 4 * knots.spacing_s:
            start_s, end_s = inner_s
        # Whole seconds, each as long as the others; a short rest is one.
        count = max(1, int(end_s - start_s))
        edges_s = np.linspace(start_s, end_s, count + 1)
        power_w = np.diff(knots.at(edges_s)) / np.diff(edges_s)
        seconds_w += power_w.tolist()
        means_w.append(float(np.mean(power_w)))
        names.append(name)
    if not means_w:
        return None
    level_w = float(np.mean(means_w))
    # Nothing draws less under load than at the rest within it: what was next to it was another.
    start_s, end_s = map(knots.seconds, window)
    work_w = float(knots.at(end_s) - knots.at(start_s)) / max(end_s - start_s, 1e-9)
    less_w, deviation_w = level_w - work_w, float(np.max(np.abs(np.array(seconds_w) - level_w)))
    return IdlePower(level_w, max(deviation_w, less_w), tuple(names), less_w > deviation_w)


def subtract_idle(
    gross_j: float, idle: IdlePower | None, gain: Gain, span_s: float
) -> dict[str, float | None]:
    """Return a window's true ``idle_j`` and ``net_j``; None for both if no rest was measured."""
    if idle is None:
        return {"idle_j": None, "net_j": None}
    idle_j = gain.true_energy_j(idle.power_w * span_s, span_s)
    return {"idle_j": idle_j, "net_j": gross_j - idle_j}
