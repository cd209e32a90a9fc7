"""A study whose every run fails the same way is ended, and says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.workflow.breaker import broken_circuit
from support.studies import living, llem, plan_of, write_study


def failed(experiment: str, message: str = "no driver", kind: str = "BackendError") -> Any:
    error = {"class": kind, "message": message}
    return {"experiment": experiment, "status": "failed", "error": error}


THREE = [failed("a" * 12), failed("b" * 12), failed("c" * 12)]


def test_three_failures_alike_break_the_circuit() -> None:
    assert broken_circuit(THREE[:2], 6, completed_before=False) is None
    broken = broken_circuit(THREE, 6, completed_before=False)
    assert broken is not None
    assert str(broken).endswith("BackendError: no driver")
    assert "first 3 runs" in str(broken)


def test_a_study_that_has_something_to_show_goes_on() -> None:
    completed = {"experiment": "d" * 12, "status": "completed", "error": None}
    assert broken_circuit([completed, *THREE], 6, completed_before=False) is None
    assert broken_circuit(THREE, 6, completed_before=True) is None


def test_failures_that_differ_go_on() -> None:
    other = failed("c" * 12, "another reason")
    assert broken_circuit([*THREE[:2], other], 6, completed_before=False) is None
    other = failed("c" * 12, kind="OSError")
    assert broken_circuit([*THREE[:2], other], 6, completed_before=False) is None


def test_what_belongs_to_one_run_alone_is_no_difference() -> None:
    ends = [
        failed(letter * 12, f"GPU in use (pid {number}) at 0x7f{number}, run {letter * 12}/1")
        for number, letter in enumerate("abc")
    ]
    assert broken_circuit(ends, 6, completed_before=False) is not None


def test_cycles_of_one_bad_experiment_do_not_end_the_others() -> None:
    cycles = [failed("a" * 12)] * 5
    assert broken_circuit(cycles, 6, completed_before=False) is None
    assert broken_circuit(cycles[:3], 1, completed_before=False) is not None


def test_interrupted_runs_say_nothing() -> None:
    stopped = [{**each, "status": "interrupted"} for each in THREE]
    assert broken_circuit(stopped, 6, completed_before=False) is None


@pytest.mark.slow
def test_a_study_of_six_alike_stops_after_three(tmp_path: Path) -> None:
    absent = [{"model": "someone/absent", "n": n} for n in range(1, 7)]
    study = write_study(tmp_path, experiments=absent)
    done = llem(tmp_path, "run", str(study))
    assert done.returncode == 1, done.stderr
    assert "The first 3 runs failed the same way" in done.stderr
    assert "PreflightError" in done.stderr
    statuses = []
    for run in plan_of(tmp_path)["runs"]:
        folder = tmp_path / "results" / "small" / "runs" / run["experiment"] / str(run["cycle"])
        path = folder / "outcome.json"
        content = path.read_text() if path.is_file() else ""
        statuses.append(json.loads(content)["status"] if content else "missing")
    assert statuses[:3] == ["failed"] * 3
    assert statuses[4:] == ["missing"] * 2
    assert (tmp_path / "results" / "small" / "runs.parquet").is_file()
    assert not living(str(tmp_path))
