"""Runs of a cycle on one start of their server: the starts, and what a failure or a kill costs."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.results.complete import is_measured
from llenergymeasure.results.layout import RunFolder
from support.serving_server import command
from support.studies import (
    living,
    llem,
    measuring,
    plan_of,
    result_times,
    start_llem,
    wait_for,
    write_study,
)

pytestmark = pytest.mark.slow


def _study(folder: Path, serving: list[dict[str, Any]], window_s: float, **execution: Any) -> Path:
    """A study of experiments that differ in their traffic, on the tests' own server."""
    server = ("--first-ms", "5", "--next-ms", "1", "--die-at-input", "99")
    return write_study(
        folder,
        backend="openai",
        openai={"command": command("{port}", *server, "--starts", str(folder / "starts"))},
        experiments=[
            {"serving": {"rate_per_s": 20, "ramp_up_max_seconds": 2, **each}} for each in serving
        ],
        window={"min_seconds": window_s},
        execution={"cycle_order": "interleaved", "share_server": True, **execution},
    )


def _starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


def _runs(folder: Path) -> list[RunFolder]:
    """The runs' folders in the order in which they are run."""
    runs = folder / "results" / "small" / "runs"
    planned = plan_of(folder)["runs"]
    return [RunFolder(runs / run["experiment"] / str(run["cycle"])) for run in planned]


def _record(run: RunFolder) -> dict[str, Any]:
    return dict(json.loads(run.result.read_text()))


@pytest.mark.long
def test_six_rates_in_three_cycles_start_three_servers(tmp_path: Path) -> None:
    rates = [{"rate_per_s": rate} for rate in (5, 10, 15, 20, 25, 30)]
    study = _study(tmp_path, rates, 1.0, n_cycles=3, cycle_order="shuffled")
    result = llem(tmp_path, "run", str(study), timeout_s=1800)
    assert result.returncode == 0, result.stderr
    assert _starts(tmp_path) == 3
    records = [_record(run) for run in _runs(tmp_path)]
    assert len(records) == 18
    shared = [record["provenance"]["shared_server"] for record in records]
    assert [result_record["place"] for result_record in shared] == [1, 2, 3, 4, 5, 6] * 3
    assert len({result_record["started_by"] for result_record in shared}) == 3
    loads = [[phase["name"] for phase in record["phases"]].count("load") for record in records]
    assert loads == [1, 0, 0, 0, 0, 0] * 3  # the start's energy is the first run's
    assert len({record["provenance"]["workload"]["content_seed"] for record in records}) == 18
    assert {record["provenance"]["attempt"] for record in records} == {1}
    assert not living(str(tmp_path))


def test_one_failing_rate_ends_its_server_and_costs_no_other_run(tmp_path: Path) -> None:
    deadly = {"input_tokens": {"tokens": 99}}
    study = _study(tmp_path, [{"rate_per_s": 10}, deadly, {"rate_per_s": 30}], 0.5, n_cycles=1)
    result = llem(tmp_path, "run", str(study))
    assert result.returncode == 1, result.stderr
    first, failing, last = _runs(tmp_path)
    finished = result_times(tmp_path)
    assert len(finished) == 2
    assert _starts(tmp_path) == 2
    assert [_record(run)["provenance"]["shared_server"]["place"] for run in (first, last)] == [1, 1]
    outcome = json.loads(failing.outcome.read_text())
    assert (outcome["status"], outcome["attempt"]) == ("failed", 1)
    assert "server" in outcome["error"]["message"]
    assert f"run.log of {first.path.parent.name}/1" in outcome["error"]["message"]
    assert "server" in result.stderr

    again = llem(tmp_path, "run", str(study))
    assert again.returncode == 1
    assert result_times(tmp_path) == finished
    assert _starts(tmp_path) == 3
    assert json.loads(failing.outcome.read_text())["attempt"] == 2
    assert not living(str(tmp_path))


@pytest.mark.long
def test_an_interrupt_and_a_kill_cost_no_run_that_was_measured(tmp_path: Path) -> None:
    study = _study(tmp_path, [{"rate_per_s": rate} for rate in (10, 20, 30)], 3.0, n_cycles=1)
    process = start_llem(tmp_path, "run", str(study))
    wait_for(lambda: (tmp_path / "results/small/plan.json").is_file())
    first, second, third = _runs(tmp_path)
    wait_for(lambda: measuring(first.path))
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    wait_for(lambda: not living(str(tmp_path)), 180)
    assert len(result_times(tmp_path)) == 1  # the current run ended, and no other began
    finished = result_times(tmp_path)

    process = start_llem(tmp_path, "run", str(study))
    wait_for(lambda: measuring(third.path))
    assert is_measured(second)
    measured = second.engine.read_bytes()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not living(str(tmp_path)), 180)
    assert result_times(tmp_path).items() >= finished.items()
    assert not third.result.is_file()

    assert llem(tmp_path, "run", str(study)).returncode == 0
    times = result_times(tmp_path)
    assert len(times) == 3
    assert finished.items() <= times.items()
    start_ns = json.loads(measured)["window"]["start_ns"]
    assert _record(second)["window"]["start_monotonic_ns"] == start_ns
    assert _starts(tmp_path) == 3
    assert not living(str(tmp_path))
