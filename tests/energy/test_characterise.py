"""Periods, windows and independence, found from samples of a load."""

import numpy as np
import pytest

from llenergymeasure.energy.characterise import characterise, published
from support import energy_card as card

LOAD = card.steps(60)
EDGES_NS = [card.ns(edge_s) for edge_s in LOAD.edges_s[1:]]


@pytest.mark.parametrize(
    ("update_s", "window_s"), [(0.1, 0.025), (0.1, 0.1), (0.1, 1.0), (0.02, 0.01), (0.05, 0.05)]
)
@pytest.mark.parametrize("counter", ["true", None])
def test_period_and_window_are_found_within_ten_percent(
    update_s: float, window_s: float, counter: str | None
) -> None:
    sensor = card.Sensor(update_s, window_s, None if counter is None else 0.1)
    samples = card.record(LOAD, sensor)
    found = characterise(samples, card.UUID, "nvml", EDGES_NS if counter is None else ())
    channel = found.power[0]
    assert channel.update_period_s == pytest.approx(update_s, rel=0.1)
    assert channel.window_s == pytest.approx(window_s, rel=0.1)
    assert channel.share_seen == pytest.approx(min(1.0, window_s / update_s), rel=0.1)
    assert found.counter_period_s == (None if counter is None else pytest.approx(0.1, rel=0.01))


@pytest.mark.parametrize(("update_s", "window_s"), [(0.1, 0.025), (0.1, 1.0), (0.02, 0.01)])
@pytest.mark.parametrize("counter_from", ["true", "samples"])
def test_a_counter_made_from_readings_is_told_from_one_of_its_own(
    update_s: float, window_s: float, counter_from: str
) -> None:
    sensor = card.Sensor(update_s, window_s, counter_from=counter_from)
    found = characterise(card.record(LOAD, sensor), card.UUID, "nvml")
    assert found.counter_independent is (counter_from == "true")


def test_constant_power_tells_nothing_of_the_counter() -> None:
    samples = card.record(card.constant(250.0), card.Sensor(window_s=0.025))
    found = characterise(samples, card.UUID, "nvml")
    assert found.counter_independent is None
    assert found.power[0].window_s is None
    assert found.power[0].share_seen is None


@pytest.mark.parametrize("window_s", [0.025, 0.1])
def test_an_even_ramp_tells_nothing_of_the_counter(window_s: float) -> None:
    """Moved in time by the reading's age, the readings of a ramp sum up to any counter."""
    edges_s = np.arange(-10.0, 14.0, 0.001)
    power_w = np.interp(edges_s, [4.0, 6.0, 9.0], [100.0, 400.0, 250.0])
    ramp = card.Power(edges_s.tolist(), power_w.tolist())
    samples = card.record(ramp, card.Sensor(window_s=window_s), 12)
    found = characterise(samples, card.UUID, "nvml")
    assert found.counter_independent is None


def test_a_counter_ahead_of_the_readings_is_no_sum_of_them() -> None:
    """Steps in step with the ticks: the readings of one period sum up to the counter, later."""
    edges_s = [2.0 + 0.5 * number for number in range(60)]
    power = card.Power([-10.0, *edges_s], [60.0, *[400.0, 60.0] * 30])
    found = characterise(card.record(power, card.Sensor(0.1, 0.1), 40), card.UUID, "nvml")
    assert found.counter_independent is not False


def test_an_alias_is_not_taken_for_averaging() -> None:
    """A 25 ms window on 33 ms pulses rises and falls like a mean over most of a second."""
    power = card.square(0.033, 100, 400, 60, 0.4)
    samples = card.record(power, card.Sensor(window_s=0.025, counter_s=None))
    assert characterise(samples, card.UUID, "nvml").power[0].window_s is None


def test_long_averaging_shows_in_the_readings_alone() -> None:
    samples = card.record(card.steps(120, seed=3), card.Sensor(window_s=1.0, counter_s=None), 120)
    window_s = characterise(samples, card.UUID, "nvml").power[0].window_s
    assert window_s is None or window_s == pytest.approx(1.0, rel=0.1)


def test_published_windows_are_by_card_and_channel() -> None:
    assert published("NVIDIA H100 PCIe", "power_instant_w").window_s == 0.025
    assert published("NVIDIA H100 PCIe", "power_usage_w").window_s == 1.0
    assert published("NVIDIA A100-SXM4-80GB", "power_usage_w").window_s == 0.025
    assert published("NVIDIA H200", "power_instant_w") is None
