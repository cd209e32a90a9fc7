"""An engine that is to run here and is not here: told before the first run of any engine."""

import importlib.util
from pathlib import Path

import pytest

from cli.commands import Call
from docs.pages import ROOT
from llenergymeasure.cli import doctor_machine
from llenergymeasure.containers import container_checks
from llenergymeasure.containers.container_checks import check_local
from support.programs import program
from support.studies import write_study


def test_an_engine_that_is_here_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_checks, "find_spec", lambda _: object())
    assert check_local("vllm") == []


@pytest.mark.parametrize("runner", ["docker", "apptainer"])
def test_one_that_is_not_is_told_with_what_would_do(
    tmp_path: Path, runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / runner)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LLEM_DOCKER", "")
    monkeypatch.setattr(container_checks, "find_spec", lambda _: None)
    assert check_local("openai") == [], "a server that already runs needs nothing here"
    (problem,) = check_local("vllm")
    assert problem.key == "runners.vllm"
    assert "vllm cannot be imported here" in problem.message
    assert f"{ROOT}/envs/vllm.txt" in problem.message
    advice = f"runners: {{vllm: {runner}}}"
    assert advice in problem.message
    absent = doctor_machine._check_engine("vllm", ("no_such_package",))
    assert absent.remedy == f"give it an image: {advice}"


@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is not None, reason="vLLM is in this environment"
)
def test_a_study_of_two_engines_does_not_begin_with_one(tmp_path: Path, call: Call) -> None:
    runners = {"pytorch": "local", "vllm": "local"}
    study = write_study(tmp_path, backend=["pytorch", "vllm"], runners=runners)
    result = call("run", str(study))
    assert result.code == 1, result.out + result.err
    assert "runners.vllm: vllm cannot be imported here" in result.out + result.err
    assert not list((tmp_path / "results").glob("*/runs/*/*/result.json"))
