"""What differs between a record and its recomputation, of today's method and of earlier ones."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from llenergymeasure.analysis.recompute import _calibration, _check_earlier_method, differences
from llenergymeasure.config.calibration import read_calibration
from llenergymeasure.results.energy import Energy, Reading
from llenergymeasure.results.layout import RunFolder

RECORD = Path("result.json")


@pytest.mark.parametrize(
    ("off", "differs"), [(0.0, False), (1e-12, False), (1e-8, True), (0.1, True)]
)
def test_a_figure_that_is_off_by_more_than_rounding_is_named(off: float, differs: bool) -> None:
    recorded = {"energy": {"readings": [{"gross_j": 1.0}, {"gross_j": 2.0}]}}
    fresh = {"energy": {"readings": [{"gross_j": 1.0}, {"gross_j": 2.0 * (1 + off)}]}}
    found = [each.figure for each in differences(RECORD, recorded, fresh)]
    assert found == ["energy.readings[1].gross_j"] * differs


@pytest.mark.parametrize(
    ("recorded", "fresh"), [(1.0, None), (None, 0.0), ("a", "b"), ([1], [1, 2]), ({"a": 1}, {})]
)
def test_what_only_one_of_the_two_has_is_a_difference(recorded: object, fresh: object) -> None:
    assert len(list(differences(RECORD, recorded, fresh))) == 1


RUN = RunFolder(Path("run"))


def energy(power_j: float, u95_j: float, headline: str) -> Energy:
    """An RTX 3090 of 1000 J by its counter."""
    values = {"counter": (1000.0, 1.0), "power": (power_j, u95_j)}
    readings = [
        Reading(
            device="GPU-1",
            sensor="nvml",
            kind="measured",
            scope="gpu",
            channel=channel,
            headline=channel == headline,
            gross_j=gross_j,
            gross_u95_j=half_j,
        )
        for channel, (gross_j, half_j) in values.items()
    ]
    gross_j, half_j = values[headline]
    return Energy(kind="measured", source="nvml", readings=readings, gross_j=gross_j, u95_j=half_j)


@pytest.mark.parametrize("headline", ["counter", "power"])
def test_power_readings_of_before_method_6_may_differ_beyond_their_intervals(headline: str) -> None:
    old, new = energy(999.09, 1.53, headline), energy(1016.53, 2.49, headline)
    assert list(_check_earlier_method(RUN, old, new)) == []
    false = energy(1100.0, 1.53, headline)
    found = {each.figure for each in _check_earlier_method(RUN, false, new)}
    shown = {"energy.readings[1].gross_j"} | ({"energy.gross_j"} if headline == "power" else set())
    assert found == shown


def test_a_headline_of_before_is_held_against_the_channel_that_it_was_of() -> None:
    """Method 9 takes the readings where a counter adds up means: it was off by up to 13 %."""
    old, new = energy(1130.0, 2.0, "counter"), energy(1130.0, 2.0, "power")
    assert list(_check_earlier_method(RUN, old, new)) == []
    false = old.model_copy(update={"gross_j": 1130.0})
    (found,) = _check_earlier_method(RUN, false, new)
    assert (found.figure, found.recomputed) == ("energy.gross_j", 1000.0)


def test_the_gains_are_those_that_the_run_had_whatever_became_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    gains = {
        name: {"gain": gain, "u_gain_rel": 0.01, "source": "a meter"}
        for name, gain in (("GPU-1", 0.9), ("cpu:package-0", 1.1))
    }
    path.write_text(json.dumps({"gpus": gains}))
    used = read_calibration(path).for_record([("GPU-1", "a card")])
    result = SimpleNamespace(
        provenance={"calibration": used}, config={"energy": {"calibration": str(path)}}
    )
    # As it was: also what the record does not name, as those of before, which named cards alone.
    assert {name: each.gain for name, each in _calibration(result).gains.items()} == {
        "GPU-1": 0.9,
        "cpu:package-0": 1.1,
    }
    gains["GPU-1"]["gain"] = 0.8
    for content in (json.dumps({"gpus": gains}), "no calibration", None):
        path.unlink() if content is None else path.write_text(content)
        assert {name: each.gain for name, each in _calibration(result).gains.items()} == {
            "GPU-1": 0.9
        }
    assert _calibration(SimpleNamespace(provenance={}, config={})) is None
