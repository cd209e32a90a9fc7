"""``llem clean`` finds what killed runs left, shows it, and leaves alone what is whole or runs."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from cli.commands import Call
from llenergymeasure.files import locked
from llenergymeasure.results.layout import RUN_VARIABLE, StudyFolder
from results.synthetic import make_plan, write_complete_study, write_outcome
from support.programs import program

CONFIGS = [{"model": "tiny-llama", "n": n} for n in (1, 2)]


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """A study of which one run is finished and the other was killed in mid-write."""
    folder = tmp_path / "results" / "small"
    plan = make_plan(CONFIGS, ["n"])
    write_complete_study(folder, plan)
    killed = plan["runs"][1]
    run = StudyFolder(folder).run(killed["experiment"], killed["cycle"])
    run.result.unlink()
    for path in (run.samples, run.stream, run.path / ".result.json.abc.part"):
        path.write_bytes(b"half")
    run.work.mkdir()
    (run.work / "marks.jsonl").write_text("")
    write_outcome(folder, killed, status="interrupted")
    return StudyFolder(folder)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, call: Call) -> Call:
    """Calls ``llem clean`` where the study's results are."""
    monkeypatch.delenv("LLEM_OUTPUT_DIR", raising=False)
    return partial(call, "clean")


def _names(clean: Call) -> list[str]:
    result = clean("--json")
    assert result.code == 0, result.err
    return sorted(Path(entry["name"]).name for entry in json.loads(result.out))


def test_shows_first_and_removes_when_told(study: StudyFolder, clean: Call) -> None:
    finished = {path: path.read_bytes() for path in study.path.glob("runs/*/*/result.json")}
    expected = [".result.json.abc.part", "run.parquet", "samples.arrows", "samples.parquet", "work"]
    assert _names(clean) == expected
    listing = clean()
    assert listing.code == 0
    assert "half of a result" in listing.out
    assert "--yes" in listing.out
    assert _names(clean) == expected
    assert clean("results/small", "--yes").code == 0
    assert _names(clean) == []
    assert {path: path.read_bytes() for path in finished} == finished
    assert len(list(study.path.glob("runs/*/*/run.parquet"))) == len(finished)
    assert len(list(study.path.glob("runs/*/*/outcome.json"))) == 1


def test_what_was_measured_whole_stays_for_the_next_call(study: StudyFolder, clean: Call) -> None:
    for work in study.path.glob("runs/*/*/work"):
        (work / "engine.json").write_text("{}")
    assert _names(clean) == []


def test_what_was_killed_while_its_quality_was_looked_at_stays(
    study: StudyFolder, clean: Call
) -> None:
    """Where the study then asks for none, the next call makes a result of the window."""
    (work,) = study.path.glob("runs/*/*/work")
    (work / "engine.json").write_text('{"quality": null}')
    sections = {"sections": {"quality": {"texts": "texts.txt"}}}
    (work / "spec.json").write_text(json.dumps(sections))
    study.plan.write_text(json.dumps({**json.loads(study.plan.read_text()), **sections}))
    assert clean("--yes").code == 0
    assert (work / "engine.json").is_file()
    assert (work.parent / "samples.arrows").is_file()


def test_the_user_s_own_results_folder_is_looked_into(
    study: StudyFolder, clean: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = study.path.parents[1]
    (at / "results").rename(at / "mine")
    monkeypatch.setenv("LLEM_OUTPUT_DIR", str(at / "mine"))
    result = clean("--json")
    assert "work" in [Path(entry["name"]).name for entry in json.loads(result.out)]


def test_a_run_at_work_is_passed_over(study: StudyFolder, clean: Call) -> None:
    outcome = next(study.path.glob("runs/*/*/outcome.json"))
    alive = {"status": "running", "host": os.uname().nodename, "pid": os.getpid()}
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    outcome.write_text(json.dumps({**alive, "boot_id": boot}))
    assert _names(clean) == []


def test_a_study_at_work_is_refused(study: StudyFolder, clean: Call) -> None:
    with locked(study.lock, "a workflow"):
        result = clean("results/small", "--yes")
    assert result.code != 0
    assert "in use by a workflow" in result.err


def test_a_server_that_outlived_its_run_is_ended(study: StudyFolder, clean: Call) -> None:
    run = next(study.path.glob("runs/*/*/outcome.json")).parent
    variables = {**os.environ, RUN_VARIABLE: str(run)}
    program = [sys.executable, "-c", "import time; time.sleep(300)"]
    with subprocess.Popen(program, env=variables) as server:
        try:
            listed = json.loads(clean("--json").out)
            processes = [entry["name"] for entry in listed if entry["kind"] == "process"]
            assert len(processes) == 1
            assert processes[0].startswith(f"{server.pid} ")
            assert clean("--yes").code == 0
            assert server.wait(10) == -signal.SIGTERM
        finally:
            server.kill()


def test_a_process_that_cannot_be_ended_keeps_nobody_waiting(
    study: StudyFolder, clean: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in a call into a driver that hangs: the kernel ends it when the driver answers."""
    run = next(study.path.glob("runs/*/*/outcome.json")).parent
    variables = {**os.environ, RUN_VARIABLE: str(run)}
    monkeypatch.setattr("llenergymeasure.workflow.clean.GRACE_S", 0.3)
    with subprocess.Popen(["sleep", "60"], env=variables) as server:
        monkeypatch.setattr("os.kill", lambda *_: None)
        result = clean("--yes")
        monkeypatch.undo()
        server.kill()
    assert result.code == 1
    assert f"process {server.pid} sleep 60 stays: it does not end" in result.err
    names = {path.name for path in Path(run).iterdir()}
    assert {"work", "samples.arrows", "run.parquet", ".result.json.abc.part"} <= names
    assert f"stays: process {server.pid} of its run does not end" in result.err


def test_where_nothing_is_left_it_says_so(tmp_path: Path, clean: Call) -> None:
    folder = tmp_path / "results" / "small"
    plan = make_plan(CONFIGS, ["n"])
    write_complete_study(folder, plan)
    result = clean()
    assert (result.code, result.out) == (0, "Nothing is left behind.\n")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("squeue: fatal: Could not establish a configuration source", 0),
        ("slurm_load_jobs error: Unable to contact slurm controller", 1),
    ],
)
def test_without_a_cluster_no_job_is_sought_and_a_silent_one_is_an_error(
    tmp_path: Path, clean: Call, monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    write_complete_study(tmp_path / "results" / "small", make_plan(CONFIGS, ["n"]))
    squeue = program(tmp_path / "bin" / "squeue", f"echo '{said}' >&2\nexit 1")
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=os.pathsep)
    result = clean()
    assert result.code == code, result.err
    assert (said in result.err) == (code != 0)
