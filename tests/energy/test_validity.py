"""Reasons to doubt an energy: each fault found, and nothing blamed without cause."""

import re
from dataclasses import replace

import numpy as np
import pytest

from energy.metering import telemetry, window_ns
from llenergymeasure.energy.account import account
from llenergymeasure.recording.samples import SampleRow
from llenergymeasure.validity_codes import DISQUALIFYING
from support import energy_card as card

LOAD = card.steps(60)
WINDOW = window_ns(20, 40)
H100 = card.info(name="NVIDIA H100 80GB HBM3", quantities=card.H100.quantities)
ROWS = card.rows_of(LOAD, card.H100, 60)
WORK = card.work(3, 58)
SUM = card.Sensor(window_s=0.025, counter_from="samples")


def codes(rows: list[SampleRow], window: tuple[int, int] = WINDOW, **more) -> dict[str, str]:
    return dict(account(card.recording(rows, H100), window, **more).validity)


@pytest.mark.parametrize("off", [{"gain": 1.05}, {"offset_w": 15.0}, {"counter_gain": 0.95}])
def test_channels_that_differ_are_a_mismatch(off: dict[str, float]) -> None:
    validity = codes(card.rows_of(LOAD, replace(card.H100, **off), 60))
    assert set(validity) & DISQUALIFYING == {"channel_mismatch"}
    assert "differ by" in validity["channel_mismatch"]


@pytest.mark.parametrize("start_s", np.arange(20.0, 22.0, 0.13))
def test_a_short_window_is_not_blamed_for_its_ends(start_s: float) -> None:
    validity = codes(ROWS, window_ns(start_s, start_s + 0.35))
    assert "channel_mismatch" not in validity
    assert "0.35 s are short for this sensor" in validity["short_window"]


@pytest.mark.parametrize("period_s", [0.033, 0.101])
def test_an_aliasing_channel_over_some_beats_is_no_mismatch(period_s: float) -> None:
    power = card.square(period_s, 100, 400, 60)
    rows = card.rows_of(power, card.Sensor(window_s=0.025), 60)
    assert "channel_mismatch" not in codes(rows, window_ns(20, 55))


def test_a_window_long_enough_is_not_short() -> None:
    assert "short_window" in codes(ROWS, window_ns(20, 21))
    assert "short_window" not in codes(ROWS)
    assert "short_window" in codes(ROWS, precision=1e-4)


POWER_ROWS = card.rows_of(LOAD, card.Sensor(counter_s=None), 60)


def test_silence_of_power_readings_longer_than_their_pace_allows_is_a_gap() -> None:
    silent = [row for row in POWER_ROWS if not card.ns(28) < row.t_ns < card.ns(30)]
    validity = account(card.recording(silent), WINDOW).validity
    assert re.search(r"no power_instant_w for 2\.\d+ s", validity["sample_gap"])
    hiccup = [row for row in POWER_ROWS if not card.ns(28) < row.t_ns < card.ns(28.4)]
    assert "sample_gap" not in account(card.recording(hiccup), WINDOW).validity


def test_a_gap_of_a_counter_loses_nothing_and_is_no_code() -> None:
    silent = [row for row in ROWS if not card.ns(28) < row.t_ns < card.ns(30)]
    result = account(card.recording(silent, H100), WINDOW)
    assert result.validity == {}
    (reading,) = result.headline
    assert abs(reading.gross_j - float(LOAD.energy(20, 40))) <= reading.gross_u95_j


def test_a_recorder_that_ended_in_the_window_is_lost() -> None:
    early = [row for row in ROWS if row.t_ns < card.ns(35)]
    assert "recorder_lost" in codes(early)
    result = account(card.recording(early, H100), WINDOW, recorder_lost=True)
    assert "the recorder was lost" in result.validity["recorder_lost"]
    assert result.energy().gross_j is None


