"""What real cards and their drivers get wrong: covered by the interval, or a code."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from energy.metering import (
    A100,
    H100,
    H200,
    RTX_3090,
    UNKNOWN,
    at_any_phase,
    counter_rows,
    metered,
    of_samples,
    probed,
    telemetry,
    window_ns,
)
from llenergymeasure.energy.account import account
from llenergymeasure.energy.device import USUAL_LAG_S, open_device
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.known_behaviour import Behaviour
from llenergymeasure.validity_codes import DISQUALIFYING
from support import energy_card as card

START_S, END_S = 5.0, 15.0
WINDOW = window_ns(START_S, END_S)
WORK = card.work(START_S, END_S)
EVEN = card.Power([-10.0, START_S, END_S], [60.0, 400.0, 60.0])
SUM_OF_QUARTERS = card.Sensor(window_s=0.025, average_s=1.0, counter_from="samples")
READINGS_ALONE = card.Sensor(counter_s=None)


def test_work_between_two_rests_lies_in_its_interval_whatever_the_phases() -> None:
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        start_s = 4 + rng.uniform(0, 0.1)
        end_s = start_s + rng.uniform(1, 6)
        power = card.work(start_s, end_s, seed, rest_w=rng.uniform(40, 120))
        sensor = replace(
            at_any_phase(card.H100, rng),
            counter_lag_s=rng.uniform(0, 0.1),
            call_s=rng.uniform(1e-4, 3e-3),
        )
        window = metered(power, sensor, (start_s, end_s))
        covered.append(window.is_covered)
        assert window.off_j <= window.reading.bound_j
        assert window.off_j < 0.002 * window.true_j
        assert window.reading.gross_u95_j <= window.reading.bound_j
    assert np.mean(covered) >= 0.95


PULSES = card.square(0.1, 180, 480, 30, 0.37)


@pytest.mark.parametrize("name", [H100, H200])
@pytest.mark.parametrize("phase_s", [0.0, 0.02, 0.04, 0.06, 0.08])
def test_a_counter_that_sums_quarters_of_a_load_in_step_with_them_is_not_believed(
    name: str, phase_s: float
) -> None:
    """Instant 25 of 100 ms and pulses of 100 ms: the counter is off by up to 45 % for ever."""
    sensor = replace(SUM_OF_QUARTERS, phase_s=phase_s, counter_phase_s=0.04)
    window = metered(PULSES, sensor, (20.0, 25.0), name=name, margins=False)
    assert window.off_j > 0.1 * window.true_j
    assert window.is_covered
    assert window.codes & DISQUALIFYING == {"channel_mismatch"}


def test_a_true_counter_of_the_same_card_under_the_same_load_is_not_blamed() -> None:
    window = metered(PULSES, card.H100, (20.0, 25.0), margins=False)
    assert window.off_j < 2e-3 * window.true_j
    assert window.is_covered
    assert not window.codes & DISQUALIFYING


@pytest.mark.parametrize("counter_from", ["true", "samples"])
@pytest.mark.parametrize("name", [UNKNOWN, A100])
def test_a_card_that_cannot_tell_is_unverified_and_its_interval_holds(
    name: str, counter_from: str
) -> None:
    """Few steps show nothing of the counter; the readings' scatter bounds what it misses."""
    covered = []
    for seed in range(12):
        edges_s = np.cumsum(np.random.default_rng(seed).uniform(0.6, 1.4, 8))
        power = card.Power([-10.0, *edges_s], [200.0, *[400.0, 200.0] * 4])
        sensor = card.Sensor(window_s=0.025, counter_from=counter_from, phase_s=0.008 * seed)
        window = metered(power, sensor, (0.5, 6.5), name=name, margins=False)
        assert "counter_unverified" in window.codes
        covered.append(window.is_covered)
        assert window.off_j <= window.reading.bound_j
    assert np.mean(covered) >= 0.9


