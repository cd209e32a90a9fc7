"""Who chooses a backend's runner, and that no choice is passed over in silence."""

import json
from pathlib import Path

import pytest

from cli.commands import Call
from llenergymeasure.containers.runner_choice import choose_runners
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import describe_plan, make_plan
from llenergymeasure.workload.load_study import study_from_mapping
from support.programs import program
from support.studies import SMALL, snakemake, write_study


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    for backend in ("PYTORCH", "VLLM", "SGLANG", "TENSORRT", "OPENAI"):
        monkeypatch.delenv(f"LLEM_RUNNER_{backend}", raising=False)


def _configure(tmp_path: Path, text: str) -> None:
    path = tmp_path / "xdg" / "llenergymeasure" / "config.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _choice(offered: bool = False, **settings: object) -> tuple[str, str | None, str]:
    study = choose_runners(study_from_mapping({**SMALL, **settings}), apptainer_offered=offered)
    choice = study.runner("pytorch")
    return choice.runner, choice.image, choice.reason


def test_environment_then_study_then_user_then_automatic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _, reason = _choice()
    assert runner == "local"
    assert reason.startswith("automatic: torch and transformers")
    _configure(tmp_path, "runners: {pytorch: 'docker:mine:1'}\n")
    runner, image, reason = _choice()
    assert (runner, image) == ("docker", "mine:1")
    assert "config.yaml" in reason
    runners = {"pytorch": "apptainer:/images/a.sif"}
    assert _choice(runners=runners) == ("apptainer", "/images/a.sif", "the study says so")
    monkeypatch.setenv("LLEM_RUNNER_PYTORCH", "local")
    assert _choice(runners=runners) == ("local", None, "LLEM_RUNNER_PYTORCH says so")


def test_use_apptainer_decides_only_what_nobody_else_has(tmp_path: Path) -> None:
    assert _choice(offered=True)[0] == "apptainer"
    assert _choice(offered=True, runners={"pytorch": "local"})[0] == "local"
    _configure(tmp_path, "runners: {pytorch: docker}\n")
    assert _choice(offered=True)[0] == "docker"


@pytest.mark.parametrize(
    ("here", "named", "runner", "command"),
    [
        (("docker", "podman", "apptainer"), None, "docker", "docker"),
        (("podman", "apptainer"), None, "docker", "podman"),
        (("podman", "apptainer", "sbatch"), None, "apptainer", "apptainer"),
        (("podman-hpc", "apptainer", "sbatch"), "podman-hpc", "docker", "podman-hpc"),
        (("podman", "sbatch"), None, "docker", "podman"),
        (("singularity",), None, "apptainer", "singularity"),
        ((), None, "local", "neither is Docker, Podman or Apptainer installed"),
    ],
)
def test_an_engine_that_is_not_here_gets_what_runs_images_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    here: tuple[str, ...],
    named: str | None,
    runner: str,
    command: str,
) -> None:
    """Login nodes of clusters often have Podman, which their jobs cannot use unless it is named."""
    for name in here:
        program(tmp_path / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LLEM_DOCKER", named or "")
    choice = choose_runners(
        study_from_mapping({**SMALL, "backend": "sglang"}), apptainer_offered=False
    ).runner("sglang")
    assert choice.runner == runner
    assert command in choice.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runners: {pytorch: podman}\n", "runners.pytorch"),
        ("runners: {pytroch: local}\n", "runners.pytroch"),
        ("runner: {}\n", "runner"),
        ("[1]\n", "mapping"),
    ],
)
def test_a_bad_user_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    _configure(tmp_path, text)
    with pytest.raises(ConfigurationError, match=message) as error:
        _choice()
    assert "config.yaml" in str(error.value)


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLEM_RUNNER_PYTORCH", "kubernetes")
    with pytest.raises(ConfigurationError, match="LLEM_RUNNER_PYTORCH"):
        _choice()


def test_engines_that_exclude_each_other_are_refused_at_plan_time() -> None:
    study_settings = {"backend": ["vllm", "sglang"]}
    with pytest.raises(ConfigurationError, match="vllm and sglang"):
        _choice(sweep=study_settings, runners={"vllm": "local", "sglang": "local"})
    study = study_from_mapping(
        {**SMALL, "sweep": study_settings, "runners": {"vllm": "local", "sglang": "docker"}}
    )
    runners = choose_runners(study, apptainer_offered=False).runners
    assert {name: choice.runner for name, choice in runners.items()} == {
        "vllm": "local",
        "sglang": "docker",
    }


def test_the_plan_says_what_was_chosen_and_why(tmp_path: Path, call: Call) -> None:
    study = study_from_mapping({**SMALL, "runners": {"pytorch": "docker:mine:1"}})
    plan = make_plan(choose_runners(study, apptainer_offered=False))
    assert "pytorch runs in Docker with mine:1 (the study says so)" in describe_plan(plan)
    path = write_study(tmp_path, runners={"pytorch": "docker:mine:1"})
    document = json.loads(call("plan", str(path), "--json").out)
    assert document["runs"][0]["runner"] == "docker"
    assert document["runner_reasons"] == {"pytorch": "the study says so"}


def test_no_silent_local_run_of_a_study_that_asks_for_apptainer(tmp_path: Path) -> None:
    study = write_study(tmp_path, runners={"pytorch": "apptainer"})
    result = snakemake(tmp_path, "--configfile", str(study))
    assert result.returncode == 1
    assert "--use-apptainer" in result.stderr
    assert "the study says so" in result.stderr
    assert not list(tmp_path.glob("results/small/runs/*"))