def test_a_recorder_that_died_after_the_window_took_nothing_with_it() -> None:
    late = [row for row in ROWS if row.t_ns < card.ns(41.5)]
    assert codes(late, recorder_lost=True) == {}


IN_WINDOW_S = range(20, 40)
MINER = telemetry("stranger_pid", {30.0: 4711.0, 31.0: 4711.0}, note="miner")


@pytest.mark.parametrize(
    ("code", "says", "rows"),
    [
        ("other_process", "4711 (miner)", MINER),
        ("other_process", None, telemetry("stranger_pid", {10.0: 4711.0}, note="miner")),
        ("other_process", None, [replace(row, device="GPU-9") for row in MINER]),
        ("graphics_process", "815 (game)", telemetry("graphics_pid", {30.0: 815.0}, note="game")),
        ("graphics_process", None, telemetry("graphics_pid", {10.0: 815.0})),
        (
            "throttled",
            "software thermal slowdown in 50 %",
            telemetry("throttle_reasons", {t: 0x20 if t % 2 else 0x1 for t in IN_WINDOW_S}),
        ),
        ("throttled", None, telemetry("throttle_reasons", dict.fromkeys(IN_WINDOW_S, 0x1))),
        (
            "temperature_drift",
            "°C",
            telemetry("temperature_celsius", {t: 40.0 + t / 2 for t in IN_WINDOW_S}),
        ),
        (
            "temperature_drift",
            None,
            telemetry("temperature_celsius", {t: 60.0 + t % 2 for t in IN_WINDOW_S}),
        ),
    ],
    ids=[
        *("a stranger", "a stranger before", "a stranger elsewhere", "a game", "a game before"),
        *("throttled", "idle", "warming", "steady"),
    ],
)
def test_what_happens_to_the_card_in_the_window_is_named(
    code: str, says: str | None, rows: list[SampleRow]
) -> None:
    validity = codes(ROWS + rows)
    assert (code in validity) == (says is not None)
    assert says is None or says in validity[code]


def test_a_slice_of_a_card_has_the_energy_of_all_of_it_and_a_code() -> None:
    validity = account(card.recording(ROWS, replace(H100, mig=True)), WINDOW).validity
    assert "the whole card" in validity["mig_slice"]
    assert "mig_slice" in DISQUALIFYING


@pytest.mark.parametrize("name", ["Some new card", "NVIDIA A100-SXM4-80GB"])
def test_a_counter_of_which_nothing_is_shown_is_unverified(name: str) -> None:
    rows = card.rows_of(card.constant(250.0), card.Sensor(window_s=0.025), 60)
    result = account(card.recording(rows, card.info(name=name)), WINDOW)
    assert set(result.validity) == {"counter_unverified"}
    (reading,) = result.headline
    assert abs(reading.gross_j - 5000.0) <= reading.gross_u95_j < 0.01 * reading.gross_j
    assert reading.bound_j > 0.5 * reading.gross_j
    bound = f"off by up to ±{100 * reading.bound_j / reading.gross_j:.0f} %"
    assert bound in result.validity["counter_unverified"]


@pytest.mark.parametrize("load", [card.constant(250.0), card.square(0.1, 100, 400, 60, 0.3)])
def test_readings_that_see_all_bound_what_a_counter_may_have_missed(load: card.Power) -> None:
    result = account(card.recording(card.rows_of(load, card.H100, 60), H100), WINDOW)
    assert set(result.validity) == {"counter_unverified"}
    assert "in step" not in result.validity["counter_unverified"]
    (reading,) = result.headline
    assert abs(reading.gross_j - float(load.energy(20, 40))) <= reading.gross_u95_j
    assert reading.gross_u95_j < reading.bound_j < 0.01 * reading.gross_j


def test_power_alone_of_an_unknown_card_is_undersampled() -> None:
    rows = card.rows_of(card.constant(250.0), card.Sensor(counter_s=None), 60)
    assert "undersampled" in account(card.recording(rows), WINDOW).validity


