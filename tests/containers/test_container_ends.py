"""However a run in a container is ended, nothing runs on, and the next call takes it up again."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.results.outcome import read_outcome
from support.studies import (
    living,
    measuring,
    plan_of,
    result_times,
    snakemake,
    start_snakemake,
    wait_for,
    write_study,
)

pytestmark = [pytest.mark.slow, pytest.mark.system]


class Study:
    """A study of two runs, the second of which is at work."""

    def __init__(self, folder: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self.folder = folder
        self._arguments = ["--configfile", str(folder / "study.yaml"), *arguments]
        self._variables = variables
        with (folder / "said").open("wb") as log:
            self.process = start_snakemake(folder, *self._arguments, log=log, **variables)
        try:
            self._wait_for_second()
        except BaseException:
            self.end()
            raise

    def _wait_for_second(self) -> None:
        folder = self.folder
        wait_for(lambda: len(result_times(folder)) == 1, 300, self.said)
        run = plan_of(folder)["runs"][1]
        self.second = folder / "results/small/runs" / run["experiment"] / "1"
        wait_for(lambda: measuring(self.second), 300, self.said)
        self.finished = result_times(folder)

    def end(self) -> None:
        """Leave nothing behind, whatever a test found."""
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not living(str(self.folder)), 300, self.said)

    def said(self) -> str:
        return (self.folder / "said").read_text()[-3000:]

    def supervisor(self) -> int:
        return int(json.loads((self.second / "outcome.json").read_text())["pid"])

    def starter(self) -> int:
        """Return the child of Snakemake that started the container."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        (pid,) = [int(pid) for file in children for pid in file.read_text().split()]
        return pid

    def is_over(self) -> None:
        """Check that nothing is left running and nothing finished is lost."""
        self.process.wait(90)
        wait_for(
            lambda: not living(str(self.folder)), describe=lambda: str(living(str(self.folder)))
        )
        # The supervisor is the last to go: its own command line names no absolute path.
        outcome = self.second / "outcome.json"
        wait_for(lambda: read_outcome(outcome).status != "running", describe=outcome.read_text)
        assert result_times(self.folder) == self.finished

    def resumes(self) -> None:
        """Check that the next call does the second run alone."""
        result = snakemake(self.folder, *self._arguments, variables=self._variables)
        assert result.returncode == 0, result.stderr
        times = result_times(self.folder)
        assert len(times) == 2
        assert {key: times[key] for key in self.finished} == self.finished


def _study(folder: Path, runner: str) -> None:
    write_study(
        folder,
        experiments=[{"n": 1}, {"n": 2}],
        window={"min_seconds": 4},
        runners={"pytorch": runner},
        execution={"n_cycles": 1, "cycle_order": "sequential", "skip_preflight": True},
    )


@pytest.fixture
def in_apptainer(tmp_path: Path, sif: Path) -> Iterator[Study]:
    _study(tmp_path, f"apptainer:{sif}")
    study = Study(tmp_path, ["--use-apptainer"], {})
    yield study
    study.end()


@pytest.fixture
def in_docker(tmp_path: Path, docker_host: str, docker_image: str) -> Iterator[Study]:
    _study(tmp_path, f"docker:{docker_image}")
    study = Study(tmp_path, [], {"DOCKER_HOST": docker_host})
    yield study
    study.end()


@pytest.fixture(params=["apptainer", "docker"])
def at_work(request: pytest.FixtureRequest) -> Study:
    study: Study = request.getfixturevalue(f"in_{request.param}")
    return study


def test_an_interrupt_of_all(at_work: Study) -> None:
    os.killpg(at_work.process.pid, signal.SIGINT)
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


@pytest.mark.long
def test_what_started_the_container_is_killed(at_work: Study) -> None:
    os.kill(at_work.starter(), signal.SIGKILL)
    at_work.is_over()
    # Apptainer's own process takes the one in the container along, before it can say a word.
    assert read_outcome(at_work.second / "outcome.json").status in {"interrupted", "lost"}


def test_the_daemon_is_killed(in_docker: Study, daemon: Any) -> None:
    daemon.kill()
    try:
        in_docker.is_over()
    finally:
        daemon.start()
    in_docker.resumes()
    list_command = ["docker", "--host", daemon.address, "ps", "--all", "--quiet"]
    assert subprocess.run(list_command, capture_output=True, text=True, check=True).stdout == ""
