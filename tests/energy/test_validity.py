"""Reasons to doubt an energy: each fault found, and nothing blamed without cause."""

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.energy.account import account
from llenergymeasure.recording.samples import Row
from llenergymeasure.units import DISQUALIFYING
from support import energy_card as card

LOAD = card.steps(60)
WINDOW = (card.ns(20), card.ns(40))
ROWS = card.rows_of(LOAD, card.Sensor(), 60)


def codes(rows: list[Row], window: tuple[int, int] = WINDOW, **more) -> dict[str, str]:
    return dict(account(card.recording(rows), window, **more).validity)


def telemetry(quantity: str, values: dict[float, float], note: str | None = None) -> list[Row]:
    return [
        Row(card.ns(t), card.UUID, "nvml", quantity, value, note=note)
        for t, value in values.items()
    ]


def test_a_good_run_has_no_codes() -> None:
    assert codes(ROWS) == {}


@pytest.mark.parametrize("sensor", [card.Sensor(gain=1.05), card.Sensor(offset_w=15.0)])
def test_channels_that_differ_are_a_mismatch(sensor: card.Sensor) -> None:
    found = codes(card.rows_of(LOAD, sensor, 60))
    assert set(found) == {"channel_mismatch"}
    assert "differ by" in found["channel_mismatch"]
    assert set(found) <= DISQUALIFYING


def test_a_mismatch_is_seen_where_the_sensor_sees_little() -> None:
    sensor = card.Sensor(window_s=0.025, gain=1.6)
    power = card.Power([-10, *np.arange(1, 15, 0.77), 16], [60, *[400, 60] * 9, 400, 90])
    found = codes(card.rows_of(power, sensor, 60))
    assert "channel_mismatch" in found


def test_within_the_gate_channels_may_differ() -> None:
    assert codes(card.rows_of(LOAD, card.Sensor(gain=1.015), 60)) == {}


@pytest.mark.parametrize("start_s", np.arange(20.0, 22.0, 0.13))
def test_a_short_window_is_not_blamed_for_its_ends(start_s: float) -> None:
    found = codes(ROWS, (card.ns(start_s), card.ns(start_s + 0.35)))
    assert "channel_mismatch" not in found
    assert "needed" in found["short_window"]


@pytest.mark.parametrize("period_s", [0.033, 0.101])
def test_an_aliasing_channel_over_some_beats_is_no_mismatch(period_s: float) -> None:
    power = card.square(period_s, 100, 400, 60)
    rows = card.rows_of(power, card.Sensor(window_s=0.025), 60)
    assert "channel_mismatch" not in codes(rows, (card.ns(20), card.ns(55)))


def test_a_window_long_enough_is_not_short() -> None:
    assert "short_window" in codes(ROWS, (card.ns(20), card.ns(21)))
    assert "short_window" not in codes(ROWS, (card.ns(20), card.ns(40)))
    assert "short_window" in codes(ROWS, (card.ns(20), card.ns(40)), precision=1e-3)


def test_a_sensor_that_sees_part_of_the_time_is_undersampled() -> None:
    """A quarter of the time, in step with a 50 Hz load, shows 15 % too much for ever."""
    power = card.Power(
        [*card.steps(20).edges_s[:12], 22, *(22 + np.arange(0.008, 78, 0.01))],
        [*card.steps(20).levels_w[:12], 60, *np.tile([440.0, 60.0], 3900)],
    )
    sensor = card.Sensor(window_s=0.025, counter_from="samples")
    made = account(card.recording(card.rows_of(power, sensor, 98)), (card.ns(30), card.ns(90)))
    true_j = float(power.energy(30, 90))
    reading = made.headline[0]
    assert abs(reading.gross_j / true_j - 1) > 0.1
    assert abs(reading.gross_j - true_j) <= reading.u95_j
    assert "undersampled" in made.validity


def test_an_independent_counter_is_not_undersampled() -> None:
    rows = card.rows_of(LOAD, card.Sensor(window_s=0.025), 60)
    assert "undersampled" not in codes(rows)


def test_silence_longer_than_the_pace_allows_is_a_gap() -> None:
    silent = [row for row in ROWS if not card.ns(28) < row.t_ns < card.ns(30)]
    found = codes(silent)
    assert "sample_gap" in found
    assert "for 2.10 s" in found["sample_gap"]
    hiccup = [row for row in ROWS if not card.ns(28) < row.t_ns < card.ns(28.4)]
    assert "sample_gap" not in codes(hiccup)


def test_a_gap_leaves_the_counted_energy_whole() -> None:
    silent = [row for row in ROWS if not card.ns(28) < row.t_ns < card.ns(30)]
    made = account(card.recording(silent), WINDOW)
    assert made.headline[0].gross_j == pytest.approx(float(LOAD.energy(20, 40)), rel=0.01)


def test_a_recorder_that_ended_early_is_lost() -> None:
    early = [row for row in ROWS if row.t_ns < card.ns(35)]
    assert "recorder_lost" in codes(early)
    assert "recorder_lost" in codes(ROWS, recorder_lost=True)


def test_a_stranger_in_the_window_is_named() -> None:
    stranger = telemetry("stranger_pid", {30.0: 4711.0, 31.0: 4711.0}, note="miner")
    found = codes(ROWS + stranger)
    assert "4711 (miner)" in found["other_process"]
    before = telemetry("stranger_pid", {10.0: 4711.0}, note="miner")
    assert "other_process" not in codes(ROWS + before)
    elsewhere = [replace(row, device="GPU-9") for row in stranger]
    assert "other_process" not in codes(ROWS + elsewhere)


def test_throttling_says_why_and_how_long() -> None:
    masks = {20.0 + i: 0x20 if i % 2 else 0x1 for i in range(20)}
    found = codes(ROWS + telemetry("throttle_reasons", masks))
    assert "software thermal slowdown in 50%" in found["throttled"]
    idle = telemetry("throttle_reasons", dict.fromkeys(masks, 1.0))
    assert "throttled" not in codes(ROWS + idle)


def test_warming_in_the_window_is_marked() -> None:
    warming = telemetry("temperature_celsius", {20.0 + i: 50.0 + i / 2 for i in range(20)})
    assert "°C" in codes(ROWS + warming)["temperature_drift"]
    steady = telemetry("temperature_celsius", {20.0 + i: 60.0 + i % 2 for i in range(20)})
    assert "temperature_drift" not in codes(ROWS + steady)


def test_a_counter_is_taken_at_its_word_where_nothing_speaks_against_it() -> None:
    rows = card.rows_of(card.constant(250.0), card.Sensor(), 60)
    made = account(card.recording(rows), WINDOW)
    assert made.validity == {}
    assert made.headline[0].u95_j < 0.01 * made.headline[0].gross_j


def test_a_counter_of_a_card_known_to_see_little_needs_proof() -> None:
    rows = card.rows_of(card.constant(250.0), card.Sensor(window_s=0.025), 60)
    made = account(card.recording(rows, card.info(name="NVIDIA A100-SXM4-80GB")), WINDOW)
    assert "undersampled" in made.validity
    assert made.headline[0].u95_j > 0.5 * made.headline[0].gross_j


def test_power_alone_of_an_unknown_card_is_undersampled() -> None:
    rows = card.rows_of(card.constant(250.0), card.Sensor(counter_s=None), 60)
    assert "undersampled" in codes(rows)
