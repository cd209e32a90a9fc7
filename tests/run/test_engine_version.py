"""Another release of an engine than the one that a study was checked against."""

from pathlib import Path
from typing import Any

import pytest

from catalogue.releases import SGLANG, unpack
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.run.preflight import engine_version
from llenergymeasure.run.preflight.engine_version import check_engine_version


def experiment(backend: str = "sglang", **values: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": "tiny-llama", "backend": backend, **values})


def told(config: ExperimentConfig) -> dict[str | None, tuple[str, bool]]:
    return {each.key: (each.message, each.fatal) for each in check_engine_version(config)}


@pytest.fixture
def other_sglang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(unpack(SGLANG, tmp_path)))


@pytest.mark.usefixtures("other_sglang")
def test_another_release_is_told_in_the_record() -> None:
    message, fatal = told(experiment())["backend"]
    assert not fatal
    assert "sglang 9.9.2, installed here, is not the" in message
    assert "engine.stops" in message
    assert "missing" in message


@pytest.mark.usefixtures("other_sglang")
def test_a_setting_it_lacks_is_an_error_before_any_gpu_time() -> None:
    found = told(experiment(sglang={"engine": {"chunked_prefill_size": 512}}))
    message, fatal = found["sglang.engine.chunked_prefill_size"]
    assert fatal
    assert message.startswith("sglang 9.9.2, installed here, has no such setting; remove it, or")


def test_a_setting_it_has_otherwise_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_version, "find_spec", lambda _: True)
    monkeypatch.setattr(
        engine_version,
        "running_differences",
        lambda _: {
            "catalogue_version": "2",
            "engine_version": "1",
            "added": [],
            "removed": [],
            "altered": {"engine.block_size": "default 16, now 32"},
        },
    )
    found = told(experiment("vllm", vllm={"engine": {"block_size": 16}}))
    assert found["vllm.engine.block_size"] == (
        "vllm 1, installed here, has it otherwise: default 16, now 32",
        False,
    )


def test_the_release_of_the_catalogue_needs_no_word() -> None:
    pytest.importorskip("transformers")
    assert told(experiment("pytorch")) == {}


def test_an_engine_that_is_not_here_is_not_looked_for() -> None:
    assert told(experiment("tensorrt")) == {}
