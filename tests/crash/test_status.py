"""The state of a large study is told without a look at every file, and is the same."""

import errno
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import files
from llenergymeasure.analysis.tables import (
    outdated_reason,
    read_table,
    write_file,
    write_tables,
)
from llenergymeasure.analysis.verify import verify_study
from llenergymeasure.cli.report import report
from llenergymeasure.cli.status import status
from llenergymeasure.plan import Plan, PlannedRun, make_plan
from llenergymeasure.results.complete import Difference, first_fault
from llenergymeasure.results.layout import TABLE_NAMES, RunFolder, StudyFolder
from llenergymeasure.workflow import manifest
from llenergymeasure.workflow.open_study import prepare
from llenergymeasure.workflow.snakemake_study import SnakemakeStudy
from llenergymeasure.workload.load_study import study_from_mapping
from results.synthetic import make_result, write_result
from support.programs import program
from support.studies import SMALL

STUDY = {**SMALL, "sweep": {"n": [1, 2, 3]}, "execution": {"n_cycles": 2}}


def write_whole(folder: StudyFolder, run: PlannedRun) -> None:
    """Leave a whole result of a planned run."""
    write_result(folder.path, make_result(asdict(run)))


@pytest.fixture
def study(tmp_path: Path) -> tuple[Plan, StudyFolder]:
    """A plan of six runs: one complete, one failed, the rest not begun."""
    plan, folder = make_plan(study_from_mapping(STUDY)), StudyFolder(tmp_path)
    second = folder.run(plan.runs[1].experiment, plan.runs[1].cycle)
    second.path.mkdir(parents=True)
    write_whole(folder, plan.runs[0])
    second.outcome.write_text(json.dumps({"status": "failed", "attempt": 1}))
    return plan, folder


