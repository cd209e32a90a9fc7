"""Real runs that are disturbed from outside say so, and their preflight does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.errors import EXIT_FAILED, LlemError
from llenergymeasure.plan import make_plan
from llenergymeasure.processes import die_with_parent
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.engine import engine_process
from llenergymeasure.run.measure_script import read_spec
from llenergymeasure.run.preflight import checks
from llenergymeasure.sensors.base import SensorError, Value
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.validity_codes import DISQUALIFYING
from llenergymeasure.workload.load_study import study_from_mapping
from support.attempts import start
from support.clocks import jumping_clock
from support.studies import SERVED, SMALL

ENGINE = "engine_process"
WINDOW = {"min_seconds": 4}


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but use a CPU."""
    command = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(command, preexec_fn=die_with_parent) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.slow
@pytest.mark.system
def test_an_engine_that_was_stopped_is_stalled(tmp_path: Path) -> None:
    attempt = start(tmp_path, window=WINDOW)
    attempt.wait_for_phase("measure")
    time.sleep(1.2)  # the run's processes are known to the recorder by then
    engine = attempt.child(ENGINE)
    os.kill(engine, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(engine, signal.SIGCONT)
    assert attempt.process.wait(180) == 0
    result = attempt.result()
    assert "stalled" in result["validity"]
    assert f"process {engine}" in result["provenance"]["validity_details"]["stalled"]


@pytest.mark.slow
@pytest.mark.system
def test_strangers_on_the_cpus_are_in_the_preflight_and_the_record(tmp_path: Path) -> None:
    with busy(2 * (os.cpu_count() or 1)):
        attempt = start(tmp_path, window=WINDOW)
        assert attempt.process.wait(240) == 0
    result = attempt.result()
    assert "cpu_contended" in result["validity"]
    assert not DISQUALIFYING & set(result["validity"])  # an estimate: marked
    use = result["provenance"]["cpu_use"]
    assert use["others_share"] > 0.3
    assert use["own_cpus"] > 0
    (warning,) = [
        problem["message"]
        for problem in result["provenance"]["preflight"]
        if "other processes used" in problem["message"]
    ]
    assert "python" in warning


@pytest.mark.slow
@pytest.mark.system
def test_a_machine_that_is_suspended_within_the_window(tmp_path: Path) -> None:
    ahead, variables = jumping_clock(tmp_path, "JUMPING_BOOT_CLOCK")
    attempt = start(tmp_path / "made", variables=variables, window=WINDOW)
    attempt.wait_for_phase("measure")
    time.sleep(1)
    ahead.write_text("3600")
    assert attempt.process.wait(180) == 0
    message = attempt.result()["provenance"]["validity_details"]["stalled"]
    assert "the machine was suspended for 3600.0 s" in message


class Cpus:
    """What reads the CPUs, with made-up numbers: each look, others have used so much more."""

    def __init__(self, others: float, *, kernels: float = 0.0, known: bool = True) -> None:
        self._others, self._known, self._looks, self._rested_s = others, known, 0, 0.0
        self._kernels = kernels

    def rest(self) -> None:
        self._rested_s = 160.0

    def totals(self) -> list[Value]:
        if not self._known:
            raise SensorError("nothing")
        self._looks += 1
        total, own_s = 4.0 * self._looks, 1.0 * self._looks
        busy_s = own_s + self._others * total
        return [
            Value("cpu_total_s", total + self._rested_s),
            Value("cpu_busy_s", busy_s),
            Value("cpu_own_s", own_s),
        ]

    def others_cpu_s(self) -> dict[int, float]:
        grows = {20: 1.0, 30: 3.0, 40: 9.0, 50: 0.05, 60: self._kernels}
        return {10: 5.0} | {pid: use_s * self._looks for pid, use_s in grows.items()}

    def shares_cpus(self, pid: int) -> bool:
        return pid != 40

    def is_kernel_thread(self, pid: int) -> bool:
        return pid == 60

    def name(self, pid: int) -> str:
        return {20: "browser", 30: "miner"}[pid]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cpus], list[str]]:
    monkeypatch.setattr(checks, "CPU_SAMPLE_S", 0.0)

    def two_looks(cpus: Any) -> list[str]:
        return [str(problem) for problem in checks.check_cpus(cpus, checks.sample_cpus(cpus))]

    return two_looks


def test_the_preflight_names_who_uses_the_cpus_most(look: Callable[[Cpus], list[str]]) -> None:
    (message,) = look(Cpus(0.3))
    assert "other processes used 30 % of the CPUs: miner (pid 30), browser (pid 20);" in message
    (message,) = look(Cpus(0.3, kernels=0.4))
    assert "other processes used 20 % of the CPUs: miner (pid 30), browser (pid 20);" in message


@pytest.mark.parametrize(
    "cpus", [Cpus(0.0), Cpus(0.04), Cpus(0.9, known=False), Cpus(0.3, kernels=1.1)]
)
def test_the_preflight_says_nothing_of_a_quiet_machine(
    look: Callable[[Cpus], list[str]], cpus: Cpus
) -> None:
    assert look(cpus) == []


def test_of_an_engine_that_a_daemon_started_the_supervisors_processes_are_the_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    study = study_from_mapping({**SMALL, **SERVED})
    plan = tmp_path / "plan.json"
    plan.write_bytes(make_plan(study).to_json_bytes())
    (run,) = make_plan(study).runs
    folder = RunFolder(tmp_path / "runs" / run.experiment / "1")
    folder.work.mkdir(parents=True)
    folder.spec.write_text(json.dumps(read_spec(plan, f"{run.experiment}/1")))
    found: list[set[int]] = []

    def host_cpu(run: RunProcesses) -> None:
        found.append(run.roots())
        raise LlemError("seen")

    monkeypatch.setattr(engine_process, "HostCpu", host_cpu)
    for options in ([], ["--watch", "1"]):  # as if its supervisor were that
        assert engine_process.main(["--out", str(folder.path), *options]) == EXIT_FAILED
    assert found == [{os.getppid(), os.getpid()}, {1, os.getpid()}]


def test_a_burst_at_the_start_is_told_by_the_time_until_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 100.0, sleep=slept.append)
    monkeypatch.setattr(checks, "time", clock)
    cpus: Any = Cpus(0.3)
    first = checks.sample_cpus(cpus)
    clock.monotonic = lambda: 100.2
    (message,) = checks.check_cpus(cpus, first)
    assert "used 30 %" in str(message)
    cpus.rest()
    clock.monotonic = lambda: 140.0
    assert list(checks.check_cpus(cpus, first)) == []
    assert slept == [pytest.approx(0.3), 0.0]