@pytest.mark.parametrize("margins", [False, True])
@pytest.mark.parametrize("with_probe", [False, True])
def test_a_counter_that_may_hold_readings_is_late_by_what_the_window_shows(
    with_probe: bool, margins: bool
) -> None:
    """From rest to work and back a late counter gains nothing at one end and loses at the other."""
    sensor = card.Sensor(average_s=1.0, counter_from="samples")
    known = probed(sensor, RTX_3090) if with_probe else None
    covered = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        start_s, end_s = 5 + rng.uniform(0, 0.1), 10 + rng.uniform(0, 0.1)
        work_w = rng.uniform(250, 450)
        # The rest lasts as long as the margin alone.
        edges_s = [-10.0, start_s - 0.36, start_s, end_s, end_s + 0.36]
        power = card.Power(edges_s, [300.0, 90.0, work_w, 95.0, 300.0])
        phases = at_any_phase(sensor, rng)
        options = {"name": RTX_3090, "margins": margins, "known": known}
        covered.append(metered(power, phases, (start_s, end_s), **options).is_covered)
    # Not probed it is said to be unverified, and may be off by just what its interval holds.
    assert np.mean(covered) >= (0.9 if with_probe or margins else 0.75)


@pytest.mark.parametrize("power_w", [75.0, 300.0])
@pytest.mark.parametrize("span_s", [2.0, 3.3])
def test_constant_power_of_a_characterised_card_is_exact(power_w: float, span_s: float) -> None:
    sensor, name = card.Sensor(average_s=1.0, counter_from="samples"), "NVIDIA GeForce RTX 4090"
    known = probed(sensor, name)
    assert known.counter == "sum"
    options = {"name": name, "margins": False, "known": known}
    window = metered(card.constant(power_w), sensor, (5.0, 5.0 + span_s), **options)
    for reading in window.result.readings:
        assert reading.gross_j == pytest.approx(window.true_j, rel=5e-4)
        assert abs(reading.gross_j - window.true_j) <= reading.gross_u95_j
    assert window.reading.gross_u95_j < 0.01 * window.true_j
    assert window.codes <= {"short_window"}


LOST = {"recorder_stops": [(7.0, 1.0)], "counter_jumps": ((7.5, 10.0 - 400.0),)}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"counter_resets_s": (9.27,)}, "counter_reset"),
        ({"counter_jumps": ((7.3, 80.0), (11.7, 80.0))}, "counter_jump"),
        # While the recorder stands still: more than a card draws, or 10 J in place of 400.
        ({"recorder_stops": [(7.2, 0.4)], "counter_jumps": ((7.3, 1000.0),)}, "counter_jump"),
        (LOST, "counter_jump"),
        ({**LOST, "average_s": None, "window_s": 0.1}, "counter_jump"),
        # What a card may draw, and what was before the window.
        ({"counter_jumps": ((7.3, 1.0),)}, None),
        ({"counter_resets_s": (2.27,), "counter_jumps": ((3.3, 80.0),)}, None),
    ],
    ids=["reset", "jump", "in a pause", "lost in one", "lost, no average", "small", "before"],
)
def test_a_counter_that_starts_over_or_jumps_in_the_window_is_a_code(
    fault: dict[str, Any], code: str | None
) -> None:
    window = metered(EVEN, replace(card.H100, **fault))
    assert window.codes & {"counter_reset", "counter_jump"} == ({code} if code else set())
    if "recorder_stops" not in fault:
        assert window.off_j < 0.1 * window.true_j


def test_a_late_counter_that_starts_over_before_it_has_counted_the_work_is_a_code() -> None:
    """The end is a step of the margin's, and what was drawn before it is lost."""
    late, known = replace(card.H100, counter_lag_s=0.08), Behaviour("independent", 0.1, 0.08)
    started, later = (
        metered(WORK, replace(late, counter_resets_s=(END_S + after_s,)), known=known)
        for after_s in (0.06, 0.4)
    )
    assert not started.is_covered
    assert "counter_reset" in started.codes
    assert "counter_reset" not in later.codes


def test_a_counter_that_starts_over_shows_nothing_of_what_it_counts() -> None:
    """Held against readings, the step that it lost makes a sum of them look like none."""
    sensor = card.Sensor(window_s=0.025, counter_from="samples", counter_resets_s=(28.1,))
    samples = card.record(card.steps(45, seed=3), sensor, 45)
    result = account(samples, window_ns(20, 25))
    assert result.gpus[0]["counter"] == "unverified"
    assert set(result.validity) == {"counter_unverified"}


