"""What a probe has found of a card: kept, found again, and what follows from it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from energy import metering
from energy.metering import KEY, metered, probed
from llenergymeasure.energy.account import account
from llenergymeasure.sensors.known_behaviour import (
    Behaviour,
    Characterisation,
    PowerBehaviour,
    load_characterised,
    resolution,
    save_characterised,
    store_folder,
)
from support import energy_card as card

H100 = card.info(name=metering.H100, driver="570.1", quantities=card.H100.quantities)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LLEM_CACHE", str(tmp_path / "cache"))


FOUND = Characterisation.now(H100, probed(card.H100))


def test_what_is_kept_is_found_again_under_the_same_driver_alone() -> None:
    assert load_characterised([H100]) == {}
    assert save_characterised(FOUND)
    assert load_characterised([H100]) == {KEY: FOUND}
    assert load_characterised([replace(H100, driver="580.1")]) == {}
    assert load_characterised([replace(H100, device="GPU-2")]) == {}
    assert load_characterised([replace(H100, unavailable="gone")]) == {}


def test_a_later_probe_replaces_the_earlier() -> None:
    assert save_characterised(FOUND)
    later = replace(FOUND, behaviour=Behaviour("sum", 0.1), found_at="2030-01-01T00:00:00+00:00")
    assert save_characterised(later)
    assert load_characterised([H100]) == {KEY: later}


def test_a_device_by_any_name_stays_within_the_folder() -> None:
    assert save_characterised(replace(FOUND, device="../../elsewhere"))
    (path,) = store_folder().iterdir()
    assert path.parent == store_folder()


@pytest.mark.parametrize(
    "content", ["{", "[]", "null", json.dumps({"format_version": 1}), json.dumps({"a": 1})]
)
def test_a_damaged_or_older_file_is_as_good_as_none(content: str) -> None:
    assert save_characterised(FOUND)
    (path,) = store_folder().iterdir()
    document = json.loads(path.read_text())
    for text in (
        content,
        json.dumps({**document, "unknown": 1}),
        json.dumps({**document, "power": 1}),
    ):
        path.write_text(text)
        assert load_characterised([H100]) == {}


def test_a_place_that_cannot_be_written_to_costs_no_more(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLEM_CACHE", str(tmp_path / "file"))
    assert not save_characterised(FOUND)
    assert load_characterised([H100]) == {}


def test_an_ordinary_run_leaves_nothing_behind() -> None:
    samples = card.recording(card.rows_of(card.steps(30), card.H100, 30), H100)
    assert account(samples, (card.ns(5), card.ns(25))).gpus[0]["counter"] == "independent"
    assert load_characterised([H100]) == {}
    assert not store_folder().exists()


def test_only_what_a_recording_would_not_show_by_itself_says_something() -> None:
    part = PowerBehaviour("power_instant_w", 0.1, 0.025, "published")
    assert not Behaviour("unverified", 0.1, None, (part,)).is_informative
    assert Behaviour("unverified", 0.1, None, (replace(part, source="found"),)).is_informative
    assert Behaviour("sum").is_informative


@pytest.mark.parametrize(
    ("update_s", "window_s", "share"),
    [(0.1, 0.025, 0.25), (0.1, 0.093, 1.0), (0.1, 1.0, 1.0), (None, 1.0, None), (0.1, None, None)],
)
def test_the_share_of_time_that_readings_see(
    update_s: float | None, window_s: float | None, share: float | None
) -> None:
    assert PowerBehaviour("power_instant_w", update_s, window_s, "found").share_seen == share


def test_a_sum_of_sparse_readings_is_not_believed_once_it_is_known() -> None:
    """50 Hz in step with a 25 ms window: 15 % off for ever, and nothing recorded shows it."""
    begins_s = np.arange(-5.0, 46.0, 0.02)
    edges_s = np.column_stack((begins_s + 0.008, begins_s + 0.018)).ravel()
    power = card.Power([-10.0, *edges_s], [60.0, *np.tile([440.0, 60.0], len(begins_s))])
    sensor = replace(card.H100, average_s=None, counter_from="samples")
    options = {"window_s": (20.0, 40.0), "name": metering.UNKNOWN, "margins": False, "after_s": 5}

    alone = metered(power, sensor, **options)
    assert alone.codes == {"counter_unverified"}
    result = metered(power, sensor, known=probed(sensor), **options)
    assert result.codes == {"undersampled"}
    assert result.off_j > 0.1 * result.true_j
    for window in (alone, result):
        assert window.off_j <= window.reading.bound_j


@pytest.mark.parametrize(
    ("window_s", "counter_from"),
    [(0.025, "true"), (0.1, "true"), (0.1, "samples"), (0.1, None), (1.0, None)],
)
@pytest.mark.parametrize("level_w", [120.0, 400.0])
def test_a_window_as_long_as_was_foretold_is_not_short(
    window_s: float, counter_from: str | None, level_w: float
) -> None:
    """Where the sensor sees all of the time; cut as llem cuts windows, between two rests."""
    sensor = card.Sensor(window_s=window_s, counter_s=0.1 if counter_from else None)
    sensor = replace(sensor, counter_from=counter_from or "true")
    behaviour = probed(sensor)
    needed_s = resolution(replace(H100, quantities=sensor.quantities), behaviour).window_s(0.02)
    assert needed_s < 60
    start_s, end_s = 5.0, 5.0 + needed_s
    load = card.square(0.7, level_w - 50, level_w + 50, end_s, 0.4)
    inside = [step for step in zip(load.edges_s, load.levels_w, strict=True) if step[0] > start_s]
    steps = [(-10.0, 60.0), (start_s, level_w), *(step for step in inside if step[0] < end_s)]
    power = card.Power(*zip(*steps, (end_s, 60.0), strict=True))
    window = metered(power, sensor, (start_s, end_s), known=behaviour)
    assert "short_window" not in window.codes
    assert window.is_covered


def test_what_a_sensor_resolves_is_known_of_known_cards_alone() -> None:
    assert resolution(H100, Behaviour()) is None
    assert resolution(H100, FOUND.behaviour).window_s(0.02) == pytest.approx(1.0, rel=0.01)
    alone = replace(H100, quantities=("power_average_w",))
    part = PowerBehaviour("power_average_w", 0.1, 1.0, "published")
    # Half a period and half a window, of 2 % of the window.
    assert resolution(alone, Behaviour(power=(part,))).window_s(0.02) == pytest.approx(27.5)
