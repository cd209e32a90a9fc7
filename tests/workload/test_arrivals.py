"""Arrivals come as the process says, from a seed; those of a trace are in test_traces.py."""

import math

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.config.serving import ServingConfig
from llenergymeasure.workload.arrivals import arrival_offsets


def offsets(seconds: float, seed: int = 7, **settings: object) -> np.ndarray:
    return arrival_offsets(ServingConfig.model_validate(settings), seconds, seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps_are_exponential_and_independent(seed: int) -> None:
    gaps = np.diff(offsets(2000, seed, arrivals="poisson", rate_per_s=5))
    assert stats.kstest(gaps, "expon", args=(0, 1 / 5)).pvalue > 1e-3
    lag = np.corrcoef(gaps[:-1], gaps[1:])[0, 1]
    assert abs(lag) < 4 / math.sqrt(len(gaps))


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0])
def test_gammas_gaps_have_its_shape_and_the_rate(shape: float) -> None:
    gaps = np.diff(offsets(2000, arrivals="gamma", rate_per_s=5, burstiness=shape))
    assert stats.kstest(gaps, "gamma", args=(shape, 0, 1 / (shape * 5))).pvalue > 1e-3


def test_constant_gaps_are_constant_and_begin_anywhere() -> None:
    times = offsets(10, arrivals="constant", rate_per_s=8)
    assert np.allclose(np.diff(times), 1 / 8)
    assert 0 <= times[0] < 1 / 8
    assert len(times) in (80, 81)
    assert times[0] != offsets(10, 8, arrivals="constant", rate_per_s=8)[0]


def test_a_ramps_rate_grows_evenly() -> None:
    """Mapped through its mean function a ramp is a Poisson process, evenly spread."""
    times = offsets(400, arrivals="ramp", rate_per_s=2, rate_end_per_s=18)
    mapped = (2 * times + 16 * times**2 / 800) / (400 * 10)
    assert stats.kstest(mapped, "uniform").pvalue > 1e-3
    assert abs(len(times) - 4000) < 4 * math.sqrt(4000)


def test_no_rate_is_no_traffic() -> None:
    assert len(offsets(50, arrivals="poisson", rate_per_s=0)) == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"arrivals": "poisson"}, "need rate_per_s"),
        ({"arrivals": "gamma", "rate_per_s": 1}, "need burstiness"),
        ({"arrivals": "closed"}, "need concurrency"),
        ({"arrivals": "closed", "concurrency": 2, "rate_per_s": 1}, "rate_per_s belongs"),
        ({"rate_per_s": 1, "think_seconds": 1}, "think_seconds belongs"),
        ({"rate_per_s": 1, "output_tokens": {"distribution": "data"}}, "names no file"),
        ({"rate_per_s": 1, "input_tokens": {"distribution": "uniform"}}, "needs min_tokens"),
        ({"rate_per_s": 1, "shared_prefixes": 2}, "needs shared_prefix_ratio"),
    ],
)
def test_traffic_that_does_not_fit_together_is_refused(
    settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        ServingConfig.model_validate(settings)
