"""Requests under way, and when they pile up."""

import numpy as np
import pytest

from llenergymeasure.run.result.offered_load import InFlight, growth_per_s, is_over_saturated

S = 1_000_000_000
WINDOW = (10 * S, 30 * S)


def flight(arrivals_s: np.ndarray, ends_s: np.ndarray) -> InFlight:
    return InFlight.from_intervals((arrivals_s * S).astype(np.int64), (ends_s * S).astype(np.int64))


def queue(arrivals_s: np.ndarray, service_s: float) -> np.ndarray:
    """When a server that takes one at a time is done with each."""
    ends, free_s = [], 0.0
    for at_s in arrivals_s:
        free_s = max(free_s, at_s) + service_s
        ends.append(free_s)
    return np.array(ends)


def poisson(rate: float, seed: int) -> np.ndarray:
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * 60))
    return np.cumsum(gaps)[np.cumsum(gaps) < 30]


def sent(arrivals_s: np.ndarray) -> int:
    return int(np.count_nonzero((arrivals_s >= 10) & (arrivals_s < 30)))


def test_the_mean_is_the_integral() -> None:
    counted = flight(np.array([10.0, 12.0]), np.array([20.0, 14.0]))
    assert counted.mean(*WINDOW) == pytest.approx((10 + 2) / 20)
    assert counted.largest(*WINDOW) == 2
    assert counted.mean(40 * S, 50 * S) == 0


def test_one_that_follows_at_once_is_not_two() -> None:
    counted = flight(np.array([10.0, 15.0]), np.array([15.0, 20.0]))
    assert counted.largest(*WINDOW) == 1


@pytest.mark.parametrize("seed", range(8))
def test_twice_what_a_server_can_do_piles_up(seed: int) -> None:
    arrivals = poisson(20, seed)
    counted = flight(arrivals, queue(arrivals, 0.1))
    assert is_over_saturated(counted, WINDOW, sent=sent(arrivals))
    assert growth_per_s(counted, WINDOW) == pytest.approx(10, rel=0.3)


def test_a_server_with_room_is_hardly_ever_called_over_saturated() -> None:
    """Poisson arrivals and answers of two seconds each, none of which waits."""
    wrong = 0
    for seed in range(200):
        arrivals = poisson(20, seed)
        counted = flight(arrivals, arrivals + 2.0)
        wrong += is_over_saturated(counted, WINDOW, sent=sent(arrivals))
    assert wrong <= 2
