"""Running the stages: each a process of its own with a limit; what one does costs no other."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llenergymeasure
from gpu_stages import meters, polling, studies
from gpu_stages.card import ENTRY, ROOT, Setting
from gpu_stages.keeping import ENDING, RESULTS, Place, put_aside, read_json, write_json
from llenergymeasure import processes

OVER = "over its limit"
_FITS = 0.8
"""The share of its usual time that must be left for a stage to be begun."""
_GRACE_S = 8.0
"""How long a stage that is asked to end may take to write what it has."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: how it is asked for.
        usual_s: how long it took on an H100; of `serving` and `standard`, which were ended there
            after 156 and 144 s, how long it is thought to take.
        limit_s: after which it is ended.
        run: what it does.
    """

    name: str
    usual_s: float
    limit_s: float
    run: Callable[[Place], None]


STAGES = (
    Stage("inventory", 3, 60, polling.inventory),
    Stage("first", 74, 120, studies.own_study),
    Stage("raw", 72, 120, polling.raw),
    Stage("engine", 152, 220, meters.engine),
    Stage("probe", 75, 170, studies.probe),
    Stage("pulses", 75, 130, meters.pulses),
    Stage("faults", 59, 170, studies.faults),
    Stage("vllm", 146, 290, studies.own_study),
    Stage("serving", 240, 400, studies.own_study),
    Stage("study", 260, 360, studies.own_study),
    Stage("standard", 240, 400, studies.own_study),
)
"""In the order of what they settle a minute."""


def validate(out: Path, chosen_stages: Sequence[Stage], minutes: float) -> dict[str, Any]:
    """Run the stages; whatever one does, what was done before it stays.

    An output folder of an earlier call is added to: its other stages stay as they are.
    """
    start_s = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    # Commands that run elsewhere find the packages that are found here.
    python_path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT / "src"), *(str(Path(entry).absolute()) for entry in python_path if entry)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    results: dict[str, Any] = read_json(out / RESULTS) or {"stages": {}}
    results.setdefault("began", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    stages = results["stages"]
    results["simulated"] = Setting.now().simulated
    results["llenergymeasure"] = llenergymeasure.__version__
    # In the output folder, so that it comes back with it where this command is killed.
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=out) as name:
        os.environ.setdefault("LLEM_CACHE", str(Path(name) / "cache"))
        for stage in chosen_stages:
            left_s = minutes * 60 - (time.monotonic() - start_s)
            row = _skipped(stage, left_s)
            if row is None:
                put_aside(out, stages, stage.name)
                write_json(out / RESULTS, results)  # what is renamed has its row, come what may
                row = _run_stage(stage, Path(name) / stage.name, out, left_s)
            stages.setdefault(stage.name, row)
            write_json(out / RESULTS, results)
            _print_stage(stage, row, time.monotonic() - start_s)
    return results


def _skipped(stage: Stage, left_s: float) -> dict[str, Any] | None:
    usual_s = stage.usual_s * Setting.now().scale
    if left_s >= _FITS * usual_s:
        return None
    return {"skipped": f"{max(left_s, 0):.0f} s left, takes about {usual_s:.0f} s"}


def _run_stage(stage: Stage, work: Path, out: Path, left_s: float) -> dict[str, Any]:
    """Run a stage; return what it found, and how it ended."""
    place = Place(work, out / stage.name)
    log = work / "log.txt"
    start_s = time.monotonic()
    command = [sys.executable, str(ENTRY), "--stage", stage.name, "--out", str(out)]
    command += ["--work", str(work), "--parent", str(os.getpid())]
    outcome: int | str = OVER
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            outcome = process.wait(min(stage.limit_s * Setting.now().patience, left_s))
        except subprocess.TimeoutExpired:
            pass
        finally:
            processes.end_group(process, _GRACE_S)
            with contextlib.suppress(OSError):
                studies.keep_runs(place)
    row = {"exit": outcome, "took_s": round(time.monotonic() - start_s, 1)}
    try:
        row |= place.load()
    except (OSError, ValueError) as error:
        row["error"] = f"what it found could not be kept: {error}"
    if outcome != 0:
        row["log_end"] = log.read_text(errors="replace")[-3000:]
    if not any(place.output.iterdir()):
        place.output.rmdir()
    shutil.rmtree(work, ignore_errors=True)
    return row


def _print_stage(stage: Stage, row: dict[str, Any], at_s: float) -> None:
    summary = (
        row.get("skipped") or f"exit {row['exit']}, {row['took_s']:.0f} s  {row.get('line', '')}"
    )
    print(f"[{at_s:5.0f} s] {stage.name}: {summary}"[:400], flush=True)
    if row.get("log_end") is not None:
        print("   " + row["log_end"].strip().replace("\n", "\n   ")[-900:], flush=True)


def run_here(name: str, out: Path, work: Path, parent: int) -> None:
    """Run one stage in this process, which ends with it, or with the process ``parent``."""
    place = Place(work, out / name)
    processes.die_with(parent)
    # Whoever asks this stage to end asks its children too: it goes on with what they have left,
    # and begins nothing.
    signal.signal(signal.SIGTERM, lambda *_: ENDING.set())
    code = 0
    try:
        next(stage for stage in STAGES if stage.name == name).run(place)
    except BaseException as error:
        traceback.print_exc()
        place.save(error=f"{type(error).__name__}: {error}")
        code = 1
    sys.stdout.flush()
    os._exit(code)  # no thread or child's library may hold it back