@pytest.mark.parametrize("call_s", [0.0001, 0.001, 0.003])
def test_a_recorder_that_gets_no_time_to_run_makes_no_counter_jump(call_s: float) -> None:
    """It stops between two reads, and within one: then a value is new long before it is noted."""
    codes = set()
    power = card.Power([-10.0, START_S, END_S], [60.0, 490.0, 60.0])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        stops = [(at_s, rng.uniform(0.02, 0.19)) for at_s in np.arange(3.0, 12.0, 0.2)]
        phase_s = rng.uniform(0, 0.1)
        sensor = replace(card.H100, call_s=call_s, counter_phase_s=phase_s, recorder_stops=stops)
        codes |= metered(power, sensor).codes
    assert "counter_jump" not in codes


@pytest.mark.parametrize("gain", [1.08, 0.9])
def test_where_channels_clearly_disagree_the_interval_reaches_the_other(gain: float) -> None:
    window = metered(WORK, replace(card.H100, counter_gain=gain))
    assert "channel_mismatch" in window.codes
    assert window.is_covered
    assert window.reading.shared_u95_j >= abs(gain - 1) * window.true_j
    assert window.reading.bound_j >= window.reading.gross_u95_j


def few_pulses(seed: int) -> card.Power:
    """A card that mostly rests: the curve through a counter's steps is far off at each pulse."""
    rng = np.random.default_rng(seed)
    begins_s = START_S + 0.2 + np.cumsum(rng.exponential(0.5, 40) + 0.12)
    begins_s = begins_s[begins_s < END_S - 0.3]
    ends_s = begins_s + rng.uniform(0.02, 0.1, len(begins_s))
    edges_s = np.column_stack((begins_s, ends_s)).ravel()
    return card.Power([-10.0, *edges_s], [60.0, *np.tile([420.0, 60.0], len(begins_s))])


@pytest.mark.parametrize("call_s", [0.0001, 0.003])
@pytest.mark.parametrize("jump_j", [8.0, 20.0, 45.0])
def test_energy_that_no_step_shows_to_be_too_much_lies_in_the_interval(
    jump_j: float, call_s: float
) -> None:
    """Three steps are higher than they should be, and a card may draw as much."""
    jumps = tuple((at_s, jump_j) for at_s in (8.0, 10.0, 12.0))
    sensor = replace(card.H100, call_s=call_s, counter_jumps=jumps)
    for seed in range(4):
        assert metered(few_pulses(seed), sensor, margins=False).is_covered


@pytest.mark.parametrize("gain", [1.018, 1.008, 0.992])
def test_a_difference_of_the_channels_below_the_gate_lies_in_the_interval(gain: float) -> None:
    for seed in range(8):
        window = metered(few_pulses(seed), replace(card.H100, counter_gain=gain), margins=False)
        assert window.is_covered
        assert window.reading.gross_u95_j < 2 * abs(gain - 1) * window.reading.gross_j
        assert "channel_mismatch" not in window.codes


@pytest.mark.parametrize("lag_s", [0.01, 0.03, 0.05])
def test_a_lag_in_a_loads_midst_lies_in_the_interval(lag_s: float) -> None:
    """No rest is next to the ends, no probe has found the lag, and the 1 s average shows it."""
    covered = []
    for seed in range(12):
        sensor = replace(card.H100, counter_lag_s=lag_s, counter_phase_s=0.007 * seed)
        window = metered(card.work(3.0, 17.0, seed), sensor, margins=False)
        covered.append(window.is_covered)
        assert window.off_j <= window.reading.bound_j
    assert np.mean(covered) >= 0.9


def test_channels_that_agree_do_not_widen_a_true_counters_interval() -> None:
    shared = []
    for seed in range(20):
        sensor = replace(card.H100, counter_phase_s=0.005 * seed)
        reading = metered(few_pulses(seed), sensor, margins=False).reading
        shared.append(reading.shared_u95_j / reading.gross_j)
    assert np.mean(np.array(shared) > 1e-6) <= 0.2
    assert max(shared) < 0.006


def test_readings_of_nothing_are_left_out_and_noted() -> None:
    window = metered(WORK, replace(card.H100, zero_every=20))
    assert window.off_j < 1e-4 * window.true_j
    assert not window.codes & DISQUALIFYING
    (gpu,) = window.result.gpus
    assert any("readings of 0 W or less by power_average_w" in note for note in gpu["notes"])
    assert metered(WORK, replace(READINGS_ALONE, zero_every=20)).is_covered
    always = metered(WORK, card.Sensor(gain=0))
    assert always.is_covered
    assert always.reading.channel == "counter"


