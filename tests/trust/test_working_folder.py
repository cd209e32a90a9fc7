"""Nothing in the working folder is taken for code of ours, or of what we run."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llenergymeasure.containers.container_setup import ENGINE
from llenergymeasure.processes import python_module, user_environment
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.snakemake_process import Call, SnakemakeProcess
from support.studies import ROOT, llem, snakemake, write_study

NAMES = ("token.py", "select.py", "logging.py", "json.py", "llenergymeasure/__init__.py")


def plant(folder: Path) -> None:
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(
            f"open({str(folder / 'imported')!r}, 'w')\nraise SystemExit(0)\n"
        )


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True], ids=["llem", "snakemake"])
def test_a_study_passes_over_modules_that_lie_where_it_is_run(tmp_path: Path, bare: bool) -> None:
    plant(tmp_path)
    judge = tmp_path / "judge" / "judge.py"
    judge.parent.mkdir()
    (judge.parent / "score_of_mine.py").write_text("SCORE = 7\n")
    judge.write_text("from score_of_mine import SCORE\nprint(SCORE)\n")
    study = write_study(tmp_path, quality={"command": ["python", str(judge)]})
    safe = {"PYTHONSAFEPATH": "1"}  # as the installed commands are: they are no python -m
    result = (
        snakemake(tmp_path, "--configfile", str(study), variables=safe)
        if bare
        else llem(tmp_path, "run", str(study), variables=safe)
    )
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "imported").exists()
    assert '"score": 7' in next(tmp_path.glob("results/small/runs/*/*/result.json")).read_text()


def test_every_child_of_ours_is_started_without_the_working_folder() -> None:
    assert python_module("m")[1] == "-P"
    assert ENGINE[1] == "-P"
    assert Call().variables()["PYTHONSAFEPATH"] == "1"
    starts = re.compile(r'executable, "-[cm]"|python:q} -m|PYTHON, "-m"')
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "rules").glob("*.smk")]:
        assert not starts.search(path.read_text()), path


def test_a_user_s_command_has_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    variables = user_environment(LLEM_EVENT="finish")
    assert "PYTHONSAFEPATH" not in variables
    assert variables["LLEM_EVENT"] == "finish"
    assert variables["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize("python_path", ["", ":", ":/a", "/a:", "/a::/b"])
def test_nor_by_an_empty_entry_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str
) -> None:
    """``export PYTHONPATH=$PYTHONPATH:/a`` makes one, which means the working folder."""
    monkeypatch.setenv("PYTHONPATH", python_path)
    variables = Call().variables()
    assert variables["PYTHONPATH"] == python_path.strip(":").replace("::", ":")
    plant(tmp_path)
    code = [sys.executable, "-P", "-c", "import token, select, logging"]
    assert subprocess.run(code, cwd=tmp_path, env=variables, check=False).returncode == 0
    assert not (tmp_path / "imported").exists()


def test_an_image_that_lies_there_is_not_the_one_that_was_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake would run ``.snakemake/singularity/NAME.simg`` unseen, whoever put it there."""
    monkeypatch.setenv("LLEM_IMAGES", str(tmp_path / "images"))
    run = SimpleNamespace(runner="apptainer")
    plan, folder = SimpleNamespace(runs=[run]), StudyFolder(tmp_path)
    process = SnakemakeProcess(Path("s.yaml"), plan, folder, None, 0)  # type: ignore[arg-type]
    monkeypatch.delenv("APPTAINER_CACHEDIR", raising=False)
    for profile in (None, "slurm"):
        options = process._apptainer_options(Call(profile=profile))
        assert options[1:] == ["--apptainer-prefix", str(tmp_path / "images")]
    # A profile of one's own may name a folder itself.
    assert process._apptainer_options(Call(profile="./mine")) == ["--use-apptainer"]
