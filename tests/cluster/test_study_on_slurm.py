"""A study of 24 runs on a real SLURM, with everything that a cluster does to jobs."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cluster.slurm import Cluster, queue
from llenergymeasure.files import sha256
from llenergymeasure.workflow.slurm_jobs import EARLIER_JOBS_PREFIX
from support.studies import ROOT, SERVED, llem, start_llem, wait_for, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

ABSENT = "someone/tiny"
LARGE = {"model": "qwen2.5-0.5b", "weights": "random", "precision": "fp32", "n": 1}
"""2 GB of weights, more than a job of the first call may have."""

LONG_S = 170
RUN_LIMIT_S = 150
LOST_S = 60
UNSAID = ("NoOutcome", "NeverBegan")


def _experiments() -> list[dict[str, Any]]:
    """Return twelve: one over its time, one over its memory, one to be lost; the last one fails."""
    plain = [{"random_seed": seed} for seed in range(1, 9)]
    too_long = {"window": {"min_seconds": LONG_S}}
    to_be_lost = {"window": {"min_seconds": LOST_S}}
    # The one to be lost begins late, so that the one over its time has ended by then.
    return [too_long, LARGE, *plain, to_be_lost, {"model": ABSENT}]


def _write(folder: Path, **execution: Any) -> None:
    write_study(
        folder,
        experiments=_experiments(),
        execution={"n_cycles": 2, "cycle_order": "sequential", **execution},
    )


def _offer_model(hub: Path) -> None:
    from llenergymeasure.workload.models.tiny import tiny_llama_folder

    revision = "0" * 40
    base = hub / f"models--{ABSENT.replace('/', '--')}"
    shutil.copytree(tiny_llama_folder(), base / "snapshots" / revision)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(revision)


def _table(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "results/small/runs.parquet").to_pylist()
    return rows


def _hashes(folder: Path) -> dict[Path, str]:
    runs = folder / "results/small/runs"
    return {path: sha256(path) for path in runs.glob("*/*/result.json")}


@pytest.mark.long
def test_every_fate_of_a_job_and_the_next_call_finishes_the_rest(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    _write(tmp_path, run_timeout_seconds=RUN_LIMIT_S)
    first = cluster.workflow(tmp_path)
    wait_for(lambda: bool(list(tmp_path.glob("results/small/plan.json"))), 120)
    runs = first.plan()["runs"]
    assert len(runs) == 24
    cancelled, over_time, large, _, *candidates = runs

    job = first.wait_for_phase(cancelled, "measure")["job"]
    assert any(name.startswith("llem-small-") for name in queue("%j"))
    subprocess.run(["scancel", job["id"]], timeout=30, check=True)

    wait_for(lambda: first.outcome(over_time).get("status") == "failed", 600)
    lost = next(run for run in candidates if run["config"].get("window") == {"min_seconds": LOST_S})
    node = first.wait_for_phase(lost, "measure")["job"]["node"]
    cluster.kill_node(node)
    cluster.revive_node(node)
    assert first.end() == 1, first.log()

    rows = {(row["experiment"], row["cycle"]): row for row in _table(tmp_path)}
    by_run = [rows[run["experiment"], run["cycle"]] for run in runs]
    assert (by_run[0]["status"], by_run[0]["error_class"]) == ("interrupted", "Interrupted")
    assert (by_run[1]["status"], by_run[1]["error_class"]) == ("failed", "TimeoutError")
    assert rows[large["experiment"], 1]["status"] in {"interrupted", "lost"}
    # SLURM queues the job of a lost node again, and its attempt is on record.
    assert rows[lost["experiment"], lost["cycle"]]["status"] == "completed"
    assert first.earlier_attempts(lost) == ["lost"]
    absent = [row for row in by_run if row["model"] == ABSENT]
    assert [row["status"] for row in absent] == ["failed"] * 2
    assert all(ABSENT in row["error_message"] for row in absent)
    # One that was lost before its first word cannot say which job it was.
    assert all(row["slurm_job_id"] for row in by_run if row["error_class"] not in UNSAID)
    finished = _hashes(tmp_path)
    assert len(finished) >= 24 - 6 - 2, [row["status"] for row in by_run]

    _offer_model(hub)
    _write(tmp_path, run_timeout_seconds=600)
    second = cluster.workflow(tmp_path, mem_mb=6000)
    assert second.end() == 0, second.log()
    times = _hashes(tmp_path)
    assert len(times) == 24
    assert {path: times[path] for path in finished} == finished
    rows_now = _table(tmp_path)
    assert {row["status"] for row in rows_now} == {"completed"}
    _each_on_its_own_card(rows_now)
    assert "24 of 24 runs completed" in second.log()
    assert (tmp_path / "results/small/report.html").stat().st_mtime > 86400
    third = cluster.workflow(tmp_path)
    assert third.end() == 0
    assert "Nothing to be done" in third.log()


def _each_on_its_own_card(rows: list[dict[str, Any]]) -> None:
    """Every run says its node, and used a card of that node."""
    assert {row["host"] for row in rows} == {"n1", "n2"}
    assert {row["slurm_partition"] for row in rows} == {"main"}
    assert len({row["slurm_job_id"] for row in rows}) == 24
    for row in rows:
        assert row["gpu_uuid"] in {f"GPU-{row['host']}-0", f"GPU-{row['host']}-1"}, row


def test_preempted_jobs_run_again_by_themselves(cluster: Cluster, tmp_path: Path) -> None:
    write_study(
        tmp_path,
        window={"min_seconds": 20},
        experiments=[{"random_seed": 1}, {"random_seed": 2}],
        execution={"n_cycles": 1, "cycle_order": "sequential"},
    )
    workflow = cluster.workflow(tmp_path)
    wait_for(lambda: bool(list(tmp_path.glob("results/small/plan.json"))), 120)
    runs = workflow.plan()["runs"]
    workflow.wait_for_phase(runs[0], "measure")
    urgent = ["--partition=urgent", "--nodes=2", "--gpus-per-node=2", "--wrap=sleep 5"]
    subprocess.run(["sbatch", "--output=/dev/null", *urgent], timeout=30, check=True)
    assert workflow.end() == 0, workflow.log()
    assert "2 of 2 runs completed" in workflow.log()
    assert workflow.earlier_attempts(runs[0])[0] in {"interrupted", "lost"}


def test_a_job_that_ends_with_an_error_once_its_run_is_over_keeps_the_result(
    cluster: Cluster, tmp_path: Path
) -> None:
    """As one that is cancelled, or over its time, in the second after: srun reports the signal."""
    write_study(tmp_path, **SERVED)
    end_mark = tmp_path / "ended"
    end_mark.mkdir()
    (end_mark / "srun").write_text(f'#!/bin/sh\n{shutil.which("srun")} "$@"\nexit 143\n')
    (end_mark / "srun").chmod(0o755)
    workflow = cluster.workflow(tmp_path, PATH=f"{end_mark}{os.pathsep}{os.environ['PATH']}")
    assert workflow.end() == 0, workflow.log()
    assert "its result is complete: kept" in workflow.log()
    assert [row["status"] for row in _table(tmp_path)] == ["completed"]


def test_a_killed_workflow_leaves_jobs_that_the_next_call_ends_where_they_are_pinned(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_study(
        tmp_path,
        window={"min_seconds": 40},
        experiments=[{"random_seed": seed} for seed in (1, 2, 3)],
        execution={"n_cycles": 1, "cycle_order": "sequential", "pin": "node"},
    )
    first = cluster.workflow(tmp_path)
    wait_for(lambda: bool(list(tmp_path.glob("results/small/plan.json"))), 120)
    run = first.plan()["runs"][0]
    first.wait_for_phase(run, "measure")
    first.kill()
    remaining = set(queue("%A"))
    assert remaining, "the jobs of a killed workflow stay in the queue"
    # As a user may have it who looks at one partition.
    second = cluster.workflow(tmp_path, SQUEUE_PARTITION="urgent", SINFO_PARTITION="urgent")
    wait_for(lambda: EARLIER_JOBS_PREFIX in second.log() or second.process.poll() is not None, 90)
    assert f"{EARLIER_JOBS_PREFIX} are ended first" in second.log()
    assert second.end() == 0, second.log()
    rows = _table(tmp_path)
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert not remaining.intersection(row["slurm_job_id"] for row in rows)
    assert len({row["host"] for row in rows}) == 1, "pinned to one node"


@pytest.mark.long
@pytest.mark.parametrize("away_s", [60, 600])
def test_a_controller_that_was_away_ends_in_a_complete_study(
    cluster: Cluster, tmp_path: Path, away_s: int
) -> None:
    write_study(
        tmp_path,
        window={"min_seconds": 5},
        experiments=[{"random_seed": 1}, {"random_seed": 2}, {"random_seed": 3}],
        execution={"n_cycles": 1, "cycle_order": "sequential"},
    )
    workflow = cluster.workflow(tmp_path)
    wait_for(lambda: bool(list(tmp_path.glob("results/small/plan.json"))), 120)
    workflow.wait_for_phase(workflow.plan()["runs"][0], "measure")
    cluster.kill_controller()
    try:
        time.sleep(away_s)
    finally:
        cluster.revive_controller()
    assert workflow.end() == 0, workflow.log()
    assert "3 of 3 runs completed" in workflow.log()
    assert not queue("%A")


@pytest.mark.long
def test_jobs_that_can_never_start_are_named_and_one_interrupt_ends_the_study(
    cluster: Cluster, tmp_path: Path
) -> None:
    write_study(tmp_path)
    profile = tmp_path / "larger" / "config.yaml"
    profile.parent.mkdir()
    shipped = (ROOT / "profiles/slurm/config.yaml").read_text()
    profile.write_text(shipped.replace("cpus_per_task: 8", "cpus_per_task: 64"))
    output_path = tmp_path / "said"
    words = ("run", "study.yaml", "--profile", "./larger")
    with (
        output_path.open("w") as stream,
        start_llem(tmp_path, *words, log=stream, **cluster.variables()) as process,
    ):
        wait_for(lambda: "never ends by itself" in output_path.read_text(), 240)
        assert "PartitionConfig, which never ends" in llem(tmp_path, "status", "study.yaml").stdout
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert not queue("%A")