def test_a_counter_that_stands_for_some_seconds_and_catches_up_loses_nothing() -> None:
    window = metered(WORK, replace(card.H100, counter_stalls=((8.0, 11.0),)))
    assert window.off_j < 1e-4 * window.true_j
    assert window.is_covered


@pytest.mark.parametrize(
    ("fault", "shown_j"),
    [
        ({"counter_stalls": ((-9.0, 99.0),)}, np.full(180, 77.0)),
        ({"counter_gain": -1.0}, 900.0 - np.arange(180)),
    ],
    ids=["stands still", "runs backwards"],
)
def test_a_counter_that_stands_still_gives_no_number_but_a_reason(
    fault: dict[str, Any], shown_j: np.ndarray
) -> None:
    """Next to readings, these are the energy."""
    window = metered(WORK, card.Sensor(average_s=1.0, **fault))
    assert window.reading.channel == "power"
    assert window.is_covered
    info = card.info(quantities=("energy_counter_j",))
    rows = counter_rows(0.1 * np.arange(1, 181), shown_j)
    result = account(card.recording(rows, info), WINDOW)
    assert result.total is None
    assert result.energy(100, 100, 10).per_output_token_j is None
    assert result.energy().unavailable


@pytest.mark.parametrize(
    ("sensor", "reason"),
    [
        (replace(READINGS_ALONE, gain=0), "power_instant_w was 0 all along"),
        (card.Sensor(gain=0, counter_from="samples"), "power_instant_w was 0 all along"),
        (replace(READINGS_ALONE, gain=-1.0), ""),
    ],
    ids=["0 W", "0 W and 0 J", "below 0 W"],
)
def test_a_card_that_says_0_w_has_no_energy_and_a_reason(sensor: card.Sensor, reason: str) -> None:
    result = metered(WORK, sensor).result
    assert result.total is None
    assert result.energy(100, 100, 10).per_output_token_j is None
    assert result.energy().unavailable
    assert reason in result.energy().unavailable


LARGEST_MODULE = card.info(f"module:{card.UUID}", scope="module", quantities=("power_instant_w",))


@pytest.mark.parametrize(
    ("power", "sensor", "info", "says"),
    [
        (WORK, replace(READINGS_ALONE, gain=0, offset_w=1000), None, "1000 W in the mean"),
        (WORK, replace(READINGS_ALONE, gain=0, offset_w=3700), None, "3700 W in the mean"),
        # Watts in place of milliwatts, joules of millijoules.
        (WORK, replace(READINGS_ALONE, gain=1e-3), None, ""),
        (WORK, replace(card.H100, gain=1e-3, counter_gain=1e-3), None, ""),
        (card.constant(5.0), card.H100, None, None),
        # A device whose limit is not known draws no kilowatts.
        (card.constant(8000.0), READINGS_ALONE, LARGEST_MODULE, ""),
        (card.constant(900.0), READINGS_ALONE, LARGEST_MODULE, None),
    ],
)
def test_a_power_that_no_card_draws_disqualifies(
    power: card.Power, sensor: card.Sensor, info: SensorInfo | None, says: str | None
) -> None:
    info = info or card.info(name=H100, quantities=sensor.quantities)
    rows = card.rows_of(power, sensor, END_S + 3, info.device)
    validity = account(card.recording(rows, info), WINDOW).validity
    assert ("impossible_power" in validity) == (says is not None)
    assert says is None or says in validity["impossible_power"]
    assert "impossible_power" in DISQUALIFYING


@pytest.mark.parametrize("channels", [{}, {"average_s": 1.0, "window_s": 0.025}])
@pytest.mark.parametrize("window_s", [(START_S, END_S), (START_S, START_S + 4)])
@pytest.mark.parametrize("works", [True, False])
def test_a_power_that_is_frozen_disqualifies(
    channels: dict[str, float], window_s: tuple[float, float], works: bool
) -> None:
    """It says what the card drew at rest, all along, and its interval would be of no width.

    Where nothing worked it may be true: a card at rest, in whole watts.
    """
    alive = replace(READINGS_ALONE, **channels)
    frozen = replace(alive, gain=0, offset_w=60.0)
    used = telemetry(
        "utilization_gpu_percent",
        {at / 2: 90.0 * (works and START_S <= at / 2 < END_S) for at in range(36)},
    )
    rows = card.rows_of(WORK, frozen, END_S + 3) + used
    samples = card.recording(rows, card.info(quantities=frozen.quantities))
    validity = account(samples, window_ns(*window_s)).validity
    assert ("stayed the same" in validity.get("sample_gap", "")) == works
    assert "sample_gap" not in metered(WORK, alive, window_s).codes


