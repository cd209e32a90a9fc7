"""Windows of a card whose true energy is known, and what the meter says of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.characterise import characterise
from llenergymeasure.recording.samples import SampleRow, Samples
from llenergymeasure.results.energy import Reading
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

A100, H100, H200 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "NVIDIA H200"
RTX_3090, UNKNOWN = "NVIDIA GeForce RTX 3090", "Some new card"
KEY = ("nvml", card.UUID)


@dataclass(frozen=True)
class Metered:
    """A window as it was metered, and its true energy."""

    result: Account
    true_j: float

    @property
    def reading(self) -> Reading:
        """The headline's only reading."""
        (reading,) = self.result.headline
        return reading

    @property
    def codes(self) -> set[str]:
        return set(self.result.validity)

    @property
    def off_j(self) -> float:
        return abs(self.reading.gross_j - self.true_j)

    @property
    def is_covered(self) -> bool:
        return self.off_j <= self.reading.gross_u95_j


def window_ns(start_s: float, end_s: float) -> tuple[int, int]:
    return card.ns(start_s), card.ns(end_s)


def of_samples(
    samples: Samples,
    power: card.Power,
    window_s: tuple[float, float],
    *,
    margins: bool = True,
    known: Behaviour | None = None,
    **options: Any,
) -> Metered:
    """Meter a window of what was recorded of a card that drew this power."""
    phases = card.margins(*window_s) if margins else []
    behaviours = {KEY: known} if known else None
    result = account(samples, window_ns(*window_s), phases, behaviours=behaviours, **options)
    return Metered(result, float(power.energy(*window_s)))


def metered(
    power: card.Power,
    sensor: card.Sensor = card.H100,
    window_s: tuple[float, float] = (5.0, 15.0),
    *,
    name: str = H100,
    after_s: float = 3.0,
    **options: Any,
) -> Metered:
    """Record a card until ``after_s`` after a window, and meter the window."""
    samples = card.record(power, sensor, window_s[1] + after_s, name=name)
    return of_samples(samples, power, window_s, **options)


def probed(sensor: card.Sensor, name: str = H100, seed: int = 3) -> Behaviour:
    """What a probe of a minute finds of a card."""
    load = card.steps(60, seed)
    edges_ns = [card.ns(edge_s) for edge_s in load.edges_s[1:]]
    return characterise(card.record(load, sensor, name=name), card.UUID, edges_ns)


def at_any_phase(sensor: card.Sensor, rng: np.random.Generator) -> card.Sensor:
    """Return the sensor with its readings and its counter's ticks at moments by chance."""
    return replace(sensor, phase_s=rng.uniform(0, 0.1), counter_phase_s=rng.uniform(0, 0.1))


def counter_rows(
    t_s: Sequence[float], energy_j: Sequence[float], device: str = card.UUID, sensor: str = "nvml"
) -> list[SampleRow]:
    """A counter that was read at these moments, each within a ms, and showed these energies."""
    return [
        SampleRow(card.ns(t), device, sensor, "energy_counter_j", float(joules), card.ns(t - 0.001))
        for t, joules in zip(t_s, energy_j, strict=True)
    ]


def telemetry(
    quantity: str, values: dict[float, float], note: str | None = None
) -> list[SampleRow]:
    """Another value of the card's, at these moments."""
    return [
        SampleRow(card.ns(t), card.UUID, "nvml", quantity, value, note=note)
        for t, value in values.items()
    ]
