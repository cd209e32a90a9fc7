"""Runs that are cut alike: is their mean in the interval of chance and of what they share?"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from energy.metering import H100, UNKNOWN, Metered, at_any_phase, metered
from llenergymeasure.energy.device import USUAL_LAG_S
from support import energy_card as card

RUNS = 12
T_975 = 2.201
"""Student's t of 11 degrees of freedom."""

ONE_SECOND = card.Sensor(counter_s=None, window_s=0.025, average_s=1.0)
HELD = card.Sensor(counter_from="samples")
LATE = replace(card.H100, counter_lag_s=USUAL_LAG_S)

Load = Callable[[float, float, int], card.Power]


def even(start_s: float, end_s: float, seed: int) -> card.Power:
    """Work that draws nearly the same all the time, between two rests."""
    watts = 300 + np.random.default_rng(seed).uniform(-3, 3)
    return card.Power([-10.0, start_s, end_s], [90.0, watts, 90.0])


def beyond_its_marks(start_s: float, end_s: float, seed: int) -> card.Power:
    """The device begins before its mark and goes on after it: nobody waited for it."""
    return even(start_s - 0.03, end_s + 0.09, seed)


def serving(start_s: float, end_s: float, seed: int) -> card.Power:
    """A load in whose midst a window is cut."""
    return card.work(start_s - 4, end_s + 3, seed)


def windows(load: Load, sensor: card.Sensor, name: str, *, margins: bool = True) -> list[Metered]:
    """Return runs at any phase of the sensor."""
    runs = []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        start_s = 5 + rng.uniform(0, 0.1)
        power = load(start_s, start_s + 5, seed)
        variant, window_s = at_any_phase(sensor, rng), (start_s, start_s + 5)
        runs.append(metered(power, variant, window_s, name=name, margins=margins))
    return runs


def off_and_chance(runs: Sequence[Metered]) -> tuple[float, float]:
    """Return by how much the mean is off, and the half width of its interval over the runs."""
    off = np.array([run.reading.gross_j / run.true_j - 1 for run in runs])
    return abs(float(off.mean())), T_975 * float(off.std(ddof=1)) / RUNS**0.5


def shared_rel(runs: Sequence[Metered]) -> float:
    """Return the mean share that runs have in common of what is unknown."""
    return float(np.mean([run.reading.shared_u95_j / run.reading.gross_j for run in runs]))


@pytest.mark.parametrize(
    ("load", "sensor", "name", "margins"),
    [
        pytest.param(even, ONE_SECOND, H100, True, id="means over 1 s alone"),
        pytest.param(even, HELD, UNKNOWN, False, id="a counter that may be late"),
        pytest.param(even, LATE, H100, False, id="one that is late"),
        pytest.param(beyond_its_marks, card.H100, H100, True, id="work beyond its marks"),
        pytest.param(beyond_its_marks, LATE, H100, True, id="work beyond its marks, and late"),
    ],
)
def test_the_mean_of_runs_that_are_cut_alike_is_in_the_interval_that_they_share(
    load: Load, sensor: card.Sensor, name: str, margins: bool
) -> None:
    """What is lost from rest to work and back is lost in each run: cycles do not average it out."""
    runs = windows(load, sensor, name, margins=margins)
    off, chance = off_and_chance(runs)
    assert off > 2 * chance
    assert off <= np.hypot(chance, shared_rel(runs))
    assert all(run.is_covered for run in runs)


def test_what_runs_share_is_small_where_a_true_counter_is_read_in_a_loads_midst() -> None:
    runs = windows(serving, card.H100, H100, margins=False)
    off, chance = off_and_chance(runs)
    assert off <= np.hypot(chance, shared_rel(runs))
    assert shared_rel(runs) < 0.002


@pytest.mark.parametrize(
    ("load", "sensor", "most"),
    [
        pytest.param(even, card.H100, 5e-4, id="even"),
        pytest.param(card.work, card.H100, 5e-4, id="bursts"),
        # Held against the 1 s average, a counter that is late seems to disagree by its lag.
        pytest.param(even, LATE, 1e-3, id="late"),
        pytest.param(card.work, LATE, 5e-4, id="late, bursts"),
    ],
)
def test_between_two_rests_runs_share_nothing_of_what_a_counter_smears(
    load: Load, sensor: card.Sensor, most: float
) -> None:
    """Nothing shows what it counts: each of its readings may be held, and is counted between.

    Nor is it an error that a counter shows the end of work as late as it is itself.
    """
    runs = windows(load, sensor, H100)
    off, _ = off_and_chance(runs)
    assert off < 1e-5
    assert shared_rel(runs) < most
