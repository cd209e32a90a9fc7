"""Calibration files read strictly, and what a study's own does to its experiments' ids."""

import json
import math
from pathlib import Path

import pytest

from llenergymeasure.config.calibration import read_calibration
from llenergymeasure.config.sensor_gain import GAIN_BAND, uncalibrated_gain
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import study_from_mapping

CARD = {"gain": 0.95, "u_gain_rel": 0.01, "source": "power meter, 2026-01-05"}


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_calibration_is_found_by_uuid_before_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calibration{suffix}"
    path.write_text(json.dumps({"gpus": {"GPU-1": CARD, "A100": {**CARD, "gain": 1.02}}}))
    calibration = read_calibration(path)
    assert calibration.gain_for("GPU-1", "A100").gain == 0.95
    assert calibration.gain_for("GPU-2", "A100").gain == 1.02
    assert calibration.gain_for("GPU-2", "H100").band == GAIN_BAND


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"gpus": {"GPU-1": {**CARD, "gain": "big"}}}, "gpus.GPU-1.gain"),
        ({"gpus": {"GPU-1": {**CARD, "gain": 12}}}, "gpus.GPU-1.gain"),
        ({"gpus": {"GPU-1": {**CARD, "u_gain_rel": -0.1}}}, "gpus.GPU-1.u_gain_rel"),
        ({"gpus": {"GPU-1": {**CARD, "u_gain_rel": math.nan}}}, "gpus.GPU-1.u_gain_rel"),
        ({"gpus": {"GPU-1": {"gain": 1, "u_gain_rel": 0.1}}}, "gpus.GPU-1.source"),
        ({"gpus": {"GPU-1": {**CARD, "gian": 1}}}, "gpus.GPU-1.gian"),
        ({"gpus": {}}, "gpus"),
        ({"cards": {}}, "gpus"),
        ([], "gpus"),
    ],
)
def test_a_bad_calibration_names_file_and_key(tmp_path: Path, content: object, key: str) -> None:
    path = tmp_path / "calibration.yaml"
    path.write_text(json.dumps(content).replace("NaN", ".nan"))
    with pytest.raises(ConfigurationError) as caught:
        read_calibration(path)
    assert caught.value.problems[0].file == path
    assert key in {problem.key for problem in caught.value.problems}


def test_a_missing_calibration_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_calibration(tmp_path / "none.yaml")


def study_id(**energy: object) -> str:
    (experiment,) = study_from_mapping({"model": "tiny-llama", "energy": energy}).experiments
    return experiment.id


def test_a_calibration_counts_by_its_content(tmp_path: Path) -> None:
    one, copy, other = (tmp_path / name for name in ("one.yaml", "copy.yaml", "other.yaml"))
    for path, gain in ((one, 0.95), (copy, 0.95), (other, 0.96)):
        path.write_text(json.dumps({"gpus": {"A100": {**CARD, "gain": gain}}}))
    ids = [study_id(calibration=str(path)) for path in (one, copy, other)]
    assert ids[0] == ids[1]
    assert len({*ids, study_id()}) == 3


@pytest.mark.parametrize("content", [None, "gpus: {}", "gpus: {A100: {gain: 1}}", "a: [b"])
def test_a_study_with_a_bad_calibration_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"energy\.calibration") as caught:
        study_id(calibration=str(path))
    assert "mine.yaml" in str(caught.value)


def test_an_offset_is_taken_off_for_as_long_as_the_window_is(tmp_path: Path) -> None:
    path = tmp_path / "gains.yaml"
    gain = {"gain": 1.044, "offset_w": -22.6, "u_gain_rel": 0.03, "source": "a meter"}
    path.write_text(json.dumps({"gpus": {"GPU-1": gain}}))
    gain = read_calibration(path).gain_for("GPU-1", "any")
    true_w, span_s = 300.0, 7.0
    indicated_j = (1.044 * true_w - 22.6) * span_s
    assert gain.true_energy_j(indicated_j, span_s) == pytest.approx(true_w * span_s)


def test_the_published_gains_can_be_used_and_are_those_of_single_kinds_of_cards() -> None:
    path = Path(__file__).parents[2] / "config" / "published_gains.yaml"
    calibration = read_calibration(path)
    assert len(calibration.gains) == 12  # five of the 16 cards are of one kind
    # At 250 W the RTX 4090's gain and offset make the energy error that was published, -5.3 %.
    card = calibration.gain_for("GPU-x", "NVIDIA GeForce RTX 4090")
    assert card.true_energy_j(250.0, 1.0) / 250.0 == pytest.approx(1 / (1 - 0.0527), abs=0.02)
    # A card of another kind is not corrected.
    assert calibration.gain_for("GPU-x", "NVIDIA H100 80GB HBM3").gain == 1.0


@pytest.mark.parametrize(
    ("device", "name", "band"),
    [
        ("GPU-1", "NVIDIA H100 80GB HBM3", 0.08),
        ("GPU-1", "NVIDIA GeForce RTX 4090", 0.08),
        ("GPU-1", "NVIDIA GeForce RTX 2060 SUPER", 0.13),
        ("GPU-1", "Tesla P100-PCIE-16GB", 0.13),
        ("GPU-1", "Tesla V100-SXM2-32GB", 0.13),
        ("GPU-1", "Tesla T4", 0.13),
        ("GPU-1", "NVIDIA T1000 8GB", 0.13),
        ("GPU-1", "NVIDIA A10", 0.08),
        ("GPU-1", "NVIDIA RTX 2000 Ada Generation", 0.08),
        ("module:GPU-1", "NVIDIA GH200 480GB", 0.08),
        ("cpu:package-0", "cpu:package-0 (package-0)", 0.05),
    ],
)
def test_the_band_without_a_calibration_is_what_published_cards_show(
    device: str, name: str, band: float
) -> None:
    assert uncalibrated_gain(device, name).band == band


def test_a_card_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gains.yaml"
    one = "  GPU-1: {gain: 1.05, u_gain_rel: 0.01, source: meter}\n"
    path.write_text(f"gpus:\n{one}{one.replace('1.05', '0.95')}")
    with pytest.raises(ConfigurationError, match="is given twice"):
        read_calibration(path)
