"""A study whose every run fails the same way is ended, says so, and continues once mended."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.processes import boot_id
from llenergymeasure.run.circuit_breaker import Circuit, CircuitBrokenError
from support.hub import COMMIT, offer_model
from support.studies import SERVED, living, llem, plan_of, result_times, snakemake, write_study


def failed(experiment: str, message: str = "no driver", kind: str = "BackendError") -> Any:
    return {"experiment": experiment, "error": {"class": kind, "message": message}}


THREE = [failed("a" * 12), failed("b" * 12), failed("c" * 12)]


def broken(folder: Path, failures: list[Any], experiments: int = 6) -> str | None:
    circuit = Circuit(folder / "circuit.jsonl")
    circuit.close(experiments)
    for failure in failures:
        circuit.add_failure(failure["experiment"], failure["error"])
    return circuit.broken_reason()


def test_three_failures_alike_break_the_circuit(tmp_path: Path) -> None:
    assert broken(tmp_path, THREE[:2]) is None
    assert broken(tmp_path, THREE) == (
        "The first 3 runs failed the same way, so the study is ended here: BackendError: no driver"
    )


def test_failures_that_differ_go_on(tmp_path: Path) -> None:
    other = failed("c" * 12, "another reason")
    assert broken(tmp_path, [*THREE[:2], other]) is None
    other = failed("c" * 12, kind="OSError")
    assert broken(tmp_path, [*THREE[:2], other]) is None


def test_what_belongs_to_one_run_alone_is_no_difference(tmp_path: Path) -> None:
    ends = [
        failed(letter * 12, f"GPU in use (pid {number}) at 0x7f{number}, run {letter * 12}/1")
        for number, letter in enumerate("abc")
    ]
    assert broken(tmp_path, ends) is not None


def test_cycles_of_one_bad_experiment_do_not_end_the_others(tmp_path: Path) -> None:
    cycles = [failed("a" * 12)] * 5
    assert broken(tmp_path, cycles) is None
    assert broken(tmp_path, cycles[:3], experiments=1) is not None


def add_all(circuit: Circuit) -> None:
    for failure in THREE:
        circuit.add_failure(failure["experiment"], failure["error"])


def test_runs_are_refused_until_the_next_call_begins(tmp_path: Path) -> None:
    circuit = Circuit(tmp_path / "circuit.jsonl")
    circuit.close(experiments=6)
    circuit.refuse_if_broken()
    add_all(circuit)
    with pytest.raises(CircuitBrokenError, match="BackendError: no driver"):
        circuit.refuse_if_broken()
    circuit.close(experiments=6)
    circuit.refuse_if_broken()


def test_nothing_breaks_once_a_run_has_completed(tmp_path: Path) -> None:
    circuit = Circuit(tmp_path / "circuit.jsonl")
    circuit.close(experiments=6)
    circuit.remove()
    add_all(circuit)
    assert circuit.broken_reason() is None
    assert not (tmp_path / "circuit.jsonl").exists()


def left_by(pid: int, **more: str) -> str:
    """What a workflow leaves that was killed after three failures alike."""
    begun = {"experiments": 6, "host": socket.gethostname(), "pid": pid, **more}
    return "".join(f"{json.dumps(line)}\n" for line in (begun, *THREE))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(left_by(2**30), id="killed"),
        pytest.param(left_by(os.getpid(), process=f"{boot_id()}:{os.getpid()}:1"), id="pid reused"),
        *["", "{", "[]\n", "{}\n{}\n", "null\n"],
    ],
)
def test_what_another_workflow_left_or_is_damaged_refuses_nothing(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "circuit.jsonl"
    path.write_text(content)
    Circuit(path).refuse_if_broken()


def outcomes(folder: Path) -> list[dict[str, Any] | None]:
    all_outcomes: list[dict[str, Any] | None] = []
    for run in plan_of(folder)["runs"]:
        path = folder / f"results/small/runs/{run['experiment']}/{run['cycle']}/outcome.json"
        content = path.read_text() if path.is_file() else ""
        all_outcomes.append(json.loads(content) if content else None)
    return all_outcomes


@pytest.mark.slow
def test_llem_stops_a_study_of_six_alike_after_three(tmp_path: Path) -> None:
    absent = [{"model": "someone/absent", "n": n} for n in range(1, 13)]
    study = write_study(tmp_path, **SERVED, experiments=absent)
    result = llem(tmp_path, "run", str(study))
    assert result.returncode == 1, result.stderr
    assert "The first 3 runs failed the same way" in result.stderr
    assert "PreflightError" in result.stderr
    all_outcomes = outcomes(tmp_path)
    assert [outcome["error"]["class"] for outcome in all_outcomes[:3] if outcome] == [
        "PreflightError"
    ] * 3
    # What begins before the workflow has ended refuses by itself.
    assert {outcome["error"]["class"] for outcome in all_outcomes[3:] if outcome} <= {
        "CircuitBrokenError"
    }
    assert all_outcomes[-1] is None
    assert (tmp_path / "results" / "small" / "runs.parquet").is_file()
    assert not living(str(tmp_path))


@pytest.mark.slow
def test_bare_snakemake_refuses_the_rest_and_the_next_call_does_it(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    experiments = [{"model": "someone/tiny", "n": n} for n in range(1, 5)]
    study = write_study(tmp_path, **SERVED, experiments=experiments)
    variables = {"HF_HUB_CACHE": str(hub)}
    result = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert result.returncode == 1
    classes = [outcome["error"]["class"] for outcome in outcomes(tmp_path) if outcome]
    assert classes == ["PreflightError"] * 3 + ["CircuitBrokenError"], result.stderr
    assert "The first 3 runs failed the same way" in result.stderr
    assert result_times(tmp_path) == {}
    offer_model(hub, "someone/tiny")
    mended = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert mended.returncode == 0, mended.stderr
    assert len(result_times(tmp_path)) == 4
    for path in tmp_path.glob("results/small/runs/*/*/result.json"):
        record = json.loads(path.read_text())
        assert record["provenance"]["workload"]["model_commit"] == COMMIT
    assert not (tmp_path / "results" / "small" / "circuit.jsonl").exists()
    assert not living(str(tmp_path))
