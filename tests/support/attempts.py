"""Single runs started for tests, without a workflow around them."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.run.measure_script import read_spec
from llenergymeasure.workload.load_study import study_from_mapping
from support.studies import ROOT, SMALL, environment, living, wait_for

SCRIPT = ROOT / "scripts" / "measure_pytorch.py"


@dataclass
class Attempt:
    """One started run."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def outcome(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / "outcome.json").read_text())
        return value

    def result(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return value

    def wait_for_phase(self, name: str) -> None:
        marks = self.folder / "work" / "marks.jsonl"
        wait_for(lambda: marks.is_file() and f'"{name}"' in marks.read_text())

    def child(self, module: str) -> int:
        pids = [pid for pid in living(str(self.folder)) if module in command_of(pid)]
        assert len(pids) == 1, [command_of(pid) for pid in pids]
        return pids[0]

    def nothing_left(self) -> None:
        wait_for(lambda: not living(str(self.folder)), 20)


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def spec_of(plan: Plan, path: Path, index: int = 0) -> dict[str, Any]:
    """Write a plan and return what one of its runs reads of it."""
    path.write_bytes(plan.to_json_bytes())
    run = plan.runs[index]
    return read_spec(path, f"{run.experiment}/{run.cycle}")


def start(
    folder: Path,
    *arguments: str,
    spec: dict[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    **settings: Any,
) -> Attempt:
    """Start the first run of a small study with these settings, changed as ``spec`` says."""
    plan = make_plan(study_from_mapping({**SMALL, **settings}))
    run = plan.runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    document = spec_of(plan, folder / "plan.json")
    script = ROOT / "scripts" / f"measure_{run.backend}.py"
    path = folder / "told.json"
    path.write_text(json.dumps({**document, **(spec or {})}))
    out = folder / "runs" / run.experiment / str(run.cycle)
    process = subprocess.Popen(
        [sys.executable, str(script), "--spec", str(path), "--out", str(out), *arguments],
        env=environment(**(variables or {})),
        stderr=subprocess.DEVNULL,
    )
    return Attempt(process, out)


_SUPERVISOR = """
import shutil, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.ending import End
from llenergymeasure.run.supervisor import Reservation, Supervisor

nothing = lambda *_: None

def reserve(*_):
    time.sleep({waits_s})
    methods = dict(set_limits=nothing, restore_limits=nothing, release=lambda: print("released"))
    return SimpleNamespace(limits=None, limits_changed=False, **methods)

def record(self, engine, started_s, keep_engine):
{record}

Reservation.make, Supervisor.record = reserve, record
Supervisor._start_engine = lambda *_: subprocess.Popen(["sleep", "60"])
spec = {{"experiment": "a" * 12, "cycle": 1, "config": {{"backend": "pytorch"}}}}
sys.exit(Supervisor(spec, RunFolder(Path(sys.argv[1])), None).run())
"""


def supervised(folder: Path, record: str, waits_s: float = 0.0) -> subprocess.CompletedProcess[str]:
    """Supervise a run in a folder, of which the GPUs and the engine are made up.

    Args:
        folder: the run's.
        record: the body of ``Supervisor.record``; ``started_s`` is when the run's time began.
        waits_s: what the run waits for its GPUs, which it says that it has released.
    """
    program = _SUPERVISOR.format(record=textwrap.indent(record, "    "), waits_s=waits_s)
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
