"""However a run in a container is ended, nothing runs on, and the next call takes it up again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.results.outcome import read_outcome
from support.studies import ROOT, environment, living, plan_of, result_times, snakemake, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]


class Study:
    """A study of two runs, the second of which is at work."""

    def __init__(self, folder: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self.folder = folder
        self._arguments = ["--configfile", str(folder / "study.yaml"), *arguments]
        self._variables = variables
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), *self._arguments],
            cwd=folder,
            env=environment(**variables),
            stdout=(folder / "said").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_for(lambda: len(result_times(folder)) == 1, self.said)
        run = plan_of(folder)["runs"][1]
        self.second = folder / "results/small/runs" / run["experiment"] / "1"
        marks = self.second / "work" / "marks.jsonl"
        wait_for(lambda: marks.is_file() and '"measure"' in marks.read_text(), self.said)
        self.finished = result_times(folder)

    def said(self) -> str:
        return (self.folder / "said").read_text()[-3000:]

    def supervisor(self) -> int:
        return int(json.loads((self.second / "outcome.json").read_text())["pid"])

    def is_over(self) -> None:
        """Check that nothing is left running and nothing finished is lost."""
        self.process.wait(90)
        wait_for(lambda: not living(str(self.folder)), lambda: str(living(str(self.folder))))
        assert result_times(self.folder) == self.finished
        assert read_outcome(self.second / "outcome.json").status != "running"

    def resumes(self) -> None:
        """Check that the next call does the second run alone."""
        done = snakemake(self.folder, *self._arguments, variables=self._variables)
        assert done.returncode == 0, done.stderr
        times = result_times(self.folder)
        assert len(times) == 2
        assert {key: times[key] for key in self.finished} == self.finished


def wait_for(condition: Callable[[], bool], said: Callable[[], str], limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)


def _study(folder: Path, runner: str) -> None:
    write_study(
        folder,
        experiments=[{"n": 1}, {"n": 2}],
        window={"min_seconds": 4},
        runners={"pytorch": runner},
        execution={"n_cycles": 1, "cycle_order": "sequential", "skip_preflight": True},
    )


@pytest.fixture
def in_apptainer(tmp_path: Path, sif: Path) -> Study:
    _study(tmp_path, f"apptainer:{sif}")
    return Study(tmp_path, ["--use-apptainer"], {})


@pytest.fixture
def in_docker(tmp_path: Path, docker_host: str, docker_image: str) -> Study:
    _study(tmp_path, f"docker:{docker_image}")
    return Study(tmp_path, [], {"DOCKER_HOST": docker_host})


@pytest.fixture(params=["apptainer", "docker"])
def at_work(request: pytest.FixtureRequest) -> Study:
    study: Study = request.getfixturevalue(f"in_{request.param}")
    return study


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all(at_work: Study, number: int) -> None:
    os.killpg(at_work.process.pid, number)
    at_work.is_over()
    assert read_outcome(at_work.second / "outcome.json").status == "interrupted"


def test_the_workflow_is_killed(at_work: Study) -> None:
    at_work.process.kill()
    at_work.is_over()
    assert read_outcome(at_work.second / "outcome.json").status == "interrupted"
    at_work.resumes()


def test_the_containers_process_is_killed(at_work: Study) -> None:
    os.kill(at_work.supervisor(), signal.SIGKILL)
    at_work.is_over()
    assert read_outcome(at_work.second / "outcome.json").status == "lost"


def test_what_started_the_container_is_killed(at_work: Study) -> None:
    word = "Apptainer runtime parent" if _has("Apptainer runtime parent") else "docker_launcher"
    parents = [pid for pid in living(word) if _belongs(pid, at_work)]
    assert parents, subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout
    for pid in parents:
        os.kill(pid, signal.SIGKILL)
    at_work.is_over()


def _has(word: str) -> bool:
    return bool(living(word))


def _belongs(pid: int, study: Study) -> bool:
    """Whether the study's supervisor is below a process, or the process names its folder."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    return str(study.folder).encode() in words or _parent(study.supervisor()) == pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_daemon_is_killed(in_docker: Study, daemon: Any) -> None:
    daemon.kill()
    try:
        in_docker.is_over()
    finally:
        daemon.start()
    in_docker.resumes()
    left = ["docker", "--host", daemon.address, "ps", "--all", "--quiet"]
    assert subprocess.run(left, capture_output=True, text=True, check=True).stdout == ""
