"""An engine that is to run here and is not here: told before the first run of any engine."""

import importlib.util
from pathlib import Path

import pytest

from docs.pages import ROOT
from llenergymeasure.cli import doctor_machine
from llenergymeasure.containers import container_checks, runner_choice
from llenergymeasure.containers.container_checks import check_local
from support.studies import llem, write_study


def test_an_engine_that_is_here_has_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_checks, "find_spec", lambda _: object())
    assert check_local("vllm") == []


@pytest.mark.parametrize(
    ("commands", "slurm", "runner"),
    [
        (("docker", None), False, "docker"),
        ((None, "apptainer"), False, "apptainer"),
        (("docker", "apptainer"), False, "docker"),
        (("docker", "apptainer"), True, "apptainer"),  # jobs seldom find a daemon
        (("docker", None), True, "docker"),
    ],
)
def test_one_that_is_not_is_told_with_what_would_do(
    commands: tuple[str | None, str | None],
    slurm: bool,
    runner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner_choice.shutil, "which", lambda name: name if slurm else None)
    monkeypatch.setattr(container_checks, "find_spec", lambda _: None)
    monkeypatch.setattr(runner_choice, "docker_command", lambda: commands[0])
    monkeypatch.setattr(runner_choice, "apptainer_command", lambda: commands[1])
    (problem,) = check_local("vllm")
    assert problem.key == "runners.vllm"
    assert "vllm cannot be imported here" in problem.message
    assert f"{ROOT}/envs/vllm.txt" in problem.message
    advice = f"runners: {{vllm: {runner}}}"
    assert advice in problem.message
    absent = doctor_machine._check_engine("vllm", ("no_such_package",))
    assert absent.remedy == f"give it an image: {advice}"


def test_a_server_that_already_runs_needs_nothing_here() -> None:
    assert check_local("openai") == []


@pytest.mark.skipif(
    importlib.util.find_spec("vllm") is not None, reason="vLLM is in this environment"
)
def test_a_study_of_two_engines_does_not_begin_with_one(tmp_path: Path) -> None:
    runners = {"pytorch": "local", "vllm": "local"}
    study = write_study(tmp_path, backend=["pytorch", "vllm"], runners=runners)
    result = llem(tmp_path, "run", str(study))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "runners.vllm: vllm cannot be imported here" in result.stdout + result.stderr
    assert not list((tmp_path / "results").glob("*/runs/*/*/result.json"))
