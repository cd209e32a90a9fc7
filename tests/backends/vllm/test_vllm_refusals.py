"""The real vLLM is asked what it refuses of a study, before any of its runs."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Asking
from llenergymeasure.backends.refusals import refusal_of
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run.preflight.checks import check_engine_takes
from llenergymeasure.workload.load_study import study_from_mapping
from support.studies import environment
from support.vllm import vllm_python, vllm_variables

SWEEP = {"vllm.engine.max_num_batched_tokens": [8, 4096]}
ENGINE = {"max_model_len": 1024, "enable_chunked_prefill": False}


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(600)
def test_vllm_says_in_its_own_words_what_it_refuses(tmp_path: Path) -> None:
    study = study_from_mapping(
        {"model": "tiny-llama", "backend": "vllm", "vllm": {"engine": ENGINE}, "sweep": SWEEP}
    )
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    folder.plan.write_bytes(make_plan(study).to_json_bytes())
    subprocess.run(
        [vllm_python(), "-m", "llenergymeasure.backends.refusals", "vllm", folder.path],
        env=environment(**vllm_variables()),
        timeout=500,
        check=True,
    )
    few, enough = (folder.run(each.id, 1) for each in study.experiments)
    words = refusal_of(few, "vllm")
    assert words is not None
    assert "max_num_batched_tokens (8) is smaller than max_model_len (1024)" in words
    assert refusal_of(enough, "vllm") is None


def test_a_run_that_was_refused_ends_in_its_preflight(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    (experiment,) = study_from_mapping({"model": "tiny-llama", "backend": "vllm"}).experiments
    run = folder.run(experiment.id, 1)
    assert list(check_engine_takes(experiment.model, run.path)) == []
    folder.refused("vllm").write_text(json.dumps({experiment.id: "no such kernel"}))
    (problem,) = check_engine_takes(experiment.model, run.path)
    assert problem.fatal
    assert "vllm refuses this experiment: no such kernel" in str(problem)
    assert list(check_engine_takes(experiment.model, folder.run("0123456789ab", 1).path)) == []


def refusal_by(monkeypatch: pytest.MonkeyPatch, takes: Any) -> str | None:
    """What a vLLM that ``takes`` engine arguments, or raises, is reported to refuse."""

    def arguments(**given: Any) -> Any:
        return SimpleNamespace(create_engine_config=lambda: takes(given))

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", SimpleNamespace(EngineArgs=arguments))
    monkeypatch.delitem(sys.modules, "llenergymeasure.backends.vllm.refusal", raising=False)
    backend = registry.get("vllm")
    assert isinstance(backend, Asking)
    return backend.refusal(
        ExperimentConfig.model_validate(
            {"model": "tiny-llama", "backend": "vllm", "vllm": {"engine": {"block_size": 7}}}
        )
    )


def test_a_setting_that_is_refused_by_an_error_of_any_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def takes(given: dict[str, Any]) -> None:
        if "block_size" in given:
            raise AssertionError("no such block")

    assert refusal_by(monkeypatch, takes) == "AssertionError: no such block"


def test_what_fails_whatever_the_study_sets_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(_: dict[str, Any]) -> None:
        raise RuntimeError("no driver")

    assert refusal_by(monkeypatch, takes) is None
