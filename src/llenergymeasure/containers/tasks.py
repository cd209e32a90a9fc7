"""The task of one container: a whole run, or its engine with the meter outside."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.containers.calls import ContainerError
from llenergymeasure.containers.container_setup import ENGINE, worker_command
from llenergymeasure.files import (
    load_json,
    make_folder,
    open_file,
    read_bytes,
    read_json,
    try_lock,
)
from llenergymeasure.machine.scheduler import job_facts
from llenergymeasure.results.layout import RunFolder, planned_run
from llenergymeasure.results.write_outcome import AttemptOutcome, attempts_begun, report_failure


@dataclass(frozen=True)
class Task:
    """What runs in one container.

    Attributes:
        name: EXPERIMENT/CYCLE.
        configs: the resolved experiment, and those that share its server.
        folder: the run's.
        writable: the study's folder, or the run's own if the container holds only its engine.
        base_command: the command, without --out and --watch.
        previous_attempts: how many attempts at the run have begun before; None for an engine alone.
    """

    name: str
    configs: Sequence[dict[str, Any]]
    folder: RunFolder
    writable: Path
    base_command: Sequence[str]
    previous_attempts: int | None = None

    @classmethod
    def whole_run(
        cls, plan: Path, name: str, folder: RunFolder, share: int | None = None
    ) -> "Task":
        """Return a run of a plan: supervisor, meter and engine, all in the container.

        Args:
            plan: the study's.
            name: EXPERIMENT/CYCLE.
            folder: the run's.
            share: the workflow for which runs that share its server are measured too.

        Raises:
            OSError: the plan cannot be read.
            ValueError: it is no plan, or has no such run.
        """
        document = load_json(plan)
        run, plan = planned_run(document, name), plan.absolute()
        command = [*worker_command(run["backend"]), "--spec", str(plan), "--run", name]
        command += [] if share is None else ["--share", str(share)]
        session = None if share is None else run.get("session")
        runs = [run]
        if session is not None:
            runs = [other for other in document["runs"] if other.get("session") == session]
        configs = [member["config"] for member in runs]
        return cls(name, configs, folder, plan.parent, command, attempts_begun(folder))

    @classmethod
    def engine_alone(cls, folder: RunFolder) -> "Task":
        """Return the engine of a run whose supervisor outside has prepared ``folder``.

        Raises:
            OSError: there is no spec in it.
        """
        spec = load_json(folder.spec)
        folder.engine_pid.unlink(missing_ok=True)  # of an engine before it, whose work is judged
        name = f"{spec['experiment']}/{spec['cycle']}"
        return cls(name, [spec["config"]], folder, folder.path, ENGINE)

    @property
    def meter_inside(self) -> bool:
        """Whether the meter works in the container too."""
        return self.previous_attempts is not None

    def command(self, watch: int) -> list[str]:
        """Return the command; it ends when the process ``watch`` ends."""
        return [*self.base_command, "--out", str(self.folder.path), "--watch", str(watch)]

    def pid(self) -> int | None:
        """Return the id of the process inside, once it has begun."""
        if self.previous_attempts is not None:
            has_begun = attempts_begun(self.folder) > self.previous_attempts
            return (read_json(self.folder.outcome) or {}).get("pid") if has_begun else None
        try:
            return int(read_bytes(self.folder.engine_pid))
        except (OSError, ValueError):
            return None

    def fail(self, message: str, code: int, status: str = "failed") -> None:
        """Write why the run ended, for a process that did not begin."""
        if self.previous_attempts is None:
            report_failure(self.folder, ContainerError(f"{message} (exit code {code})"))
            return
        make_folder(self.folder.path)
        with os.fdopen(open_file(self.folder.attempts, os.O_RDWR | os.O_CREAT), "a") as lock:
            if not try_lock(lock.fileno()) or self.pid() is not None:
                return  # the outcome is another's to write: of a running attempt, or of this one
            outcome = AttemptOutcome(self.previous_attempts + 1, phase="container", job=job_facts())
            outcome.begin(self.folder)
            kind = ContainerError.__name__ if status == "failed" else status.capitalize()
            error = {"class": kind, "message": " ".join(message.split())}
            outcome.end(self.folder, status, code, error, tail="")
