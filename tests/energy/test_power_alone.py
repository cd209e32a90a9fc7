"""A card without a counter: the energy of its power readings, each a mean of all of its period."""

import numpy as np
import pytest

from llenergymeasure.energy.account import account
from support import energy_card as card


def bursts(seed: int) -> card.Power:
    """Work of some ms now and then between rests that show the same power again and again."""
    rng = np.random.default_rng(seed)
    begins_s = 5.0 + np.cumsum(rng.uniform(0.6, 1.4, 14))
    begins_s = begins_s[begins_s < 14.8]
    edges_s = np.column_stack((begins_s, begins_s + rng.uniform(0.03, 0.15, len(begins_s))))
    watts = np.column_stack((rng.uniform(250, 450, len(begins_s)), np.full(len(begins_s), 80.0)))
    return card.Power([-10.0, *edges_s.ravel()], [80.0, *watts.ravel()])


@pytest.mark.parametrize("call_s", [0.0001, 0.004])
def test_a_value_that_is_shown_again_takes_nothing_from_the_next(call_s: float) -> None:
    off, covered = [], []
    sensor = card.Sensor(counter_s=None, call_s=call_s)
    for seed in range(12):
        load = bursts(seed)
        samples = card.record(load, sensor, 20.0, name="NVIDIA GeForce RTX 3090")
        made = account(samples, (card.ns(5), card.ns(15)), card.margins(5, 15))
        assert made.validity == {}
        off_j = made.total.gross_j - float(load.energy(5, 15))
        off.append(off_j / made.total.gross_j)
        covered.append(abs(off_j) <= made.total.gross_u95_j)
    assert abs(np.mean(off)) < 0.001
    assert np.mean(covered) > 0.9


def test_a_stretch_that_holds_one_reading_is_as_unsure_as_those_next_to_it() -> None:
    load = card.work(3, 58)
    sensor = card.Sensor(window_s=0.025, counter_s=None)
    samples = card.record(load, sensor, 60.0, name="NVIDIA A100-SXM4-80GB")
    covered = []
    for start_s in np.arange(5.0, 50.0, 1.37):
        made = account(samples, (card.ns(start_s), card.ns(start_s + 0.12))).total
        off_j = made.gross_j - float(load.energy(start_s, start_s + 0.12))
        covered.append(abs(off_j) <= made.gross_u95_j)
    assert np.mean(covered) > 0.93