ZEUS = card.info(sensor="zeus", quantities=("energy_counter_j",))


def by_zeus(rows: list[SampleRow]) -> list[SampleRow]:
    return [replace(row, sensor="zeus") for row in rows if row.quantity == "energy_counter_j"]


@pytest.mark.parametrize("sensor", ["nvml", "zeus"])
@pytest.mark.parametrize("at_s", [20.0, 21.3, 22.7, 24.1])
def test_a_counter_without_any_readings_may_be_the_sum_of_some(sensor: str, at_s: float) -> None:
    for load in (card.work(3, 58), card.square(0.0947, 130.0, 400.0, 60, duty=0.3)):
        rows = card.counter_rows(load, SUM, 60)
        info = ZEUS if sensor == "zeus" else card.info(quantities=("energy_counter_j",))
        samples = card.recording(by_zeus(rows) if sensor == "zeus" else rows, info)
        result = account(samples, (card.ns(at_s), card.ns(at_s + 7)))
        assert set(result.validity) == {"counter_unverified"}
        (reading,) = result.headline
        off_j = abs(reading.gross_j - float(load.energy(at_s, at_s + 7)))
        assert off_j <= reading.gross_u95_j < reading.bound_j


@pytest.mark.parametrize("mig", [False, True])
@pytest.mark.parametrize(
    ("sensor", "load"),
    [
        *[(each, WORK) for each in (SUM, replace(SUM, counter_from="true"), card.H100)],
        (replace(SUM, counter_from="true", counter_gain=0.9), card.constant(250.0)),
    ],
)
def test_a_card_s_counter_is_no_surer_by_zeus_than_by_nvml(
    sensor: card.Sensor, load: card.Power, mig: bool
) -> None:
    rows = card.rows_of(load, sensor, 60)
    info = card.info(quantities=sensor.quantities, mig=mig)
    hot = telemetry("temperature_celsius", {20.0 + i: 50.0 + i for i in range(20)})
    samples = card.recording([*rows, *by_zeus(rows), *hot], info, ZEUS)
    plain, requested = (account(samples, WINDOW, headline=name) for name in ("nvml", "zeus"))
    assert requested.headline[0].sensor == "zeus"
    assert requested.validity == plain.validity
    assert "temperature_drift" in requested.validity
    assert [each.channel for each in requested.readings if each.sensor == "zeus"] == ["counter"]
    for name in ("gross_j", "gross_u95_j", "shared_u95_j", "bound_j"):
        assert getattr(requested.total, name) == getattr(plain.total, name)


def test_loads_of_any_period_are_in_the_interval_and_those_in_step_in_the_bound() -> None:
    rng = np.random.default_rng(3)
    covered = []
    for period_s in np.exp(rng.uniform(np.log(0.005), np.log(0.2), 10)):
        load = card.square(float(period_s), 130.0, 400.0, 40, duty=float(rng.uniform(0.2, 0.8)))
        samples = card.record(load, SUM, 40.0)
        for at_s in np.arange(4.0, 32.0, 7.0):
            (reading,) = account(samples, (card.ns(at_s), card.ns(at_s + 5))).headline
            off_j = abs(reading.gross_j - float(load.energy(at_s, at_s + 5)))
            covered.append(off_j <= reading.gross_u95_j)
    assert np.mean(covered) >= 0.93
    for period_s, off_rel in ((0.1, 0.14), (0.05, 0.14), (0.02, 0.09)):  # docs/method.md has these
        load = card.square(period_s, 130.0, 400.0, 40, duty=0.4)
        result = account(card.record(load, SUM, 40.0), WINDOW)
        true_j = float(load.energy(20, 40))
        off_j = abs(result.total.gross_j - true_j)
        assert off_j / true_j == pytest.approx(off_rel, abs=0.005)
        assert result.total.gross_u95_j < 0.005 * true_j
        assert off_j <= result.total.bound_j
        assert "off by up to ±" in result.validity["counter_unverified"]
