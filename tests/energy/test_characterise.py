"""What a probe finds of a card's channels, and what it must not find."""

from dataclasses import replace

import numpy as np
import pytest

from energy.metering import A100, H100, H200, RTX_3090, UNKNOWN, probed
from llenergymeasure.energy.characterise import characterise
from llenergymeasure.energy.device import open_device
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.sensors.known_behaviour import Behaviour, CounterNature, published_behaviour
from support import energy_card as card

V100 = "Tesla V100-SXM2-32GB"
WITH_AVERAGE = card.Sensor(average_s=1.0)


def seen(
    power: card.Power, sensor: card.Sensor, name: str = H100, end_s: float = 40.0
) -> Behaviour:
    samples = card.record(power, sensor, end_s, name=name)
    return open_device(samples, samples.header.sensors[0]).behaviour


LOADS = {
    "steps": card.steps(40, 1),
    "work": card.work(1, 39, 1),
    "pulses": card.square(0.033, 100, 400, 40, 0.45),
    "slow pulses": card.square(0.7, 100, 400, 40, 0.4),
    "in step": card.square(0.1, 100, 400, 40, 0.35),
    "constant": card.constant(200.0),
}
WRONG: dict[str, CounterNature] = {"true": "sum", "samples": "independent"}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("call_s", [0.0001, 0.005])
@pytest.mark.parametrize(
    ("sensor", "name"),
    [
        (card.H100, H100),
        (card.H100, H200),
        (WITH_AVERAGE, RTX_3090),
        (card.Sensor(0.02, 0.01), V100),
    ],
)
@pytest.mark.parametrize("counter_from", ["true", "samples"])
def test_a_counter_is_never_taken_for_what_it_is_not(
    load: str, call_s: float, sensor: card.Sensor, name: str, counter_from: str
) -> None:
    variant = replace(sensor, counter_from=counter_from, call_s=call_s, phase_s=0.01 + 9 * call_s)
    assert seen(LOADS[load], variant, name, 20.0).counter != WRONG[counter_from]


@pytest.mark.parametrize("call_s", [0.0001, 0.002])
@pytest.mark.parametrize(("counter_from", "nature"), [("true", "independent"), ("samples", "sum")])
def test_what_a_counter_counts_is_found_by_a_load_that_steps(
    call_s: float, counter_from: str, nature: str
) -> None:
    for seed in range(3):
        variant = replace(card.H100, counter_from=counter_from, call_s=call_s)
        assert seen(card.steps(40, seed), variant).counter == nature
        assert probed(variant, seed=seed).counter == nature


@pytest.mark.parametrize(
    ("sensor", "name", "call_s"),
    [(card.Sensor(0.02, 0.01), V100, 0.0001), (card.H100, H100, 0.005)],
)
def test_reads_as_slow_as_the_renewals_do_not_hide_what_a_counter_counts(
    sensor: card.Sensor, name: str, call_s: float
) -> None:
    for seed in range(3):
        variant = replace(sensor, call_s=call_s)
        assert seen(card.work(1, 39, seed), variant, name).counter == "independent"


def test_straying_from_a_mean_over_a_second_shows_nothing() -> None:
    """Any counter strays from it, also the sum of the readings that it is not made from."""
    sensor = card.Sensor(window_s=0.025, average_s=1.0, counter_from="samples")
    samples = card.record(card.steps(40), sensor, 40, name=H100)
    rows = card.rows_of(card.steps(40), sensor, 40)
    alone = [row for row in rows if row.quantity != "power_instant_w"]
    (info,) = samples.header.sensors
    info = replace(info, quantities=("energy_counter_j", "power_average_w"))
    assert open_device(card.recording(alone, info), info).behaviour.counter == "unverified"


def test_what_a_probe_found_stands_unless_the_recording_contradicts_it() -> None:
    sums = replace(card.H100, counter_from="samples")
    for sensor, own in ((card.H100, "independent"), (sums, "sum")):
        samples = card.record(card.steps(40), sensor, 40, name=H100)
        (info,) = samples.header.sensors
        flat = card.record(card.constant(250.0), sensor, 40, name=H100)
        for said in ("independent", "sum"):
            earlier = Behaviour(said, 0.1)
            assert open_device(flat, info, earlier).behaviour.counter == said
            expected = said if said == own else "unverified"
            assert open_device(samples, info, earlier).behaviour.counter == expected