def test_a_card_that_draws_the_same_all_along_is_not_frozen() -> None:
    assert "sample_gap" not in metered(EVEN, READINGS_ALONE).codes


@pytest.mark.parametrize(("step_w", "disqualifies"), [(0.013, True), (1.0, False)])
def test_fine_readings_that_stand_still_amid_a_window_are_frozen(
    step_w: float, disqualifies: bool
) -> None:
    """Coarse ones say nothing: a card at its limit is shown so."""
    values_w = {0.1 * at: 300 + step_w * (min(at, 80) % 3) for at in range(300)}
    rows = telemetry("power_instant_w", values_w)
    samples = card.recording(rows, card.info(quantities=("power_instant_w",)))
    assert ("sample_gap" in account(samples, window_ns(5, 25)).validity) == disqualifies


@pytest.mark.parametrize("call_s", [0.001, 0.003, 0.005])
@pytest.mark.parametrize("counter_from", ["true", "samples"])
def test_slow_calls_make_no_number_wrong(call_s: float, counter_from: str) -> None:
    window = metered(WORK, replace(card.H100, counter_from=counter_from, call_s=call_s))
    assert window.is_covered
    if counter_from == "samples":
        assert window.result.gpus[0]["counter"] != "independent"


TICKS_S = np.arange(0.0, 10.0, 0.05)


@pytest.mark.parametrize(
    ("values_j", "codes"),
    [
        (np.where(TICKS_S < 4, 1000 + 40 * TICKS_S, 40 * (TICKS_S - 4)), {"counter_reset"}),
        (40 * TICKS_S + np.where(TICKS_S < 4, 0, 2**32 / 1e6), {"counter_jump"}),
        (
            40 * TICKS_S + np.where(TICKS_S < 4, 0, 2**32 / 1e3),
            {"counter_jump", "impossible_power"},
        ),
        (40 * TICKS_S, set()),
        (8000 * TICKS_S, {"impossible_power"}),
    ],
    ids=["starts over", "jumps", "jumps far", "well", "another unit"],
)
def test_a_package_counter_of_no_known_limit_has_a_code(
    values_j: np.ndarray, codes: set[str]
) -> None:
    info = card.info("cpu:package-0", "rapl", scope="cpu", quantities=("energy_counter_j",))
    rows = counter_rows(TICKS_S, values_j, info.device, "rapl")
    result = account(card.recording(rows, info), window_ns(2, 8), devices=())
    assert set(result.validity) == codes
    if codes <= {"counter_reset"}:
        assert result.total.gross_j == pytest.approx(240.0, rel=0.02)


def warmed(start_s: float, end_s: float, seed: int) -> card.Power:
    """Return work before a window too, with a rest of 0.4 s between the two."""
    before, within = card.work(3.0, start_s - 0.4, seed), card.work(start_s, end_s, seed + 99)
    return card.Power(
        [*before.edges_s, *list(within.edges_s)[1:]], [*before.levels_w, *list(within.levels_w)[1:]]
    )


@pytest.mark.parametrize("lag_s", [0.06, 0.1])
@pytest.mark.parametrize("span_s", [1.0, 2.0])
def test_a_counter_that_is_late_is_no_mismatch_in_a_short_window(
    lag_s: float, span_s: float
) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        start_s = 7 + rng.uniform(0, 0.1)
        power = warmed(start_s, start_s + span_s, seed)
        sensor = at_any_phase(replace(card.H100, counter_lag_s=lag_s), rng)
        window = metered(power, sensor, (start_s, start_s + span_s))
        assert "channel_mismatch" not in window.codes
        assert window.is_covered


def test_a_sum_of_part_time_samples_is_covered_in_a_window_of_a_second_or_two() -> None:
    silent = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        start_s = 8 + rng.uniform(0, 0.1)
        end_s = start_s + rng.uniform(1, 2)
        sensor = at_any_phase(SUM_OF_QUARTERS, rng)
        power = card.work(3.0, end_s + 2.5, seed)
        window = metered(power, sensor, (start_s, end_s), margins=False)
        silent.append(not window.is_covered and not window.codes & DISQUALIFYING)
    assert np.mean(silent) <= 0.05


