"""A study that is driven, without a Snakemake; and SLURM's commands, answering as SLURM does."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.files import write_text
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.workflow import slurm_jobs
from llenergymeasure.workflow.progress import Progress
from llenergymeasure.workflow.snakemake_process import LOG_NAME, Listener, SnakemakeProcess
from llenergymeasure.workflow.snakemake_study import SnakemakeStudy
from llenergymeasure.workload.load_study import load_study
from support.programs import program
from support.studies import write_study


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where SLURM's commands are looked for first; scancel notes what it ends."""
    folder = tmp_path / "bin"
    program(folder / "scancel", f"echo $* >> {folder}/cancelled")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: time.sleep(0.01))
    monkeypatch.setattr(slurm_jobs, "time", clock)
    monkeypatch.setattr(slurm_jobs, "CANCEL_TIMEOUT_S", 0.1)
    return folder


def opened(folder: StudyFolder, **workflow: Any) -> Any:
    """A study that a Snakemake has open, without what is done as it is opened."""
    study: Any = object.__new__(SnakemakeStudy)
    study._folder = folder
    resources = SimpleNamespace(resources={})
    settings = {"executor_settings": None, "resource_settings": resources, **workflow}
    study._workflow = SimpleNamespace(**settings)
    return study


@dataclass
class Driven:
    """A planned study of one run, what drives it, and what that says."""

    study: Path
    plan: Plan
    folder: StudyFolder
    process: SnakemakeProcess
    view: Listener
    messages: list[str]

    @property
    def log(self) -> Path:
        return self.folder.path / LOG_NAME

    @property
    def run(self) -> RunFolder:
        return self.folder.run(self.plan.runs[0].experiment, self.plan.runs[0].cycle)

    def begin_run(self, outcome: str | None) -> Progress:
        """Let the run begin after the call did, and leave this outcome."""
        progress = Progress(self.plan, self.folder)
        write_text(self.run.attempts, "{}\n")
        if outcome is not None:
            write_text(self.run.outcome, outcome)
        return progress

    def follow(self, progress: Progress) -> None:
        """Watch a Snakemake that has ended."""
        with subprocess.Popen(["true"]) as process:
            self.process._follow(process, progress)

    def exit_code(self, log: str, returncode: int = 1) -> int:
        """End as after a Snakemake with this code and log."""
        return self.process._exit_code(returncode, log)


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    study = write_study(tmp_path)
    plan, folder = make_plan(load_study(study)), StudyFolder(tmp_path / "results" / "small")
    write_text(folder.path / LOG_NAME, "")
    messages: list[str] = []
    view = Listener(messages.append)
    process = SnakemakeProcess(study, plan, folder, view, 0)
    return Driven(study, plan, folder, process, view, messages)
