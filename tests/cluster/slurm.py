"""What the tests do to a cluster, and how they run the workflow on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.studies import ROOT, environment, living, wait_for

NODES = ("n1", "n2")
CALL_LIMIT_S = 420.0


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        folder: its configuration, logs and pid files.
        cards: the variables by which jobs see their node's simulated GPUs.
        started: the workflows so far.
    """

    folder: Path
    cards: Mapping[str, str]
    started: list[Workflow] = field(default_factory=list)

    def workflow(
        self, folder: Path, *arguments: str, mem_mb: int = 2600, **variables: str
    ) -> Workflow:
        """Start Snakemake with the project's profile on ``folder/study.yaml``."""
        profile = str(ROOT / "profiles" / "slurm")
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--workflow-profile", profile, "--configfile", "study.yaml"]
        # What a test cluster needs in place of the profile's: less of everything.
        command += ["--default-resources", f"mem_mb={mem_mb}", "runtime=10", "cpus_per_task=1"]
        command += ["--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "10"]
        log_path = folder / "snakemake.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=folder,
                env=environment(**self.variables(), **variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(Workflow(process, folder, log_path))
        return self.started[-1]

    def end(self) -> None:
        """End what a test has left of its workflows."""
        for workflow in self.started:
            if workflow.process.poll() is None:
                workflow.kill()

    def variables(self) -> dict[str, str]:
        names = ("LD_LIBRARY_PATH", "NVML_SIM_T0", "NVML_SIM_TRACE", "PYTHONPATH")
        return {name: self.cards[name] for name in names}

    def kill_controller(self) -> None:
        """Take the controller away, as an upgrade or a failed machine does."""
        os.kill(int((self.folder / "run/slurmctld.pid").read_text()), signal.SIGKILL)

    def revive_controller(self) -> None:
        """Start it again from the state that it keeps on disk."""
        subprocess.run(["slurmctld"], timeout=60, check=True)
        wait_for(lambda: subprocess.run(["scontrol", "ping"], check=False).returncode == 0, 60)

    def kill_node(self, node: str) -> None:
        """Let a node vanish: its daemons first, so that nobody reports the end of its jobs."""
        daemon = int((self.folder / "run" / f"slurmd.{node}.pid").read_text())
        jobs = [int(pid) for pid in queue("%A", f"--nodelist={node}", "--states=RUNNING")]
        os.kill(daemon, signal.SIGKILL)
        for job in jobs:
            for pid in living(f"slurmstepd: [{job}."):
                os.kill(pid, signal.SIGKILL)
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"SLURMD_NODENAME={node}".encode() in variables:
                os.kill(int(entry.name), signal.SIGKILL)

    def revive_node(self, node: str) -> None:
        """Start a killed node's daemon, once the controller has noticed that it was gone."""

        def lost() -> bool:
            # A job that is to run again completes, as SLURM has it, until the daemon is back.
            state = told("sinfo", "-h", "-N", "-n", node, "-o", "%T")
            return "down" in state or "completing*" in state

        wait_for(lost, 90)
        subprocess.run(["slurmd", "-N", node], timeout=30, check=True)
        wait_for(lambda: not lost(), 90)


@dataclass
class Workflow:
    """One call of Snakemake."""

    process: subprocess.Popen[bytes]
    folder: Path
    log_path: Path

    def end(self, limit_s: float = CALL_LIMIT_S) -> int:
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end within {limit_s} s: {self.log()}") from None

    def kill(self) -> None:
        """Kill Snakemake as a lost login session would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = json.loads(next(self.folder.glob("results/*/plan.json")).read_text())
        return plan

    def outcome(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """Return how a planned run stands; empty if it did not start."""
        place = f"results/*/runs/{run['experiment']}/{run['cycle']}/outcome.json"
        for path in self.folder.glob(place):
            try:
                outcome: dict[str, Any] = json.loads(path.read_text())
            except ValueError:
                continue
            return outcome
        return {}

    def earlier_attempts(self, run: Mapping[str, Any]) -> list[str]:
        """Return how the attempts at a run ended, but for the last."""
        place = f"results/*/runs/{run['experiment']}/{run['cycle']}/attempts.jsonl"
        (path,) = self.folder.glob(place)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        ends = {line["attempt"]: line["status"] for line in lines}
        return [ends[attempt] for attempt in sorted(ends)[:-1]]

    def wait_for_phase(self, run: Mapping[str, Any], phase: str) -> dict[str, Any]:
        def there() -> bool:
            assert self.process.poll() is None, self.log()
            outcome = self.outcome(run)
            return outcome.get("status") == "running" and outcome.get("phase") == phase

        wait_for(there, 420)
        return self.outcome(run)


def queue(columns: str, *arguments: str) -> list[str]:
    return told("squeue", "--noheader", "--me", f"--format={columns}", *arguments).split("\n")[:-1]


def told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
