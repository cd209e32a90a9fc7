"""What a device draws at rest, bracketed around the window.

Rest is measured bare (before anything is loaded), with the model loaded before the window, and
after it. What is taken off is the loaded rest, since a model in memory is part of serving it;
between the rest before and the rest after the window it may drift, with temperature for one, and
half that drift either way enters the uncertainty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.meter.device import EnergyChannel
from llenergymeasure.meter.uncertainty import Component
from llenergymeasure.units import NS_PER_S

IDLE_PREFIX = "idle"
"""Phases at rest are those whose name begins so: ``idle_before``, ``idle_after``, …"""

LOAD_PHASE = "load"

PhaseSpan = tuple[str, int, int]
"""Name, start and end of a phase, in CLOCK_MONOTONIC ns."""


@dataclass(frozen=True)
class Rest:
    """Power at rest in one phase.

    Attributes:
        phase: its name.
        power_w: mean power.
        u95_w: half width of its 95 % interval, for what of it is not common to all phases.
        loaded: whether the model was in memory.
        before: whether it came before the window.
    """

    phase: str
    power_w: float
    u95_w: float
    loaded: bool
    before: bool


@dataclass(frozen=True)
class IdlePower:
    """The rest that is taken off.

    Attributes:
        power_w: mean power at rest during the window.
        standard_w: its standard uncertainty without the drift.
        drift_w: change between the rest before and the rest after; 0 if there is but one.
        rests: all phases at rest that were measured.
    """

    power_w: float
    standard_w: float
    drift_w: float
    rests: tuple[Rest, ...]

    def components(self, span_s: float) -> tuple[Component, ...]:
        """Return what the subtraction over a span adds to the uncertainty."""
        parts = [Component("rest", self.standard_w * span_s)]
        if self.drift_w:
            parts.append(Component.bounded("drift of the rest", abs(self.drift_w) / 2 * span_s))
        return tuple(parts)


def rests(
    channel: EnergyChannel, phases: Sequence[PhaseSpan], window: tuple[int, int]
) -> tuple[Rest, ...]:
    """Measure the phases at rest that lie outside the window."""
    loads = [end_ns for name, _, end_ns in phases if name == LOAD_PHASE]
    loaded_ns = min(loads) if loads else None
    found = []
    for name, start_ns, end_ns in phases:
        outside = end_ns <= window[0] or start_ns >= window[1]
        if not name.startswith(IDLE_PREFIX) or not outside:
            continue
        stretch = channel.at_rest(start_ns, end_ns)
        if stretch is None:
            continue
        span_s = (end_ns - start_ns) / NS_PER_S
        found.append(
            Rest(
                name,
                stretch.energy_j / span_s,
                stretch.u95_j / span_s,
                loaded_ns is not None and start_ns >= loaded_ns,
                end_ns <= window[0],
            )
        )
    return tuple(found)


def idle_power(found: Sequence[Rest]) -> IdlePower | None:
    """Return the rest to take off; null if none was measured.

    Taken are the last rest before the window and the first after it, loaded ones if there are any;
    their mean stands for the window between them. With a bare rest alone, that is what is taken.
    """
    loaded = [rest for rest in found if rest.loaded] or list(found)
    before = [rest for rest in loaded if rest.before][-1:]
    after = [rest for rest in loaded if not rest.before][:1]
    taken = before + after
    if not taken:
        return None
    power_w = sum(rest.power_w for rest in taken) / len(taken)
    standard_w = sum((rest.u95_w / 1.96) ** 2 for rest in taken) ** 0.5 / len(taken)
    drift_w = after[0].power_w - before[0].power_w if len(taken) == 2 else 0.0
    return IdlePower(power_w, standard_w, drift_w, tuple(found))
