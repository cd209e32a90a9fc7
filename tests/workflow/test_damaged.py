"""A damaged result is named and measured again, and what is left of it stays.

Where nothing has to be measured the results are synthetic: what is looked at is the workflow.
"""

import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workflow.open_study import prepare
from llenergymeasure.workload.load_study import load_study
from results.synthetic import make_result, write_result
from support.studies import SERVED, llem, snakemake, write_study

pytestmark = pytest.mark.slow


def leave_results(folder: Path, study: Path) -> list[RunFolder]:
    """Leave a synthetic result for every run of a study, as if it had been measured."""
    results = StudyFolder(folder / "results" / "small")
    runs = make_plan(load_study(study)).runs
    for run in runs:
        write_result(results.path, make_result(asdict(run)))
    return [results.run(run.experiment, run.cycle) for run in runs]


def swap(one: RunFolder, other: RunFolder) -> None:
    one.path.rename(one.path.with_name("9"))
    other.path.rename(one.path)
    one.path.with_name("9").rename(other.path)


def test_tables_are_made_again_where_a_run_was_replaced_and_not_where_it_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = write_study(tmp_path, **SERVED, experiments=[{"n": n} for n in (1, 2)])
    run, _ = leave_results(tmp_path, study)
    result = snakemake(tmp_path, "--configfile", str(study), "--cores", "1")
    assert result.returncode == 0, result.stderr
    folder = StudyFolder(Path("results/small"))
    plan = Plan.read(folder.plan)
    for replaced in (False, True):
        shutil.copytree(run.path, run.path.with_name("9"))
        shutil.rmtree(run.path)
        run.path.with_name("9").rename(run.path)
        if replaced:
            planned_run = plan.runs[0]
            write_result(folder.path, make_result(asdict(planned_run), energy_j=7.0))
            for path in run.path.iterdir():
                os.utime(path, (1e9, 1e9))  # as a backup brings it back
        prepare(plan, folder)
        result = snakemake(tmp_path, "--configfile", str(study), "--dry-run")
        assert ("Merging the runs' tables" in result.stdout + result.stderr) == replaced, (
            result.stdout
        )


@pytest.mark.parametrize(("before", "after"), [((1, 2), (1,)), ((1,), (1, 2))])
def test_tables_follow_their_runs_also_after_a_clock_was_a_year_ahead(
    tmp_path: Path, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    study = write_study(tmp_path, **SERVED, experiments=[{"n": n} for n in before])
    leave_results(tmp_path, study)
    assert snakemake(tmp_path, "--configfile", str(study), "--cores", "1").returncode == 0
    year_ahead_s = time.time() + 365 * 86_400
    for path in tmp_path.glob("results/**/*"):
        os.utime(path, (year_ahead_s, year_ahead_s))
    write_study(tmp_path, **SERVED, experiments=[{"n": n} for n in after])
    if len(after) > len(before):
        leave_results(tmp_path, study)
        for path in tmp_path.glob("results/small/runs/*/*/*"):
            os.utime(path, (year_ahead_s, year_ahead_s))
    result = snakemake(tmp_path, "--configfile", str(study), "--cores", "1")
    assert result.returncode == 0, result.stderr
    assert pq.read_table(tmp_path / "results/small/runs.parquet").num_rows == len(after)
    again = snakemake(tmp_path, "--configfile", str(study), "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_bare_snakemake_measures_damaged_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = write_study(tmp_path, **SERVED, experiments=[{"n": n} for n in range(1, 7)])
    runs = leave_results(tmp_path, study)
    swapped, other, empty, cut, strange, complete = runs
    swap(swapped, other)
    empty.result.write_bytes(b"")
    half = cut.result.read_bytes()[: cut.result.stat().st_size // 2]
    cut.result.write_bytes(half)
    shutil.copy(complete.row, strange.row)
    unfinished = [
        StudyFolder(tmp_path / "results/small").path / ".runs.parquet.abc.part",
        complete.path / ".outcome.json.abc.part",
    ]
    for path in unfinished:
        path.write_bytes(b"half")

    result = snakemake(tmp_path, "--configfile", str(study), "--dry-run")
    assert result.returncode == 0, result.stderr
    for run in runs[:5]:
        assert f"Damaged: {run.path.relative_to(tmp_path)}/" in result.stderr
        assert run.result.exists()
    plan, folder = make_plan(load_study(study)), StudyFolder(Path("results/small"))
    prepare(plan, folder)
    assert not any(run.result.exists() for run in runs[:5])
    result = snakemake(tmp_path, "--configfile", str(study), "--dry-run")
    assert "measure        5" in result.stdout + result.stderr
    assert (cut.path / "damaged-1" / "result.json").read_bytes() == half
    assert (strange.path / "damaged-1" / "run.parquet").read_bytes() == complete.row.read_bytes()
    assert is_complete(complete)
    assert not (complete.path / "damaged-1").exists()
    assert not any(path.exists() for path in unfinished)

    empty.result.write_bytes(b"")
    output = llem(tmp_path, "status", "results/small").stdout
    assert "6 runs: 1 completed, 1 lost, 4 missing" in output
    assert "DamagedRecord" in output
    prepare(plan, folder)
    assert (empty.path / "damaged-2" / "result.json").read_bytes() == b""


def test_llem_measures_a_damaged_run_again(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SERVED, experiments=[{"n": 1}, {"n": 2}])
    first, second = leave_results(tmp_path, study)
    content = second.result.read_bytes()
    first.result.write_bytes(b"")
    result = llem(tmp_path, "run", str(study))
    assert result.returncode == 0, result.stderr
    assert "small: 2 runs, 1 to do" in result.stderr
    assert f"Damaged: {first.path.relative_to(tmp_path)}/result.json: is no JSON" in result.stderr
    assert is_complete(first)
    assert json.loads(first.outcome.read_text())["result_sha256"]
    assert second.result.read_bytes() == content
    assert "Nothing to be done" in llem(tmp_path, "run", str(study)).stderr


def test_partial_tables_never_stand_where_complete_ones_were(tmp_path: Path) -> None:
    results = tmp_path / "results" / "small"
    study = write_study(tmp_path, **SERVED, experiments=[{"n": 1}])
    leave_results(tmp_path, study)
    assert llem(tmp_path, "run", str(study)).returncode == 0
    complete = {name: (results / name).read_bytes() for name in ("summary.csv", "report.html")}
    write_study(tmp_path, **SERVED, experiments=[{"n": 1}, {"model": "someone/absent"}])
    assert llem(tmp_path, "run", str(study)).returncode == 1
    assert (results / "summary.csv").read_bytes() != complete["summary.csv"]
    write_study(tmp_path, **SERVED, experiments=[{"n": 1}])
    result = llem(tmp_path, "run", str(study))
    assert result.returncode == 0, result.stderr
    for name, content in complete.items():
        assert (results / name).read_bytes() == content, name
    assert "Nothing to be done" in llem(tmp_path, "run", str(study)).stderr