def test_a_constant_cards_noise_is_no_lag() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        edges_s, noise_w = np.arange(-4.9, 25, 0.01), rng.normal(0, 0.2, 2990)
        power = card.Power([-10.0, *edges_s], 300 + np.r_[0, noise_w])
        samples = card.record(power, replace(card.H100, phase_s=rng.uniform(0, 0.1)), 20, name=H100)
        known = Behaviour("independent", 0.1, None, ())
        device = open_device(samples, samples.header.sensors[0], known)
        assert device.counter is not None
        assert device.counter.delay_s == USUAL_LAG_S


@pytest.mark.parametrize("sensor", [card.H100, SUM_OF_QUARTERS])
def test_a_window_of_no_length_has_no_energy_and_is_no_crash(sensor: card.Sensor) -> None:
    samples = card.record(card.constant(300.0), sensor, 11, name=H100)
    result = account(samples, window_ns(8.0, 8.0))
    assert all(reading.gross_j is None for reading in result.readings)


def _adds_up_means(power: card.Power, phase_s: float, name: str, *, zeus: bool = False) -> Samples:
    """A card whose counter adds up means over a second, next to instant readings and these."""
    sensor = card.Sensor(average_s=1.0, phase_s=phase_s)
    means = replace(sensor, window_s=1.0, counter_from="samples")
    mine = card.info(quantities=sensor.quantities, name=name)
    counted = card.counter_rows(power, means, END_S + 5)
    rows = card.power_rows(power, sensor, END_S + 5) + counted
    if not zeus:
        return card.recording(rows, mine)
    by_zeus = replace(mine, sensor="zeus", quantities=("energy_counter_j",))
    return card.recording([*rows, *(replace(row, sensor="zeus") for row in counted)], mine, by_zeus)


@pytest.mark.parametrize(("name", "most_off"), [(RTX_3090, 0.005), (UNKNOWN, 0.03)])
@pytest.mark.parametrize("margins", [False, True])
def test_a_counter_that_adds_up_means_over_a_second_is_not_the_headline(
    name: str, most_off: float, margins: bool
) -> None:
    """It lost what it counts after the work's end: 4 % of 10 s, outside the interval in half."""
    covered = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        start_s = START_S + rng.uniform(0, 0.1)
        power = card.work(start_s, END_S, seed)
        samples = _adds_up_means(power, rng.uniform(0, 0.1), name)
        window = of_samples(samples, power, (start_s, END_S), margins=margins)
        assert window.reading.channel == "power"
        assert "channel_mismatch" not in window.codes
        assert window.off_j < most_off * window.reading.gross_j
        assert window.off_j <= window.reading.bound_j
        covered.append(window.is_covered)
    assert np.mean(covered) >= 0.93


def test_zeus_has_no_readings_in_place_of_a_counter_that_adds_up_means_and_nvml_s_judge_it() -> (
    None
):
    covered = []
    for seed in range(8):
        power = card.work(START_S, START_S + 3, seed)
        phase_s = np.random.default_rng(seed).uniform(0, 0.1)
        samples = _adds_up_means(power, phase_s, RTX_3090, zeus=True)
        window = of_samples(samples, power, (START_S, START_S + 3), headline="zeus")
        assert (window.reading.sensor, window.reading.channel) == ("zeus", "counter")
        covered.append(window.is_covered and "channel_mismatch" in window.codes)
    assert np.mean(covered) >= 0.7


@pytest.mark.parametrize("counter_from", ["true", "samples"])
@pytest.mark.parametrize("sensor", [card.H100, card.Sensor(average_s=1.0)])
def test_a_counter_that_does_not_is_the_headline_next_to_them(
    sensor: card.Sensor, counter_from: str
) -> None:
    for seed in range(8):
        cards = at_any_phase(
            replace(sensor, counter_from=counter_from), np.random.default_rng(seed)
        )
        samples = card.record(card.work(START_S, END_S, seed), cards, END_S + 3, name=H100)
        assert not open_device(samples, samples.header.sensors[0]).adds_up_means
    even = card.record(card.constant(300), sensor, END_S, name=H100)
    assert not open_device(even, even.header.sensors[0]).adds_up_means
