"""Calibration files read strictly, and what a study's own does to its experiments' ids."""

import json
import math
from pathlib import Path

import pytest

from llenergymeasure.config.calibration import UNCALIBRATED_GAIN_BAND, read_calibration
from llenergymeasure.config.loading import study_from_mapping
from llenergymeasure.errors import ConfigurationError

CARD = {"gain": 0.95, "u_gain_rel": 0.01, "source": "power meter, 2026-01-05"}


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_calibration_is_found_by_uuid_before_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calibration{suffix}"
    path.write_text(json.dumps({"gpus": {"GPU-1": CARD, "A100": {**CARD, "gain": 1.02}}}))
    calibration = read_calibration(path)
    assert calibration.of("GPU-1", "A100").gain == 0.95
    assert calibration.of("GPU-2", "A100").gain == 1.02
    assert calibration.of("GPU-2", "H100").band == UNCALIBRATED_GAIN_BAND


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