@pytest.mark.parametrize("lag_s", [0.0, 0.005, 0.02, 0.03, 0.05, 0.1])
def test_a_counters_lag_is_found_within_three_ms_or_not_at_all(lag_s: float) -> None:
    """As late as a reading's period a counter looks like their sum."""
    for seed in range(3):
        behaviour = probed(replace(card.H100, counter_lag_s=lag_s), seed=seed)
        is_found = behaviour.counter_lag_s is not None
        assert is_found or lag_s > 0.02
        assert not is_found or lag_s < 0.1
        if is_found:
            assert behaviour.counter_lag_s == pytest.approx(lag_s, abs=0.003)
        else:
            assert behaviour.counter == "unverified"


@pytest.mark.parametrize(
    ("update_s", "window_s"), [(0.1, 0.025), (0.1, 0.1), (0.1, 1.0), (0.05, 0.05)]
)
@pytest.mark.parametrize("counter_s", [0.1, None])
def test_periods_and_windows_are_found_within_ten_percent(
    update_s: float, window_s: float, counter_s: float | None
) -> None:
    windows_s = []
    for seed in range(5):
        sensor = card.Sensor(update_s, window_s, 0.013 + 0.007 * seed, counter_s=counter_s)
        behaviour = probed(sensor, UNKNOWN, seed)
        (channel,) = behaviour.power
        assert channel.source == "found"
        assert channel.update_period_s == pytest.approx(update_s, rel=0.05)
        period_s = behaviour.counter_period_s
        assert period_s == (None if counter_s is None else pytest.approx(0.1, rel=0.01))
        windows_s.append(channel.window_s)
    # A step falls into a short window seldom: a single probe has few of those.
    assert np.median(windows_s) == pytest.approx(window_s, rel=0.05)
    assert np.array(windows_s) == pytest.approx(np.full(5, window_s), rel=0.1)


@pytest.mark.parametrize("call_s", [0.002, 0.004])
def test_slow_calls_do_not_hide_the_windows(call_s: float) -> None:
    behaviour = probed(replace(card.H100, call_s=call_s), seed=0)
    instant, average = behaviour.power
    assert instant.window_s == pytest.approx(0.025, rel=0.25)
    assert average.window_s == pytest.approx(1.0, rel=0.02)


def test_where_the_steps_show_no_window_what_is_published_stands() -> None:
    samples = card.record(card.constant(250.0), card.H100, name=H100)
    behaviour = characterise(samples, card.UUID)
    assert [part.source for part in behaviour.power] == ["published", "published"]
    assert behaviour.counter == "unverified"


def test_constant_power_shows_nothing() -> None:
    samples = card.record(card.constant(250.0), card.Sensor(window_s=0.025))
    behaviour = characterise(samples, card.UUID)
    assert (behaviour.counter, behaviour.is_informative) == ("unverified", False)
    (readings,) = behaviour.power
    assert (readings.window_s, readings.share_seen) == (None, None)


@pytest.mark.parametrize("window_s", [0.025, 0.1])
def test_an_even_ramp_shows_nothing_of_the_counter(window_s: float) -> None:
    """Moved in time by the reading's age, the readings of a ramp sum up to any counter."""
    edges_s = np.arange(-10.0, 14.0, 0.001)
    power_w = np.interp(edges_s, [4.0, 6.0, 9.0], [100.0, 400.0, 250.0])
    ramp = card.Power(edges_s.tolist(), power_w.tolist())
    assert seen(ramp, card.Sensor(window_s=window_s), UNKNOWN, 12).counter == "unverified"


def test_a_counter_ahead_of_the_readings_is_no_sum_of_them() -> None:
    """Steps in step with the ticks: the readings of one period sum up to the counter, later."""
    edges_s = [2.0 + 0.5 * number for number in range(60)]
    power = card.Power([-10.0, *edges_s], [60.0, *[400.0, 60.0] * 30])
    assert seen(power, card.Sensor(), UNKNOWN).counter != "sum"


def test_pulses_in_step_with_the_readings_are_not_taken_for_averaging() -> None:
    """A 25 ms window on 33 ms pulses rises and falls like a mean over most of a second."""
    power = card.square(0.033, 100, 400, 60, 0.4)
    samples = card.record(power, card.Sensor(window_s=0.025, counter_s=None))
    assert characterise(samples, card.UUID).power[0].window_s is None


@pytest.mark.parametrize(
    ("name", "quantity", "window_s", "source"),
    [
        (H100, "power_instant_w", 0.025, "published"),
        (H100, "power_usage_w", 1.0, "published"),
        (A100, "power_usage_w", 0.025, "published"),
        (A100, "power_average_w", 0.025, "published"),
        (H200, "power_average_w", 1.0, "documented"),
    ],
)
def test_windows_are_published_by_card_and_channel(
    name: str, quantity: Quantity, window_s: float, source: str
) -> None:
    found = published_behaviour(name, quantity)
    assert (found.window_s, found.source) == (window_s, source)
    assert published_behaviour(H200, "power_instant_w") is None
