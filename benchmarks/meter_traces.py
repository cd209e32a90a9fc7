"""Loads of known energy, and the simulated cards that see them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

IDLE_W = 60.0
LOW_W = 100.0
HIGH_W = 400.0
LIMIT_W = 500.0
PROBE_S = 70.0
"""Length of the probe that every recording begins with: rest, then steps for characterisation."""


@dataclass(frozen=True)
class Trace:
    """True power over time, linear between points; two points at one time are a step.

    Attributes:
        name: the load in a word or two.
        t_s: times from the recording's zero, shape (n,), not falling.
        power_w: power at them, shape (n,).
        edges_s: when the probe stepped.
    """

    name: str
    t_s: Floats
    power_w: Floats
    edges_s: Floats

    def energy_j(self, start_s: Floats, end_s: Floats) -> Floats:
        """Return the true energy of stretches, exact but for rounding."""
        return self._up_to(end_s) - self._up_to(start_s)

    def _up_to(self, moment_s: Floats) -> Floats:
        steps_j = np.diff(self.t_s) * (self.power_w[1:] + self.power_w[:-1]) / 2
        knots_j = np.concatenate(([0.0], np.cumsum(steps_j)))
        place = np.clip(np.searchsorted(self.t_s, moment_s, side="right") - 1, 0, len(self.t_s) - 2)
        span_s = self.t_s[place + 1] - self.t_s[place]
        x_s = moment_s - self.t_s[place]
        slope = np.divide(
            self.power_w[place + 1] - self.power_w[place],
            span_s,
            out=np.zeros_like(x_s),
            where=span_s > 0,
        )
        energy: Floats = knots_j[place] + self.power_w[place] * x_s + slope * x_s**2 / 2
        return energy


@dataclass(frozen=True)
class Card:
    """A simulated card.

    Attributes:
        name: as the table names it.
        counter: what the energy counter is made from: ``true``, ``samples`` or ``absent``.
        sensor: the simulation's sensor settings.
    """

    name: str
    counter: str
    sensor: dict[str, Any]

    @property
    def uuid(self) -> str:
        """Return the card's UUID."""
        return f"GPU-{self.name}-{self.counter}"

    def as_json(self, trace: Trace) -> dict[str, Any]:
        """Return the card as the simulation's trace file has it."""
        return {
            "name": "Simulated card",
            "uuid": self.uuid,
            "power_w": np.column_stack((trace.t_s, trace.power_w)).tolist(),
            "power_limit_w": {"min": LOW_W, "max": LIMIT_W, "default": LIMIT_W},
            "counter_supported": self.counter != "absent",
            "sensor": {
                **self.sensor,
                "counter_from": "samples" if self.counter == "samples" else "true",
            },
        }


# Update and window as arXiv 2312.02741 found them; phases so that nothing coincides by chance.
_SENSORS: dict[str, dict[str, Any]] = {
    "A100-like": {"update_ms": 100, "window_ms": 25, "phase_ms": 13},
    "H100-like": {"update_ms": 100, "window_ms": 1000, "phase_ms": 13},
    "V100-like": {"update_ms": 20, "window_ms": 10, "phase_ms": 3},
}


def cards() -> list[Card]:
    """Return every sensor with every counter."""
    return [
        Card(name, counter, {**sensor, "counter_update_ms": 100, "counter_phase_ms": 41})
        for name, sensor in _SENSORS.items()
        for counter in ("true", "samples", "absent")
    ]


def traces(length_s: float, seed: int = 1) -> list[Trace]:
    """Return the loads, each behind its probe, ``length_s`` long after it."""
    makers: dict[str, Callable[[float, np.random.Generator], tuple[Floats, Floats]]] = {
        "constant": _constant,
        "50 Hz square": lambda length, _: _pulses(length, 0.020, 0.5, 0.008, 60.0, 440.0),
        "33 ms pulses": lambda length, _: _pulses(length, 0.033, 0.4, 0.011),
        "60 ms pulses": lambda length, _: _pulses(length, 0.060, 0.5, 0.007),
        "101 ms pulses": lambda length, _: _pulses(length, 0.101, 0.5, 0.029),
        "ramps": _ramps,
        "bursts": _bursts,
        "random walk": _random_walk,
    }
    made = []
    for number, (name, make) in enumerate(makers.items()):
        rng = np.random.default_rng((seed, number))
        probe_s, probe_w, edges_s = _probe(rng)
        t_s, power_w = make(length_s, rng)
        made.append(
            Trace(
                name,
                np.concatenate((probe_s, PROBE_S + t_s)),
                np.concatenate((probe_w, power_w)),
                edges_s,
            )
        )
    return made


def _probe(rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Rest for 3 s, then 40 steps between rest and load at times of no common measure."""
    edges_s = 3.0 + np.cumsum(rng.uniform(1.35, 1.75, 40))
    levels_w = np.where(np.arange(41) % 2 == 0, IDLE_W, HIGH_W)
    t_s = np.concatenate(([0.0], np.repeat(edges_s, 2), [PROBE_S]))
    return t_s, np.repeat(levels_w, 2), edges_s


def _constant(length_s: float, _: np.random.Generator) -> tuple[Floats, Floats]:
    return np.array([0.0, length_s]), np.array([250.0, 250.0])


def _pulses(
    length_s: float,
    period_s: float,
    duty: float,
    phase_s: float,
    low_w: float = LOW_W,
    high_w: float = HIGH_W,
) -> tuple[Floats, Floats]:
    begins_s = phase_s + period_s * np.arange(int(length_s / period_s))
    edges_s = np.column_stack((begins_s, begins_s + duty * period_s)).ravel()
    edges_s = edges_s[edges_s < length_s]
    levels_w = np.where(np.arange(len(edges_s) + 1) % 2 == 0, low_w, high_w)
    return np.concatenate(([0.0], np.repeat(edges_s, 2), [length_s])), np.repeat(levels_w, 2)


def _ramps(length_s: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    turns_s = np.append(
        np.arange(0.0, length_s, 5.0) + rng.uniform(0, 2, int(np.ceil(length_s / 5))), length_s
    )
    turns_s[0] = 0.0
    return turns_s, rng.uniform(LOW_W, HIGH_W, len(turns_s))


def _bursts(length_s: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    edges_s = np.cumsum(
        np.column_stack((rng.exponential(0.8, 1000) + 0.05, rng.uniform(0.1, 1.5, 1000))).ravel()
    )
    edges_s = edges_s[edges_s < length_s]
    levels_w = np.where(np.arange(len(edges_s) + 1) % 2 == 0, LOW_W, HIGH_W)
    return np.concatenate(([0.0], np.repeat(edges_s, 2), [length_s])), np.repeat(levels_w, 2)


def _random_walk(length_s: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    t_s = np.arange(0.0, length_s + 0.05, 0.05)
    walk_w = 250.0 + np.cumsum(rng.normal(0.0, 8.0, len(t_s)))
    span_w = HIGH_W - LOW_W
    # Reflected at both bounds.
    folded_w = np.abs((walk_w - LOW_W + span_w) % (2 * span_w) - span_w)
    return t_s, LOW_W + folded_w
