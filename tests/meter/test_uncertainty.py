"""Components to one interval, and calibrations read strictly."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.meter.uncertainty import (
    UNCALIBRATED_GAIN_BAND,
    Component,
    expanded,
    read_calibration,
)


def test_one_bounded_effect_is_never_wider_than_its_bound() -> None:
    assert expanded([Component.bounded("end", 2.0)]) == pytest.approx(2.0)


def test_effects_add_in_quadrature() -> None:
    parts = [Component("one", 3.0), Component("other", 4.0)]
    assert expanded(parts) == pytest.approx(1.96 * 5.0)


def test_nothing_unsure_is_no_interval() -> None:
    assert expanded([]) == 0.0


limits = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=4)


@given(limits, st.lists(st.floats(0.0, 3.0), max_size=2))
def test_more_effects_never_narrow_the_interval(limits_j: list[float], free_j: list[float]) -> None:
    parts = [Component.bounded("b", limit) for limit in limits_j]
    parts += [Component("f", standard) for standard in free_j]
    assert expanded(parts) <= expanded([*parts, Component("more", 1.0)]) + 1e-12
    assert expanded(parts[:-1]) <= expanded(parts) + 1e-12


@pytest.mark.parametrize("limits_j", [(1.0,), (1.0, 1.0), (1.0, 0.3), (1.0, 1.0, 1.0), (2.0, 0.1)])
def test_uniform_errors_are_covered(limits_j: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    errors = sum(rng.uniform(-limit, limit, 100_000) for limit in limits_j)
    half = expanded(Component.bounded("b", limit) for limit in limits_j)
    assert np.mean(np.abs(errors) <= half) >= 0.95


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