def test_it_says_what_a_look_at_every_file_says(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = study
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", -(10**10))

    def same() -> list[dict[str, Any]]:
        states = manifest.states(plan, folder)
        assert states == manifest.states(plan, folder, full=True)
        return states

    same()
    manifest.write_manifest(plan, folder)
    write_whole(folder, plan.runs[2])
    assert manifest.count_states(same()) == {"completed": 2, "failed": 1, "missing": 3}
    shutil.rmtree(folder.run(plan.runs[0].experiment, plan.runs[0].cycle).path)
    assert manifest.count_states(same()) == {"completed": 1, "failed": 1, "missing": 4}


def looked_at(
    plan: Plan, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, **settings: bool
) -> list[RunFolder]:
    """Return the finished runs whose files are read to tell the states."""
    looked: list[RunFolder] = []

    def look(run: RunFolder) -> Difference | None:
        looked.append(run)
        return first_fault(run)

    monkeypatch.setattr(manifest, "first_fault", look)
    manifest.states(plan, folder, **settings)
    return looked


def test_what_was_whole_and_has_not_changed_is_not_read(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = study
    first = folder.run(plan.runs[0].experiment, 1)
    manifest.write_manifest(plan, folder)
    assert looked_at(plan, folder, monkeypatch) == [first]  # it was written just now
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", -(10**10))
    manifest.write_manifest(plan, folder)
    assert looked_at(plan, folder, monkeypatch) == []
    assert looked_at(plan, folder, monkeypatch, full=True) == [first]
    os.utime(first.row)
    assert looked_at(plan, folder, monkeypatch) == [first]


def test_no_flipped_bit_of_a_manifest_makes_a_run_complete(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = study
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", -(10**10))
    manifest.write_manifest(plan, folder)
    right, content = manifest.states(plan, folder), folder.manifest.read_bytes()
    rng = random.Random(7)
    for bit in [rng.randrange(8 * len(content)) for _ in range(300)]:
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        folder.manifest.write_bytes(flipped)
        assert manifest.states(plan, folder) == right


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EMFILE, errno.ENOTCONN])
def test_a_disk_that_is_away_makes_no_run_a_damaged_one(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Every finished run was put aside then, to be measured again."""
    plan, folder = study
    run, reading = folder.run(plan.runs[0].experiment, 1), files.open_to_read

    def away(path: Path) -> BufferedReader:
        if Path(path).suffix == ".parquet":
            raise OSError(number, os.strerror(number), str(path))
        return reading(path)

    with monkeypatch.context() as patched:
        patched.setattr(files, "open_to_read", away)
        with pytest.raises(OSError, match=r"run\.parquet"):
            prepare(plan, folder)
    prepare(plan, folder)
    assert first_fault(run) is None
    assert not (run.path / "damaged-1").exists()


def test_a_file_that_stays_unreadable_stops_no_look_at_the_others(
    study: tuple[Plan, StudyFolder],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan, folder = study
    prepare(plan, folder)
    write_whole(folder, plan.runs[2])
    bad, reading = folder.run(plan.runs[0].experiment, 1), files.open_to_read

    def broken(path: Path) -> BufferedReader:
        if Path(path) == bad.row:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return reading(path)

    monkeypatch.setattr(files, "open_to_read", broken)
    status(folder.path, full=True)
    out = capsys.readouterr().out
    assert "1 completed, 1 failed, 1 lost" in out
    assert "Input/output error" in out
    report(folder.path)
    rows = read_table(folder.path, "runs.parquet").to_pylist()
    assert [rows[place]["status"] for place in (0, 2)] == ["lost", "completed"]
    differences = verify_study(folder.path).differences
    assert any("Input/output error" in str(difference) for difference in differences)


def test_a_damaged_table_is_behind_and_is_written_again(study: tuple[Plan, StudyFolder]) -> None:
    plan, folder = study
    prepare(plan, folder)
    write_tables(folder.path, partial=True)
    opened = SnakemakeStudy.__new__(SnakemakeStudy)
    opened._folder = folder
    assert not opened._tables_are_stale()
    write_whole(folder, plan.runs[2])
    assert (outdated_reason(folder.path) or "").startswith(
        f"1 run of {folder.path} has completed since"
    )
    write_tables(folder.path, partial=True)
    (folder.path / "runs.parquet").write_bytes(b"PAR1 and no more")
    assert opened._tables_are_stale()


@pytest.mark.parametrize("written", range(len(TABLE_NAMES)))
def test_tables_of_which_some_were_not_written_are_said_to_be_behind(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """As after a kill, or on a full disk: the summary knew fewer runs, and nothing said so."""
    plan, folder = study
    prepare(plan, folder)
    write_tables(folder.path, partial=True)
    write_whole(folder, plan.runs[2])
    remaining = iter(range(written))

    def write_some(path: Path, write: Callable[[Path], object], *, partial: bool) -> None:
        if next(remaining, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_file(path, write, partial=partial)

    with monkeypatch.context() as patch:
        patch.setattr("llenergymeasure.analysis.tables.write_file", write_some)
        with pytest.raises(OSError, match="No space"):
            write_tables(folder.path, partial=True)
    assert outdated_reason(folder.path) is not None


def test_tables_are_older_than_a_plan_whose_run_was_replaced(
    study: tuple[Plan, StudyFolder], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that a backup brings back is older than tables that were made of another one."""
    plan, folder = study
    monkeypatch.setattr("llenergymeasure.results.complete.SETTLED_NS", -(10**10))
    run, backup = folder.run(plan.runs[0].experiment, 1), tmp_path / "backup"
    shutil.copytree(run.path, backup)
    prepare(plan, folder)
    os.utime(folder.plan, (1e9, 1e9))
    tables = [folder.path / "runs.parquet", folder.path / "report.html"]
    for table in tables:
        table.touch()
    for path in run.path.iterdir():
        path.chmod(0o600)  # another stamp, the same content
    prepare(plan, folder)
    assert all(table.stat().st_mtime > 1e9 for table in tables)
    for changed in (False, True):
        shutil.rmtree(run.path)
        shutil.copytree(backup, run.path)
        if changed:
            write_result(folder.path, make_result(asdict(plan.runs[0]), energy_j=7.0))
        prepare(plan, folder)
        assert [table.stat().st_mtime < 1e9 for table in tables] == [changed] * 2
    # That time is by when the data of the study were there: preflight compares it.
    assert folder.plan.stat().st_mtime == 1e9


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": [{}]}'])
def test_a_damaged_manifest_is_passed_over(study: tuple[Plan, StudyFolder], content: str) -> None:
    plan, folder = study
    folder.manifest.write_text(content)
    assert manifest.states(plan, folder) == manifest.states(plan, folder, full=True)


def test_what_runs_were_warned_of_is_told_once(
    study: tuple[Plan, StudyFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, folder = study
    folder.plan.write_bytes(plan.to_json_bytes())
    for number, run in enumerate(plan.runs):
        result = make_result(asdict(run))
        warned = [{"key": None, "message": f"{number} MiB of GPU-1\x1b[2J are in use"}]
        result.provenance.update(preflight=warned, workload={"notes": []})
        write_result(folder.path, result)
    status(folder.path, as_json=False)
    note = "  Note: 0 MiB of GPU-1\\u001b[2J are in use (noted in 6 runs; this is the first)\n"
    assert note in capsys.readouterr().out
    status(folder.path, as_json=True)
    assert json.loads(capsys.readouterr().out)["notes"] == ["0 MiB of GPU-1\x1b[2J are in use"]


def test_a_queue_that_does_not_answer_is_waited_for_no_longer_than_seconds(
    study: tuple[Plan, StudyFolder],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("llenergymeasure.cli.status.QUEUE_TIMEOUT_S", 0.3)
    plan, folder = study
    folder.plan.write_bytes(plan.to_json_bytes())
    squeue = program(tmp_path / "bin" / "squeue", "exec sleep 30")
    monkeypatch.setenv("PATH", f"{squeue.parent}{os.pathsep}{os.environ['PATH']}")
    began = time.monotonic()
    status(folder.path)
    assert time.monotonic() - began < 5
    output = capsys.readouterr()
    assert f"small: {len(plan.runs)} runs" in output.out
    assert "squeue did not answer" in output.err
