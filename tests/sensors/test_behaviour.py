"""What is kept of a card's sensor, and what it changes in later recordings."""

import json
from dataclasses import replace

import numpy as np
import pytest
from llenergymeasure.meter.characters import Known, keep, load_known, reconciled, store_folder
from llenergymeasure.meter.shortest import expected_resolution, known_resolution

from llenergymeasure.energy.account import account
from llenergymeasure.energy.characterise import Character, PowerCharacter, characterise
from llenergymeasure.recording.samples import Samples
from support import energy_card as card

INFO = card.info(driver="570.1", quantities=("energy_counter_j", "power_instant_w"))
WINDOW = (card.ns(20), card.ns(40))
FLAT = card.constant(250.0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LLEM_CACHE", str(tmp_path / "cache"))


def recorded(power: card.Power, sensor: card.Sensor, end_s: float = 60.0) -> Samples:
    return card.recording(card.rows_of(power, sensor, end_s), INFO)


def probed(sensor: card.Sensor) -> Known:
    """What a probe finds of a card."""
    load = card.steps(60)
    edges_ns = [card.ns(edge_s) for edge_s in load.edges_s[1:]]
    found = characterise(recorded(load, sensor), card.UUID, "nvml")
    if not found.counter_independent:
        found = characterise(recorded(load, sensor), card.UUID, "nvml", edges_ns)
    return Known.now(INFO, found, "probe", (60.0, 500.0))


def test_what_is_kept_is_found_again_under_the_same_driver_alone() -> None:
    known = probed(card.Sensor(window_s=0.025))
    assert keep(known)
    assert load_known([INFO]) == {("nvml", card.UUID): known}
    assert load_known([replace(INFO, driver="580.1")]) == {}
    assert load_known([replace(INFO, device="GPU-2")]) == {}
    assert load_known([replace(INFO, unavailable="gone")]) == {}


def test_a_damaged_file_is_as_good_as_none() -> None:
    assert keep(probed(card.Sensor()))
    (path,) = store_folder().iterdir()
    for content in ("{", "[]", json.dumps({"format_version": 1}), json.dumps({"a": 1})):
        path.write_text(content)
        assert load_known([INFO]) == {}


def test_a_recording_never_replaces_a_probe_and_only_a_fuller_one_another() -> None:
    empty = Character(0.1, None, 1.0, 0.0, (PowerCharacter("power_instant_w", 0.1, None, "found"),))
    half = replace(empty, counter_independent=True)
    full = replace(half, power=(PowerCharacter("power_instant_w", 0.1, 0.025, "found"),))

    def from_run(character: Character) -> Known:
        return Known.now(INFO, character, "recording", (60.0, 500.0))

    assert not keep(from_run(empty))
    assert keep(from_run(half))
    assert not keep(from_run(half))
    assert keep(from_run(full))
    assert not keep(from_run(half))
    assert keep(probed(card.Sensor()))
    assert not keep(from_run(full))


def test_a_place_that_cannot_be_written_to_costs_no_more(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLEM_CACHE", str(tmp_path / "file"))
    assert not keep(probed(card.Sensor()))
    assert load_known([INFO]) == {}


def test_a_counter_that_sums_sparse_samples_is_not_taken_at_its_word_once_it_is_known() -> None:
    """50 Hz in step with a 25 ms window: 15 % off for ever, and nothing recorded says so."""
    begins = np.arange(-5.0, 46.0, 0.02)
    edges = np.column_stack((begins + 0.008, begins + 0.018)).ravel()
    power = card.Power([-10.0, *edges], [60.0, *np.tile([440.0, 60.0], len(begins))])
    sensor = card.Sensor(window_s=0.025, counter_from="samples")
    samples = recorded(power, sensor, 45)
    true_j = float(power.energy(20, 40))

    alone = account(samples, WINDOW)
    assert alone.validity == {}
    assert abs(alone.total.gross_j - true_j) > 10 * alone.total.u95_j

    keep(probed(sensor))
    known = account(samples, WINDOW, known=load_known(samples.header.sensors))
    assert "undersampled" in known.validity
    assert abs(known.total.gross_j - true_j) <= known.total.u95_j
    assert known.gpus[0]["counter_independent"] is False
    assert known.gpus[0]["characterised"].startswith("a probe, ")


def test_an_independent_counter_of_a_little_seeing_card_is_trusted_once_it_is_known() -> None:
    info = replace(INFO, name="NVIDIA A100-SXM4-80GB")
    sensor = card.Sensor(window_s=0.025)
    samples = card.recording(card.rows_of(FLAT, sensor, 60), info)
    assert "undersampled" in account(samples, WINDOW).validity
    known = {("nvml", card.UUID): probed(sensor)}
    assert account(samples, WINDOW, known=known).validity == {}


def test_paces_are_the_recordings_own_and_a_contradiction_is_told() -> None:
    known = probed(card.Sensor(update_s=0.1, window_s=0.025))
    other = characterise(recorded(card.steps(60), card.Sensor(0.05, 0.05)), card.UUID, "nvml")
    found, notes = reconciled(known, other)
    assert found.power[0].update_period_s == pytest.approx(0.05, rel=0.01)
    assert found.power[0].window_s == other.power[0].window_s
    assert "renewed each 0.05 s in this recording" in notes[0]


def test_two_recordings_that_differ_on_the_counter_leave_the_less_favourable() -> None:
    sums = probed(card.Sensor(window_s=0.025, counter_from="samples")).character
    own = probed(card.Sensor(window_s=0.025)).character
    for before, found in ((sums, own), (own, sums)):
        run = Known.now(INFO, before, "recording", (60.0, 500.0))
        character, notes = reconciled(run, found)
        assert character.counter_independent is False
        assert "contradicts" in notes[0]
        character, _ = reconciled(replace(run, found_by="probe"), found)
        assert character.counter_independent is before.counter_independent


@pytest.mark.parametrize("window_s", [0.025, 0.1, 1.0])
@pytest.mark.parametrize("counter", ["true", "samples", None])
@pytest.mark.parametrize("level_w", [120.0, 180.0, 400.0])
def test_a_window_as_long_as_was_foretold_is_not_short(
    window_s: float, counter: str | None, level_w: float
) -> None:
    sensor = card.Sensor(window_s=window_s, counter_s=None if counter is None else 0.1)
    sensor = replace(sensor, counter_from=counter or "true")
    quantities = INFO.quantities if counter else ("power_instant_w",)
    known = probed(sensor)
    resolution = expected_resolution(
        replace(INFO, quantities=quantities), known.character, (known.low_w, known.high_w)
    )
    needed_s = resolution.window_s(0.02)
    assert needed_s < 60
    power = card.square(0.7, level_w - 50, level_w + 50, needed_s + 10, 0.4)
    info = replace(INFO, quantities=quantities)
    samples = card.recording(card.rows_of(power, sensor, needed_s + 10), info)
    start_s, end_s = 4.0, 4.0 + needed_s
    if counter == "true":
        # Where a counter is, windows are cut at its ticks.
        start_s, end_s = 4.0374, 4.0374 + 0.1 * np.ceil(needed_s / 0.1)
    made = account(samples, (card.ns(start_s), card.ns(end_s)), known={("nvml", card.UUID): known})
    assert "short_window" not in made.validity


def test_what_is_known_of_a_card_is_told_before_a_recording() -> None:
    assert known_resolution(INFO) is None
    keep(probed(card.Sensor()))
    assert known_resolution(INFO).window_s(0.02) == pytest.approx(1.0, rel=0.01)
    published = replace(INFO, name="NVIDIA H100 PCIe", quantities=("power_instant_w",), device="x")
    assert known_resolution(published).window_s(0.02) > 1.0
    assert known_resolution(replace(INFO, unavailable="gone")) is None
