"""Another release of an engine than the one that a study was checked against."""

from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.run.preflight.checks import check_engine_version


def experiment(backend: str = "sglang", **values: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "tiny-llama", "backend": backend, **values})


def test_another_release_is_said_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang" / "__init__.py").touch()
    installed = tmp_path / "sglang-9.9.2.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 9.9.2\n")
    (installed / "top_level.txt").write_text("sglang\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (problem,) = check_engine_version(experiment())
    assert not problem.fatal
    assert problem.message.startswith("sglang 9.9.2, installed here, is not the 0.5")


@pytest.mark.parametrize("backend", ["pytorch", "tensorrt"], ids=["the same", "not here"])
def test_nothing_is_said_of_the_same_release_or_of_what_is_not_here(backend: str) -> None:
    assert list(check_engine_version(experiment(backend))) == []
