"""Running the stages: each a process of its own with a limit, and what it left is kept at once."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llenergymeasure
from gpu_stages import inventory, meters, polling, studies
from gpu_stages.card import ENTRY, ROOT, SCALE, Setting, simulate
from gpu_stages.keeping import RESULTS, Place, keep_folder, read_json, write_json

OVER = "over its limit"
_FITS = 0.8
"""The share of its usual time that must be left for a stage to be begun."""


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
    Stage("inventory", 3, 60, inventory.inventory),
    Stage("first", 74, 120, studies.first),
    Stage("raw", 72, 120, polling.raw),
    Stage("engine", 152, 220, meters.engine),
    Stage("probe", 75, 170, studies.probe),
    Stage("pulses", 75, 130, meters.pulses),
    Stage("faults", 59, 170, studies.faults),
    Stage("vllm", 146, 290, studies.vllm),
    Stage("serving", 240, 400, studies.serving),
    Stage("buffer", 72, 120, polling.buffer),
    Stage("study", 260, 360, studies.study),
    Stage("standard", 240, 400, studies.standard),
)
"""In the order of what they settle a minute."""


def validate(out: Path, wanted: Sequence[Stage], minutes: float) -> dict[str, Any]:
    """Run the stages; whatever one does, what was done before it stays.

    An output folder of an earlier call is added to: its other stages stay as they are.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    _paths()
    results: dict[str, Any] = read_json(out / RESULTS) or {"stages": {}}
    results.setdefault("began", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    results["simulated"] = Setting.now().simulated
    results["llenergymeasure"] = llenergymeasure.__version__
    with tempfile.TemporaryDirectory(prefix="gpu-validation-") as name:
        os.environ.setdefault("LLEM_CACHE", str(Path(name) / "cache"))
        for stage in wanted:
            left_s = minutes * 60 - (time.monotonic() - began)
            row = _skipped(stage, left_s) or _one(stage, Path(name) / stage.name, out, left_s)
            results["stages"][stage.name] = row
            write_json(out / RESULTS, results)
            _tell(stage, row, time.monotonic() - began)
    return results


def _paths() -> None:
    """Let commands that run elsewhere find the packages that are found here."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    found = [str(ROOT / "src"), *(str(Path(each).absolute()) for each in given if each)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(found))


def _skipped(stage: Stage, left_s: float) -> dict[str, Any] | None:
    usual_s = stage.usual_s * Setting.now().scale
    if left_s >= _FITS * usual_s:
        return None
    return {"skipped": f"{max(left_s, 0):.0f} s left, takes about {usual_s:.0f} s"}


def _one(stage: Stage, folder: Path, out: Path, left_s: float) -> dict[str, Any]:
    """Run a stage and keep what it left."""
    place = Place(folder)
    log = folder / "log.txt"
    began = time.monotonic()
    command = [sys.executable, str(ENTRY), "--stage", stage.name, "--out", str(folder)]
    command += ["--parent", str(os.getpid())]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            ended = _end(process, min(stage.limit_s * Setting.now().patience, left_s))
        finally:
            _kill(process, signal.SIGKILL)
    row = {"exit": ended, "took_s": round(time.monotonic() - began, 1), **_found(place)}
    if ended != 0:
        row["log_end"] = log.read_text(errors="replace")[-3000:]
    try:
        studies.keep_runs(place)
        keep_folder(place.kept, out / stage.name)
    except OSError as error:
        row["error"] = f"its recordings could not be kept: {error}"
    shutil.rmtree(folder, ignore_errors=True)
    return row


def _end(process: subprocess.Popen[bytes], limit_s: float) -> int | str:
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        # llem puts a card back as it found it when it is asked to end.
        _kill(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(8)
        return OVER


def _kill(process: subprocess.Popen[bytes], how: int) -> None:
    """End a stage and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    if how == signal.SIGKILL:
        process.wait()


def _found(place: Place) -> dict[str, Any]:
    try:
        return place.load()
    except ValueError as error:
        return {"error": f"what it found cannot be read: {error}"}


def _tell(stage: Stage, row: dict[str, Any], at_s: float) -> None:
    said = row.get("skipped") or f"exit {row['exit']}, {row['took_s']:.0f} s  {row.get('line', '')}"
    print(f"[{at_s:5.0f} s] {stage.name}: {said}"[:400], flush=True)
    if row.get("log_end") is not None:
        print("   " + row["log_end"].strip().replace("\n", "\n   ")[-900:], flush=True)


def run_here(name: str, folder: Path, parent: int | None) -> None:
    """Run one stage in this process, which ends with it, or with the process ``parent``."""
    place = Place(folder)
    code = 0
    if parent is not None:
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    try:
        next(stage for stage in STAGES if stage.name == name).run(place)
    except BaseException as error:
        traceback.print_exc()
        place.save(error=f"{type(error).__name__}: {error}")
        code = 1
    sys.stdout.flush()
    os._exit(code)  # no thread or child's library may hold it back


def _end_with_parent(parent: int) -> None:
    """End this stage and all that it started once the command that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def use_simulated(library: Path, folder: Path, scale: float) -> None:
    """Have this process and its children see a simulated card and no other."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(simulate(library, folder), **{SCALE: str(scale)})
    os.environ.pop("LLEM_CACHE", None)  # what is known of real cards is not for this one
