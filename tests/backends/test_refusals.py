"""Engines are asked what they refuse of a study, before any of its runs: vLLM for real as well."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends import refusals, registry
from llenergymeasure.backends.base import SettingsValidator
from llenergymeasure.backends.refusals import _configs_to_check, read_refusal
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.study import Study
from llenergymeasure.containers import container_checks, image_probe
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run.preflight.checks import check_engine_accepts
from llenergymeasure.workload.load_study import study_from_mapping
from support.stand_in_modules import stand_in
from support.studies import environment
from support.vllm import vllm_python, vllm_variables

pytest.importorskip("tokenizers")

ENGINE = {"max_model_len": 1024, "enable_chunked_prefill": False}
SWEEP = {"vllm.engine.max_num_batched_tokens": [8, 4096]}


def planned(folder: Path, **settings: Any) -> tuple[StudyFolder, Study]:
    """A study's folder with its plan in it."""
    study = study_from_mapping({"model": "tiny-llama", "backend": "vllm", **settings})
    study_folder = StudyFolder(folder / "study")
    study_folder.path.mkdir()
    study_folder.plan.write_bytes(make_plan(study).to_json_bytes())
    return study_folder, study


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.timeout(600)
def test_vllm_says_in_its_own_words_what_it_refuses(tmp_path: Path) -> None:
    folder, study = planned(tmp_path, vllm={"engine": ENGINE}, sweep=SWEEP)
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
    folder, study = planned(tmp_path)
    (experiment,) = study.experiments
    run = folder.run(experiment.id, 1)
    assert list(check_engine_accepts(experiment.model, run.path)) == []
    folder.refusals_path("vllm").write_text(json.dumps({experiment.id: "no such kernel"}))
    (problem,) = check_engine_accepts(experiment.model, run.path)
    assert problem.fatal
    assert "vllm refuses this experiment: no such kernel" in str(problem)
    assert list(check_engine_accepts(experiment.model, folder.run("0123456789ab", 1).path)) == []


def takes(**arguments: Any) -> SimpleNamespace:
    """As vLLM's EngineArgs and SGLang's ServerArgs, for what these tests set."""

    def create_engine_config() -> None:
        if "block_size" in arguments:
            raise AssertionError("no such block")

    if arguments.get("page_size") == 3:
        raise AssertionError("page_size must be a power of 2")
    return SimpleNamespace(create_engine_config=create_engine_config)


def takes_nothing(**_: Any) -> None:
    """No card, no kernels, another release: the run's own preflight and loading say so."""
    raise RuntimeError("no driver")


def sampled(max_tokens: int = 16, min_tokens: int = 0, **parameters: Any) -> None:
    """As vLLM's SamplingParams: in force is its own default where a length is not given."""
    if min_tokens > max_tokens:
        raise ValueError(f"min_tokens must be less than or equal to max_tokens={max_tokens}")
    if parameters.get("repetition_penalty", 1) > 5:
        raise ValueError("repetition_penalty must be at most 5")


class Sampling:
    """Refuses, when verified, what SGLang 0.5.23 refuses of a penalty."""

    def __init__(self, **parameters: Any) -> None:
        self.penalty = parameters["repetition_penalty"]

    def verify(self, _vocabulary: int) -> None:
        if not 0 < self.penalty <= 2:
            raise ValueError(f"repetition_penalty must be in (0, 2], got {self.penalty}.")


def refusal(
    monkeypatch: pytest.MonkeyPatch, backend: str, engine: Callable[..., Any], **settings: Any
) -> str | None:
    """What an engine with these classes in place of its own is reported to refuse."""
    parts = {
        "vllm": SimpleNamespace(SamplingParams=sampled),
        "vllm.engine.arg_utils": SimpleNamespace(EngineArgs=engine),
        "sglang": SimpleNamespace(),
        "sglang.srt.server_args": SimpleNamespace(ServerArgs=engine),
        "sglang.srt.sampling.sampling_params": SimpleNamespace(SamplingParams=Sampling),
    }
    stand_in(monkeypatch, parts, f"llenergymeasure.backends.{backend}.refusal")
    asked = registry.get(backend)
    assert isinstance(asked, SettingsValidator)
    study = {"model": "tiny-llama", "backend": backend, **settings}
    return asked.refusal(ExperimentConfig.model_validate(study))


@pytest.mark.parametrize(
    ("backend", "settings", "words"),
    [
        ("vllm", {"vllm": {"engine": {"block_size": 7}}}, "AssertionError: no such block"),
        ("vllm", {"vllm": {"sampling": {"min_tokens": 32}}}, None),
        ("vllm", {"vllm": {"sampling": {"min_tokens": 32, "max_tokens": 8}}}, "max_tokens=8"),
        ("vllm", {"decoder": {"repetition_penalty": 6}}, "repetition_penalty must be at most 5"),
        ("vllm", {"decoder": {"repetition_penalty": 2}}, None),
        ("sglang", {"sglang": {"engine": {"page_size": 3}}}, "page_size must be a power of 2"),
        ("sglang", {"sglang": {"engine": {"page_size": 4}}}, None),
        ("sglang", {"decoder": {"repetition_penalty": 3.0}}, "must be in (0, 2], got 3.0"),
    ],
    ids=str,
)
def test_an_engine_says_in_its_own_words_what_it_refuses(
    monkeypatch: pytest.MonkeyPatch, backend: str, settings: dict[str, Any], words: str | None
) -> None:
    """An error of any kind; sampling is judged as requests will have it."""
    reason = refusal(monkeypatch, backend, takes, **settings)
    assert (reason is None) if words is None else (reason is not None and words in reason)


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_what_fails_whatever_the_study_sets_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    settings = {backend: {"engine": {"trust_remote_code": True}}}
    assert refusal(monkeypatch, backend, takes_nothing, **settings) is None


def test_an_engine_that_is_not_to_be_imported_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch, {"sglang": None}, "llenergymeasure.backends.sglang.refusal")
    backend = registry.get("sglang")
    assert isinstance(backend, SettingsValidator)
    with pytest.raises(ImportError):  # the process that asks ends without an answer
        backend.refusal(ExperimentConfig.model_validate({"model": "m", "backend": "sglang"}))


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
    ids=str,
)
def test_an_engine_is_asked_where_a_study_sets_what_is_the_engine_s(
    settings: dict[str, Any], is_checked: bool, tmp_path: Path
) -> None:
    folder, _ = planned(tmp_path, **settings)
    assert bool(_configs_to_check("vllm", folder)) is is_checked


def test_an_engine_that_ends_or_hangs_when_it_is_asked_in_an_image_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = planned(tmp_path, decoder={"min_new_tokens": 2})
    assert refusals.TIME_LIMIT_S < container_checks.LOOK_LIMIT_S
    monkeypatch.setattr(refusals, "TIME_LIMIT_S", 0.2)
    for code in ("import os; print('noise'); os._exit(7)", "import time; time.sleep(9999)"):
        words = [sys.executable, "-c", code]
        monkeypatch.setattr(refusals, "python_module", lambda *_, words=words: words)
        image_probe._ask_engine("vllm", str(folder.path))
        assert read_refusal(folder.run(study.experiments[0].id, 1), "vllm") is None
