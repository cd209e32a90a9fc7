"""What the system refuses is one line with its cause and its place, and never a traceback."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pytest

from cli.commands import Call
from llenergymeasure.files import locked
from llenergymeasure.machine.folders import why_not_writable
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workload.load_study import load_study
from report.studies import without_drawing
from results.synthetic import make_result, write_result
from support.studies import (
    MAIN,
    ROOT,
    SERVED,
    environment,
    llem,
    start_llem,
    wait_for,
    write_study,
)

FAILS_TO_SYNC = """
import os, runpy, sys
def fsync(_handle):
    raise OSError(5, os.strerror(5))
os.fsync = fsync
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with a plan and a synthetic result; return its results folder."""
    file = write_study(tmp_path)
    plan, results = make_plan(load_study(file)), StudyFolder(tmp_path / "results" / "small")
    (run,) = plan.runs
    write_result(results.path, make_result(asdict(run)))
    results.plan.write_bytes(plan.to_json_bytes())
    return results.path


def test_a_disk_that_fails_while_tables_are_merged(study: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FAILS_TO_SYNC, str(ROOT / "scripts/aggregate.py"), str(study)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"llem: {study}/")
    assert "Input/output error" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def prefs_into(output: IO[Any], unbuffered: str = "") -> "subprocess.CompletedProcess[str]":
    """Run ``llem prefs`` with its output to an open file."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, "prefs", "--json"],
        env=environment(PYTHONUNBUFFERED=unbuffered),
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = prefs_into(full, unbuffered)
    assert result.returncode == 1
    assert result.stderr == "llem: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_ends_it_without_a_word(unbuffered: str) -> None:
    """As ``llem prefs | head -1`` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        result = prefs_into(output, unbuffered)
    assert (result.returncode, result.stderr) == (1, "")


def test_a_cache_of_snakemake_s_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = call("run", str(write_study(tmp_path)))
    assert result.code != 0
    assert "Snakemake's cache cannot be written" in result.err
    assert "choose another: XDG_CACHE_HOME" in result.err
    assert "Traceback" not in result.err
    assert not list((tmp_path / "results").glob("*/runs/*"))


def test_a_quota_is_seen_by_writing_what_snakemake_will(tmp_path: Path) -> None:
    """Of a home that is almost full a byte tells nothing."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        assert why_not_writable(tmp_path) is None
        assert why_not_writable(tmp_path, 1_000_000) == os.strerror(errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_report_that_cannot_be_written_by_command(study: Path, call: Call) -> None:
    (study / "figures").write_text("in the way")
    with without_drawing():
        result = call("report", str(study))
    assert result.code == 1
    assert result.err == f"llem: {study}/figures: Not a directory\n"


@pytest.mark.slow
def test_a_report_that_cannot_be_written_by_the_workflow(study: Path, tmp_path: Path) -> None:
    (study / "figures").write_text("in the way")
    result = llem(tmp_path, "run", "study.yaml")
    assert result.returncode == 1
    assert "llem: results/small/figures: Not a directory" in result.stderr.splitlines()
    assert "Report:" not in result.stdout
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) < 5


def test_a_study_in_use_is_left_as_it_is(study: Path, call: Call) -> None:
    (study / "snakemake.log").write_text("the other's")
    (study / ".call.json").write_text("{}")
    with locked(study / ".lock", "llem"):
        result = call("run", "study.yaml", "--cycles", "2")
    assert result.code == 1
    where = f"pid {os.getpid()} on {os.uname().nodename}"
    wanted = f"llem: results/small is in use by llem ({where}); wait for it to end\n"
    assert result.err == wanted
    assert (study / "snakemake.log").read_text() == "the other's"
    assert (study / ".call.json").read_text() == "{}"


def test_tables_that_were_not_made_yet_are_no_difference(
    study: Path, tmp_path: Path, call: Call
) -> None:
    file = write_study(tmp_path, execution={"n_cycles": 2})
    StudyFolder(study).plan.write_bytes(make_plan(load_study(file)).to_json_bytes())
    for path in StudyFolder(study).path.glob("runs/*/1/*"):
        path.unlink()
    result = call("verify", str(study), "--json")
    assert (result.code, json.loads(result.out)["differences"]) == (0, [])
    assert json.loads(result.out)["missing"] == 2


@pytest.mark.slow
def test_a_folder_deleted_beneath_a_study_at_work(tmp_path: Path) -> None:
    write_study(tmp_path, **SERVED, window={"min_seconds": 5})
    results = tmp_path / "results" / "small"
    with (tmp_path / "said").open("wb") as log:
        process = start_llem(tmp_path, "run", "study.yaml", log=log)
    wait_for(lambda: any(RunFolder(run).marks.is_file() for run in results.glob("runs/*/1")))
    shutil.rmtree(results, ignore_errors=True)
    assert process.wait(200) == 1
    output = (tmp_path / "said").read_text()
    assert "llem: results/small was removed while the study was running" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_disk_is_refused_before_any_run(tmp_path: Path) -> None:
    study, results = write_study(tmp_path), tmp_path / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(results)]
    subprocess.run(mount, check=True)
    try:
        result = llem(tmp_path, "run", str(study))
        assert not list(results.glob("small/runs/*"))
    finally:
        subprocess.run(["umount", str(results)], check=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()[1:]
    assert "MB are free for results; make room" in line


def test_a_name_that_the_locale_cannot_write_is_refused_in_a_line(tmp_path: Path) -> None:
    write_study(tmp_path, name="\u00e9tude")
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = llem(tmp_path, "run", "study.yaml", variables=ascii_alone)
    assert result.returncode == 2
    assert "name: cannot be a folder's name in this locale" in result.stderr
    assert len(result.stderr.splitlines()) == 1
