"""A window's trend: seen where there is one, and not made up where there is none."""

import random

import pytest
from scipy import stats

from llenergymeasure.energy.batches import Batch
from llenergymeasure.run.result.steadiness import CHANGE_MAX, P_MAX, far_slower, steadiness, trend

NS = 1_000_000_000


def batches(durations_s: list[float], tokens: list[int]) -> list[Batch]:
    """One request a batch, each right after the one before."""
    batch_list, at_s = [], 0.0
    for duration_s, count in zip(durations_s, tokens, strict=True):
        span_ns = round(at_s * NS), round((at_s + duration_s) * NS)
        batch_list.append(Batch(*span_ns, None, input_tokens=16, output_tokens=count, requests=1))
        at_s += duration_s
    return batch_list


def noisy(count: int, change: float, noise: float, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [1 + change * i / (count - 1) + rng.gauss(0, noise) for i in range(count)]


def test_a_constant_rate_is_steady() -> None:
    result = steadiness(batches([0.5] * 40, [64] * 40))
    assert result["steady"] is True
    assert result["throughput"]["relative_change"] == pytest.approx(0, abs=1e-9)
    assert result["power"] is None


def test_a_slowing_engine_is_not_steady_and_by_how_much_is_told() -> None:
    result = steadiness(batches(noisy(40, 0.2, 0.01), [64] * 40))
    assert result["steady"] is False
    assert result["throughput"]["relative_change"] == pytest.approx(-0.18, abs=0.02)
    assert result["throughput"]["p_value"] < 1e-6


def test_noise_alone_is_steady_in_nearly_all_windows() -> None:
    unsteady = [
        seed
        for seed in range(300)
        if steadiness(batches(noisy(30, 0, 0.1, seed), [64] * 30))["steady"] is False
    ]
    assert len(unsteady) <= 300 * P_MAX * 3


def test_a_clear_but_small_trend_is_steady() -> None:
    result = steadiness(batches(noisy(1000, 0.02, 0.01), [64] * 1000))
    assert result["throughput"]["p_value"] < P_MAX
    assert abs(result["throughput"]["relative_change"]) < CHANGE_MAX
    assert result["steady"] is True


def test_a_workload_sorted_by_length_is_no_trend() -> None:
    tokens = [8, 16, 32, 64, 128] * 6
    rates = {8: 50.0, 16: 80.0, 32: 110.0, 64: 140.0, 128: 160.0}
    result = steadiness(batches([count / rates[count] for count in tokens], tokens))
    assert result["steady"] is True
    assert result["throughput"]["relative_change"] == pytest.approx(0, abs=1e-9)


def test_a_slowing_engine_is_seen_through_a_mixed_workload() -> None:
    tokens = [8, 64, 8, 64, 128] * 8
    slowdown = noisy(40, 0.25, 0.005)
    result = steadiness(
        batches([count / 100 * by for count, by in zip(tokens, slowdown, strict=True)], tokens)
    )
    assert result["steady"] is False


@pytest.mark.parametrize("tokens", [[64] * 4, [8, 16, 24, 32, 40, 48], []])
def test_what_cannot_be_told_is_null(tokens: list[int]) -> None:
    result = steadiness(batches([0.5] * len(tokens), tokens))
    assert result["steady"] is None
    assert result["throughput"] is None


def test_a_drift_of_power_alone_is_not_steady() -> None:
    times_s = [i * 0.1 for i in range(600)]
    powers_w = [300 + 40 * t / 60 for t in times_s]
    result = steadiness(batches([0.5] * 120, [64] * 120), power=(times_s, powers_w))
    assert result["steady"] is False
    assert result["throughput"]["relative_change"] == pytest.approx(0, abs=1e-9)
    assert result["power"]["relative_change"] == pytest.approx(40 / 320, rel=0.05)
    assert result["power"]["values"] == pytest.approx(60, abs=1)


@pytest.mark.parametrize("count", [5, 8, 30, 300])
def test_the_significance_is_students(count: int) -> None:
    values = noisy(count, 0.05, 0.05)
    pairs = list(enumerate(values))
    result = trend([pairs])
    expected = stats.linregress(range(count), values)
    assert result is not None
    assert result.p_value == pytest.approx(expected.pvalue, abs=0.002)
    mean = sum(values) / count
    assert result.relative_change == pytest.approx(expected.slope * (count - 1) / mean)


def test_a_batch_far_slower_than_its_like_is_named() -> None:
    durations_s = [0.5] * 10
    durations_s[6] = 2.5
    slow, usual_s = next(iter(far_slower(batches(durations_s, [64] * 10))))
    assert (slow.start_ns, slow.end_ns) == (3 * NS, 5.5 * NS)
    assert usual_s == 0.5


@pytest.mark.parametrize(
    ("durations_s", "tokens"),
    [
        ([0.5] * 9 + [1.4], [64] * 10),  # a second is the least
        ([2.0] * 9 + [5.0], [64] * 10),  # and so is three times
        ([0.5] * 9 + [5.0], [64] * 9 + [640]),  # another batch
        ([0.5, 0.5, 5.0], [64] * 3),  # too few to know what is usual
        ([20.0], [64]),
    ],
)
def test_what_the_work_explains_is_no_stall(durations_s: list[float], tokens: list[int]) -> None:
    assert list(far_slower(batches(durations_s, tokens))) == []
