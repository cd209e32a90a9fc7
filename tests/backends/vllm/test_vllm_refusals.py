"""The real vLLM is asked what it refuses of a study, before any of its runs."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends import refusals, registry
from llenergymeasure.backends.base import SettingsValidator
from llenergymeasure.backends.refusals import _configs_to_check, read_refusal
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.containers import container_checks, image_probe
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run.preflight.checks import check_engine_accepts
from llenergymeasure.workload.load_study import study_from_mapping
from support.stand_in_modules import stand_in
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
    few, enough = (folder.run(experiment.id, 1) for experiment in study.experiments)
    words = read_refusal(few, "vllm")
    assert words is not None
    assert "max_num_batched_tokens (8) is smaller than max_model_len (1024)" in words
    assert read_refusal(enough, "vllm") is None


def test_a_run_that_was_refused_ends_in_its_preflight(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    (experiment,) = study_from_mapping({"model": "tiny-llama", "backend": "vllm"}).experiments
    run = folder.run(experiment.id, 1)
    assert list(check_engine_accepts(experiment.model, run.path)) == []
    folder.refusals_path("vllm").write_text(json.dumps({experiment.id: "no such kernel"}))
    (problem,) = check_engine_accepts(experiment.model, run.path)
    assert problem.fatal
    assert "vllm refuses this experiment: no such kernel" in str(problem)
    assert list(check_engine_accepts(experiment.model, folder.run("0123456789ab", 1).path)) == []


def refusal_by(
    monkeypatch: pytest.MonkeyPatch, takes: Any, samples: Any = dict, **settings: Any
) -> str | None:
    """What a vLLM that ``takes`` engine arguments, or raises, is reported to refuse."""

    def arguments(**parameters: Any) -> Any:
        return SimpleNamespace(create_engine_config=lambda: takes(parameters))

    parts = {
        "vllm": SimpleNamespace(SamplingParams=samples),
        "vllm.engine.arg_utils": SimpleNamespace(EngineArgs=arguments),
    }
    stand_in(monkeypatch, parts, "llenergymeasure.backends.vllm.refusal")
    backend = registry.get("vllm")
    assert isinstance(backend, SettingsValidator)
    return backend.refusal(
        ExperimentConfig.model_validate(
            {"model": "tiny-llama", "backend": "vllm"}
            | (settings or {"vllm": {"engine": {"block_size": 7}}})
        )
    )


def test_a_setting_that_is_refused_by_an_error_of_any_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def takes(arguments: dict[str, Any]) -> None:
        if "block_size" in arguments:
            raise AssertionError("no such block")

    assert refusal_by(monkeypatch, takes) == "AssertionError: no such block"


def test_what_fails_whatever_the_study_sets_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def takes(_: dict[str, Any]) -> None:
        raise RuntimeError("no driver")

    assert refusal_by(monkeypatch, takes) is None


def sampled(max_tokens: int = 16, min_tokens: int = 0, **parameters: Any) -> None:
    """As vLLM's SamplingParams: in force is its own default where a length is not given."""
    if min_tokens > max_tokens:
        raise ValueError(f"min_tokens must be less than or equal to max_tokens={max_tokens}")
    if parameters.get("repetition_penalty", 1) > 5:
        raise ValueError("repetition_penalty must be at most 5")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vllm": {"sampling": {"min_tokens": 32}}}, None),
        ({"vllm": {"sampling": {"min_tokens": 32, "max_tokens": 8}}}, "max_tokens=8"),
        ({"decoder": {"repetition_penalty": 6}}, "repetition_penalty must be at most 5"),
        ({"decoder": {"repetition_penalty": 2}}, None),
    ],
)
def test_sampling_is_judged_as_requests_will_have_it(
    settings: dict[str, Any], words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = refusal_by(monkeypatch, lambda _: None, sampled, **settings)
    assert (reason is None) if words is None else (reason is not None and words in reason)


@pytest.mark.parametrize(
    ("settings", "is_checked"),
    [
        ({}, False),
        ({"decoder": {"preset": "deterministic"}}, False),
        ({"decoder": {"preset": "creative", "top_k": 5, "min_p": 0.1}}, False),
        ({"decoder": {"repetition_penalty": 2.5}}, True),
        ({"decoder": {"min_new_tokens": 2}}, True),
        ({"vllm": {"sampling": {"n": 2}}}, True),
    ],
)
def test_an_engine_is_asked_where_a_study_sets_what_is_the_engine_s(
    settings: dict[str, Any], is_checked: bool, tmp_path: Path
) -> None:
    study = study_from_mapping({"model": "tiny-llama", "backend": "vllm", **settings})
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    folder.plan.write_bytes(make_plan(study).to_json_bytes())
    assert bool(_configs_to_check("vllm", folder)) is is_checked


def test_an_engine_that_ends_or_hangs_when_it_is_asked_in_an_image_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_from_mapping(
        {"model": "tiny-llama", "backend": "vllm", "decoder": {"min_new_tokens": 2}}
    )
    folder = StudyFolder(tmp_path / "study")
    folder.path.mkdir()
    folder.plan.write_bytes(make_plan(study).to_json_bytes())
    ends = [sys.executable, "-c", "import os; print('noise'); os._exit(7)"]
    for command in (ends, [sys.executable, "-c", "import time; time.sleep(60)"]):
        monkeypatch.setattr(refusals, "python_module", lambda *_, words=command: words)
        monkeypatch.setattr(refusals, "TIME_LIMIT_S", 1.0)
        image_probe._ask_engine("vllm", str(folder.path))
        run = folder.run(study.experiments[0].id, 1)
        assert read_refusal(run, "vllm") is None
    assert refusals.TIME_LIMIT_S < container_checks.LOOK_LIMIT_S
