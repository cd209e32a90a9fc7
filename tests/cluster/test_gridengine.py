"""The profile for schedulers without an executor of their own, as written for Grid Engine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.programs import program
from support.studies import ROOT, llem, result_times, start_llem, wait_for, write_study

STATUS = ROOT / "profiles/generic/status.sh"

HERE = """case $1 in
    -u) echo '7 0.5 llem root {state} 11/27/2026 all.q 1' ;;
    -j) echo 'job_number: 7'; echo 'error reason 1: cannot open logs: no such folder' ;;
esac"""
GONE = "echo 'Following jobs do not exist:' >&2; exit 1"
AWAY = "echo 'error: unable to contact qmaster using port 6444' >&2; exit 1"
ENDED = "echo 'failed       {failed}'; echo 'exit_status  {code}'"


def status(folder: Path, qstat: str, qacct: str) -> "subprocess.CompletedProcess[str]":
    """Ask the profile's script of job 7, with these in place of Grid Engine's commands."""
    commands = {"qstat": qstat, "qacct": qacct, "qdel": "true", "sleep": "true"}
    for name, script in commands.items():
        program(folder / name, script)
    return subprocess.run(
        [str(STATUS), "7"],
        env={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("qstat", "qacct", "said"),
    [
        (HERE.format(state="r"), "exit 1", "running"),
        (HERE.format(state="qw"), "exit 1", "running"),
        (HERE.format(state="Eqw"), "exit 1", "failed"),
        (AWAY, "exit 1", "running"),
        (GONE, ENDED.format(failed="0", code="0"), "success"),
        (GONE, ENDED.format(failed="0", code="1"), "failed"),
        (GONE, ENDED.format(failed="100 : assumedly after job", code="137"), "failed"),
        (GONE, "exit 1", "failed"),
    ],
)
def test_what_the_profile_says_of_a_job(tmp_path: Path, qstat: str, qacct: str, said: str) -> None:
    result = status(tmp_path, qstat, qacct)
    assert result.stdout == f"{said}\n"
    assert ("cannot open logs" in result.stderr) == ("Eqw" in qstat)


@pytest.fixture
def grid_engine() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("qsub") is None:
        pytest.skip("no Grid Engine: .ci/start_gridengine.sh installs it, as root")
    subprocess.run([str(ROOT / ".ci/start_gridengine.sh")], timeout=400, check=True)
    yield
    subprocess.run(["qdel", "-u", "root"], timeout=60, check=False)
    subprocess.run(["qconf", "-kej", "all"], timeout=60, check=False)
    subprocess.run(["qconf", "-km"], timeout=60, check=False)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.system
@pytest.mark.usefixtures("grid_engine")
def test_a_study_on_a_real_grid_engine(tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    write_study(
        tmp_path,
        window={"min_seconds": 20},
        execution={"n_cycles": 2, "cycle_order": "sequential", "skip_preflight": True},
    )
    first = start_llem(tmp_path, "run", "study.yaml", "--profile", "generic")
    # One job is ended by somebody else, in the middle of its run.
    runs = tmp_path / "results/small/runs"
    wait_for(lambda: any(runs.glob("*/*/work/marks.jsonl")), 300)
    mine = subprocess.check_output(["qstat", "-s", "r"], text=True).splitlines()[2].split()[0]
    subprocess.run(["qdel", mine], timeout=60, check=True)
    assert first.wait(500) == 1
    times = result_times(tmp_path)
    assert len(times) == 1
    second = llem(tmp_path, "run", "study.yaml", "--profile", "generic")
    assert second.returncode == 0, second.stdout + second.stderr
    assert result_times(tmp_path).items() > times.items()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.system
@pytest.mark.usefixtures("grid_engine")
def test_a_job_that_no_machine_can_run_is_refused_as_it_is_submitted(tmp_path: Path) -> None:
    """It would wait in the queue, and the workflow for it, for good."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    write_study(tmp_path, execution={"n_cycles": 1, "skip_preflight": True})
    mine = tmp_path / "mine"
    shutil.copytree(ROOT / "profiles/generic", mine)
    config = mine / "config.yaml"
    config.write_text(config.read_text().replace("gpu={resources.gpu}", "gpu=99"))
    result = llem(tmp_path, "run", "study.yaml", "--profile", "./mine")
    assert result.returncode == 1
    assert "no suitable queues" in result.stdout + result.stderr
