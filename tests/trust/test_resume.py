"""A results folder is data: resume takes a study and its settings from it, and shows them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.cli import resume as resume_module
from llenergymeasure.cli import run as run_module
from llenergymeasure.cli.resume import resume
from llenergymeasure.cli.run import run
from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.installation import workflow_root
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.resume import (
    CALL_NAME,
    RUN_OPTION_SETTINGS,
    StudyCall,
    read_call,
    store_call,
)
from llenergymeasure.workflow.snakemake_profile import snakemake_profile
from support.studies import write_study


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[StudyCall]:
    """What would have been run."""
    calls: list[StudyCall] = []

    def run(call: StudyCall, *_: Any, **__: Any) -> int:
        calls.append(call)
        return 0

    for module in (run_module, resume_module):
        monkeypatch.setattr(module, "run_call", run)
    return calls


def left(folder: Path, profile: str | None = None, **settings: Any) -> Path:
    results = StudyFolder(folder / "results" / "small")
    results.path.mkdir(parents=True)
    store_call(results, StudyCall(write_study(folder), settings, profile))
    return results.path


def test_the_call_is_shown(tmp_path: Path, resumed: list[StudyCall], capsys: Any) -> None:
    folder = left(tmp_path, "slurm", n=3)
    assert resume(folder, None) == 0
    assert resumed == [StudyCall(tmp_path / "study.yaml", {"n": 3}, "slurm")]
    assert f"Resuming {tmp_path}/study.yaml with n=3, profile slurm" in capsys.readouterr().err


@pytest.mark.parametrize("profile", ["/tmp/theirs", "./slurm", "..", "mine", "../slurm"])
def test_a_profile_that_is_not_ours_is_taken_where_it_is_said_again(
    tmp_path: Path, resumed: list[StudyCall], profile: str
) -> None:
    folder = left(tmp_path, profile)
    with pytest.raises(ConfigurationError, match=rf"--profile {profile}"):
        resume(folder, None)
    assert resumed == []
    assert resume(folder, profile) == 0
    assert [call.profile for call in resumed] == [profile]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", [".", CALL_NAME])
def test_what_somebody_else_started_is_not_resumed_unseen(
    tmp_path: Path, resumed: list[StudyCall], whose: str
) -> None:
    folder = left(tmp_path)
    os.chown(folder / whose, 65534, 65534)
    with pytest.raises(ConfigurationError, match=r"somebody else .* llem run .*study\.yaml"):
        resume(folder, None)
    assert resumed == []
    assert resume(tmp_path / "study.yaml", None) == 0


@pytest.mark.parametrize("key", ["notify.command", "quality", "openai.base_url", "output_dir"])
def test_only_what_a_command_line_sets_is_taken(
    tmp_path: Path, resumed: list[StudyCall], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    folder = left(tmp_path)
    monkeypatch.chdir(tmp_path)
    stored = json.loads((folder / CALL_NAME).read_text())
    (folder / CALL_NAME).write_text(json.dumps({**stored, "settings": {key: ["touch", "owned"]}}))
    for named in (folder, tmp_path / "study.yaml"):
        with pytest.raises(ConfigurationError, match=f"run with {key}, which no option"):
            resume(named, None)
    assert resumed == []


@pytest.mark.parametrize("content", [[1], {"profile": ["slurm"]}, {"settings": 7}, {"cwd": {}}])
def test_a_call_of_another_form_is_none(tmp_path: Path, content: Any) -> None:
    folder = left(tmp_path)
    if isinstance(content, dict):
        content = {**json.loads((folder / CALL_NAME).read_text()), **content}
    (folder / CALL_NAME).write_text(json.dumps(content))
    call = read_call(StudyFolder(folder))
    assert call is None or isinstance(call.profile, str)


def test_a_study_s_file_is_named_from_the_root(
    tmp_path: Path, resumed: list[StudyCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an archive that was unpacked here it would be a file that came with it."""
    folder = left(tmp_path)
    stored = json.loads((folder / CALL_NAME).read_text())
    (folder / CALL_NAME).write_text(json.dumps({**stored, "study_file": "study.yaml"}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="name the study's file"):
        resume(folder, None)
    assert resumed == []


def test_what_the_command_line_sets_is_known(tmp_path: Path, resumed: list[StudyCall]) -> None:
    options = {"backend": "pytorch", "precision": "bf16", "dataset": "synthetic"}
    options |= {"weights": "random", "protocol": "quick", "order": "shuffled"}
    numbers = dict.fromkeys(("n", "batch_size", "max_input_tokens", "max_output_tokens"), 8)
    run(study=write_study(tmp_path), cycles=1, no_gaps=True, **options, **numbers)
    assert (
        set(resumed[0].settings) | {engine.names.requests_at_once for engine in ENGINES.values()}
        == RUN_OPTION_SETTINGS
    )


@pytest.mark.parametrize("name", ["default", "slurm"])
def test_a_folder_here_is_no_profile_unless_it_is_named_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(workflow_root() / "profiles" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert snakemake_profile(name) == str(workflow_root() / "profiles" / name)
    assert snakemake_profile(None) == str(workflow_root() / "profiles" / "default")
    assert snakemake_profile(f"./{name}") == f"./{name}"
    assert snakemake_profile("theirs") == "theirs"
