"""Failure and resume: nothing finished is lost or measured twice, nothing failed is forgotten."""

import json
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.hub import offer_model
from support.studies import (
    SERVED,
    living,
    llem,
    measuring,
    plan_of,
    result_times,
    snakemake,
    start_llem,
    start_snakemake,
    wait_for,
    write_study,
)

pytestmark = pytest.mark.slow

REPOSITORY = "someone/tiny"
NOTHING = "Nothing to be done"


def _three(folder: Path) -> Path:
    """Write a study of three experiments of which one wants a model that is not there yet."""
    two = [{"n": n} for n in (1, 2)]
    return write_study(folder, **SERVED, experiments=[*two, {"model": REPOSITORY}])


def test_fail_fail_again_fixed_nothing(tmp_path: Path) -> None:
    study = _three(tmp_path)
    hub = tmp_path / "hub"
    hub.mkdir()
    variables = {"HF_HUB_CACHE": str(hub)}
    results = tmp_path / "results" / "small"

    first = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert first.returncode == 1, first.stderr
    finished = result_times(tmp_path)
    assert len(finished) == 2
    plan = plan_of(tmp_path)
    failing = next(run for run in plan["runs"] if run["config"]["model"] == REPOSITORY)
    assert failing["experiment"] in first.stderr
    for name in ("runs.parquet", "summary.parquet", "summary.csv", "report.html"):
        assert (results / name).stat().st_mtime == 86400, name
    runs = pq.read_table(results / "runs.parquet").to_pylist()
    assert sorted(run["status"] for run in runs) == ["completed"] * 2 + ["failed"]
    assert REPOSITORY in (results / "report.html").read_text()
    outcome = results / "runs" / failing["experiment"] / "1" / "outcome.json"
    assert '"status": "failed"' in outcome.read_text()

    second = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert second.returncode == 1, second.stderr
    assert result_times(tmp_path) == finished
    assert '"attempt": 2' in outcome.read_text()
    assert (results / "summary.parquet").stat().st_mtime == 86400

    offer_model(hub, REPOSITORY)
    third = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert third.returncode == 0, third.stderr
    times = result_times(tmp_path)
    assert len(times) == 3
    assert {key: times[key] for key in finished} == finished
    assert pq.read_table(results / "summary.parquet").num_rows == 3
    assert (results / "summary.parquet").stat().st_mtime > 86400

    fourth = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert fourth.returncode == 0
    assert NOTHING in fourth.stderr
    assert result_times(tmp_path) == times


def test_everything_killed_in_mid_run(tmp_path: Path) -> None:
    study = write_study(
        tmp_path, **SERVED, experiments=[{"n": n} for n in (1, 2, 3)], window={"min_seconds": 3}
    )
    process = start_llem(tmp_path, "run", str(study))
    wait_for(lambda: len(result_times(tmp_path)) == 1)
    second = plan_of(tmp_path)["runs"][1]
    wait_for(lambda: measuring(tmp_path / f"results/small/runs/{second['experiment']}/1"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not living(str(tmp_path)), 90)
    finished = result_times(tmp_path)
    assert len(finished) == 1

    again = snakemake(tmp_path, "--configfile", str(study))
    assert again.returncode == 0, again.stderr
    times = result_times(tmp_path)
    assert len(times) == 3
    assert {key: times[key] for key in finished} == finished
    assert NOTHING in snakemake(tmp_path, "--configfile", str(study)).stderr


def test_first_interrupt_lets_the_run_end_and_the_second_ends_it(tmp_path: Path) -> None:
    study = write_study(
        tmp_path, **SERVED, experiments=[{"n": n} for n in (1, 2, 3)], window={"min_seconds": 4}
    )
    for interrupts in (2, 1, 1, 1):
        before = result_times(tmp_path)
        process = start_llem(tmp_path, "run", str(study))
        run = tmp_path / "results/small/runs" / plan_run(tmp_path, len(before))
        outcome = run / "outcome.json"
        wait_for(lambda path=outcome: path.is_file() and '"running"' in path.read_text())
        wait_for(lambda run=run: measuring(run))
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert process.wait(60) == 130
        wait_for(lambda: not living(str(tmp_path)), 90)
        times = result_times(tmp_path)
        assert len(times) == len(before) + (1 if interrupts == 1 else 0)
        status = json.loads(outcome.read_text())["status"]
        assert status == ("completed" if interrupts == 1 else "interrupted")
        # Of the last run, too, which no rule of the workflow comes after.
        table = pq.read_table(tmp_path / "results/small/runs.parquet")
        assert table["status"].to_pylist().count("completed") == len(times)
    assert llem(tmp_path, "run", str(study)).returncode == 0
    assert result_times(tmp_path) == times
    assert (tmp_path / "results/small/summary.parquet").stat().st_mtime > 86400


def plan_run(folder: Path, place: int) -> str:
    wait_for(lambda: (folder / "results/small/plan.json").is_file())
    run = plan_of(folder)["runs"][place]
    return f"{run['experiment']}/{run['cycle']}"


def test_second_workflow_on_the_same_study_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SERVED, window={"min_seconds": 8})
    first = start_snakemake(tmp_path, "--configfile", str(study))
    wait_for(lambda: bool(list(tmp_path.glob("results/small/runs/*/1/work/marks.jsonl"))))
    second = snakemake(tmp_path, "--configfile", str(study))
    assert second.returncode == 1
    assert "in use by" in second.stderr
    assert first.wait(120) == 0
    assert len(result_times(tmp_path)) == 1


def test_without_a_profile_a_finished_run_is_no_reason_to_measure_again(tmp_path: Path) -> None:
    """As with a profile of one's own, or as a module: then all that changed is a reason."""
    study = write_study(tmp_path, **SERVED, execution={"n_cycles": 1})
    call = ("--workflow-profile", "none", "-c1", "--configfile", str(study))
    result = snakemake(tmp_path, *call)
    assert result.returncode == 0, result.stderr
    again = snakemake(tmp_path, *call)
    assert NOTHING in again.stderr, again.stderr
