"""What a container is started for: a whole run, or its engine with the meter outside."""

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llenergymeasure.containers.surroundings import engine_command, worker_command
from llenergymeasure.files import write_text
from llenergymeasure.results.layout import RunFolder


@dataclass(frozen=True)
class WholeRun:
    """A run with supervisor, meter and engine, all in the container.

    Attributes:
        name: EXPERIMENT/CYCLE.
        config: the resolved experiment.
        folder: the run's.
        plan: the study's plan, which names it.
        backend: its engine.
        meter_inside: whether the meter works in the container too.
    """

    name: str
    config: dict[str, Any]
    folder: RunFolder
    plan: Path
    backend: str
    meter_inside: bool = True

    @classmethod
    def of_plan(cls, plan: Path, name: str, backend: str, folder: RunFolder) -> "WholeRun":
        """Return the run of a plan.

        Raises:
            OSError: the plan cannot be read.
            ValueError: it is no plan, or has no such run.
        """
        experiment, _, cycle = name.partition("/")
        for entry in json.loads(plan.read_text())["runs"]:
            if entry["experiment"] == experiment and str(entry["cycle"]) == cycle:
                return cls(name, entry["config"], folder, plan.absolute(), backend)
        raise ValueError(f"the plan holds no run {name}")

    @property
    def writable(self) -> Path:
        """The study's folder."""
        return self.plan.parent

    def command(self, watch: int) -> list[str]:
        """Return the worker's command."""
        words = [*worker_command(self.backend), "--spec", str(self.plan), "--run", self.name]
        return [*words, "--out", str(self.folder.path), "--watch", str(watch)]

    def started(self) -> bool:
        """Return whether the supervisor began its outcome."""
        return self.folder.outcome.is_file() and self.folder.outcome.stat().st_size > 0

    def fail(self, message: str, code: int) -> None:
        """Write the outcome that the supervisor inside could not write."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        outcome = {
            "attempt": _attempts(self.folder) + 1,
            "status": "failed",
            "phase": "container",
            "error": _error(message),
            "exit_code": code,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "started_at": now,
            "ended_at": now,
        }
        self.folder.path.mkdir(parents=True, exist_ok=True)
        write_text(self.folder.outcome, json.dumps({**outcome, "log_tail": ""}, indent=2) + "\n")
        with self.folder.attempts.open("a") as stream:
            for status in ("running", "failed"):
                stream.write(json.dumps({**outcome, "status": status}) + "\n")


@dataclass(frozen=True)
class EngineAlone:
    """A run's engine in the container; supervisor and meter work outside.

    Attributes: as of :class:`WholeRun`.
    """

    name: str
    config: dict[str, Any]
    folder: RunFolder
    meter_inside: bool = False

    @classmethod
    def of_folder(cls, folder: RunFolder) -> "EngineAlone":
        """Return the engine of the run whose supervisor has made ``folder`` ready.

        Raises:
            OSError: there is no spec in it.
        """
        spec = json.loads(folder.spec.read_text())
        return cls(f"{spec['experiment']}/{spec['cycle']}", spec["config"], folder)

    @property
    def writable(self) -> Path:
        """The run's own folder."""
        return self.folder.path

    def command(self, watch: int) -> list[str]:
        """Return the engine's command."""
        return engine_command(self.folder.path, watch)

    def started(self) -> bool:
        """Return whether the engine's process marked its first phase."""
        return self.folder.marks.is_file()

    def fail(self, message: str, code: int) -> None:
        """Leave the reason, and the code in words, for the supervisor's outcome."""
        reason = f"{message} (exit code {code})"
        write_text(self.folder.error, json.dumps(_error(reason)))


ContainerTask = WholeRun | EngineAlone


def _error(message: str) -> dict[str, str]:
    return {"class": "ContainerError", "message": re.sub(r"\s+", " ", message).strip()}


def _attempts(folder: RunFolder) -> int:
    """Return how many attempts were begun."""
    if not folder.attempts.is_file():
        return 0
    with folder.attempts.open(errors="replace") as stream:
        return sum(1 for line in stream if '"status": "running"' in line)
