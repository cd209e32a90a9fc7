"""Runs whose machine went away, folders that moved, attempts that overlap."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.files import sha256
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.manifest import states
from llenergymeasure.workflow.recovery import mark_lost
from llenergymeasure.workload.load_study import study_from_mapping
from support.attempts import SCRIPT, start
from support.studies import SMALL, environment, plan_of, snakemake, write_study

ELSEWHERE = {"status": "running", "attempt": 1, "phase": "measure", "host": "elsewhere", "pid": 1}


def test_a_run_that_was_at_work_on_a_machine_that_is_gone_is_lost(tmp_path: Path) -> None:
    plan, folder = make_plan(study_from_mapping(SMALL)), StudyFolder(tmp_path)
    run = folder.run(plan.runs[0].experiment, 1)
    run.path.mkdir(parents=True)
    job = {"scheduler": "slurm", "id": "7", "node": "gpu-07"}
    run.outcome.write_text(json.dumps({**ELSEWHERE, "job": job}))
    before = states(plan, folder)
    assert before[0]["status"] == "running"
    assert mark_lost(before, folder) == 1
    (after,) = states(plan, folder)
    assert (after["status"], after["phase"]) == ("lost", "measure")
    assert "job 7 on gpu-07 is gone" in after["error_message"]
    assert mark_lost([after], folder) == 0


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_copied_folder_is_gone_on_with_elsewhere(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    first.mkdir()
    experiments = [{"n": 1}, {"n": 2}]
    write_study(first, experiments=experiments)
    result = snakemake(first, "--configfile", "study.yaml")
    assert result.returncode == 0, result.stderr
    runs = [
        StudyFolder(Path("results/small")).run(run["experiment"], 1)
        for run in plan_of(first)["runs"]
    ]
    finished = {path: sha256(first / path) for path in runs[0].products}
    for path in runs[1].products:
        (first / path).unlink()
    (first / runs[1].outcome).write_text(json.dumps({**ELSEWHERE, "boot_id": "another"}))
    second.mkdir(parents=True)
    shutil.copytree(first / "results", second / "results")
    write_study(second, experiments=experiments)
    shutil.rmtree(first)
    again = snakemake(second, "--configfile", "study.yaml")
    assert again.returncode == 0, again.stderr
    assert {path: sha256(second / path) for path in finished} == finished
    assert (second / runs[1].result).is_file()
    assert "2 of 2 runs completed" in again.stderr


@pytest.mark.slow
def test_a_second_attempt_waits_for_the_first_and_takes_its_result(tmp_path: Path) -> None:
    first = start(tmp_path, window={"min_seconds": 3})
    first.wait_for_phase("load")
    second = subprocess.Popen(
        [
            sys.executable,
            str(SCRIPT),
            "--spec",
            str(tmp_path / "told.json"),
            "--out",
            str(first.folder),
        ],
        env=environment(),
    )
    assert first.process.wait(120) == 0
    result = sha256(first.folder / "result.json")
    assert second.wait(120) == 0
    assert sha256(first.folder / "result.json") == result
    assert first.outcome()["status"] == "completed"
    assert first.result()["provenance"]["attempt"] == 1
