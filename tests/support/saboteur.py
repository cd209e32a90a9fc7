"""Injects faults into the runs of a real study while a workflow makes them, each at its moment."""

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.attempts import command_of
from support.studies import living

POLL_S = 0.01


@dataclass
class RunView:
    """One run at work, as somebody from outside sees it."""

    folder: Path

    @property
    def phase(self) -> str | None:
        """The phase that began last and has not ended; null between phases."""
        marks = self.folder / "work" / "marks.jsonl"
        try:
            lines = [json.loads(line) for line in marks.read_text().splitlines()]
        except (OSError, ValueError):
            return None
        return lines[-1]["phase"] if lines and lines[-1]["event"] == "start" else None

    def outcome(self) -> dict[str, Any] | None:
        try:
            outcome: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        except (OSError, ValueError):
            return None
        return outcome

    def child(self, module: str) -> int | None:
        for pid in living(str(self.folder)):
            try:
                if module in command_of(pid):
                    return pid
            except OSError:
                continue
        return None

    def supervisor(self) -> int:
        outcome = self.outcome()
        assert outcome is not None
        return int(outcome["pid"])


Step = Callable[[RunView], bool]
"""Looks at a run and injects its fault if the moment has come; returns whether it is done."""


def at(phase: str, inject: Callable[[RunView], None]) -> Step:
    """Inject as soon as the run is in a phase."""

    def step(run: RunView) -> bool:
        if run.phase != phase:
            return False
        inject(run)
        return True

    return step


def send(number: signal.Signals) -> Callable[[RunView], None]:
    """Signal the run's supervisor, as Snakemake or a person would."""
    return lambda run: os.kill(run.supervisor(), number)


def send_to(module: str, number: signal.Signals) -> Callable[[RunView], None]:
    """Signal one of the run's processes."""

    def inject(run: RunView) -> None:
        pid = run.child(module)
        assert pid is not None, f"no {module} in {run.folder}"
        os.kill(pid, number)

    return inject


class Saboteur(threading.Thread):
    """Watches a study's runs; rests are skipped, but where a fault is to come in one."""

    def __init__(self, study: Path, steps: Mapping[int, Step]) -> None:
        """Take the study's folder, and the fault of the experiment with so many prompts."""
        super().__init__(daemon=True)
        self._study = study
        self._steps = dict(steps)
        self._over = threading.Event()
        self.left: dict[int, list[int]] = {}
        self.error: Exception | None = None
        self._view: _Plan = _Plan(study)

    def __enter__(self) -> "Saboteur":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Watch until the study is over; a fault that fails is kept, and the study goes on."""
        while not self._over.wait(POLL_S):
            for number, folder in self._view.runs().items():
                try:
                    self._look(number, RunView(folder))
                except Exception as error:
                    self.error = self.error or error
                    self._steps.pop(number, None)

    def _look(self, number: int, run: RunView) -> None:
        outcome = run.outcome()
        if outcome is None or outcome["status"] != "running":
            return  # what stands in its folder is of an attempt that ended
        step = self._steps.get(number)
        if step is not None and step(run):
            del self._steps[number]
        elif run.phase == "settle" and not getattr(step, "in_settle", False):
            (run.folder / "work" / "skip").touch()


@dataclass
class _Plan:
    """The runs of a study's plan by their number of prompts."""

    study: Path
    _runs: dict[int, Path] = field(default_factory=dict)

    def runs(self) -> dict[int, Path]:
        if not self._runs and (self.study / "plan.json").is_file():
            plan = json.loads((self.study / "plan.json").read_text())
            self._runs = {
                run["config"]["n"]: self.study / "runs" / run["experiment"] / str(run["cycle"])
                for run in plan["runs"]
            }
        return self._runs
