"""Faults injected while a simulated card is recorded in real time, and what each must give.

    make nvml-sim && python benchmarks/meter_faults.py

A real recorder process samples the card through nvidia-ml-py; the fault is made while it does. None
may make an energy zero: it is null with a reason, wider, or marked.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from llenergymeasure.energy.account import Account, account
from llenergymeasure.recording.client import RecorderProcess
from llenergymeasure.recording.samples import read_samples
from nvml_sim import sim

WINDOW_S = 4.0
TRUE_J = 300.0 * WINDOW_S
LEAD_S = 1.5
READY_S, STOP_S = 120.0, 20.0

Meddle = Callable[[int], None]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: in words.
        code: the validity code that it must give; None where nothing is lost by it, and the energy
            is to be right, or there is none.
        sensor: the card's instruments.
        keys: further keys of the card's trace; given when the window opens.
        meddle: what is done to the recorder, by its process id, as the window opens.
    """

    name: str
    code: str | None
    sensor: sim.Sensor = field(default_factory=sim.Sensor)
    keys: Callable[[float], Mapping[str, Any]] = lambda _: {}
    meddle: Meddle | None = None


def _halt(pid: int) -> None:
    time.sleep(0.5)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(pid, signal.SIGCONT)


def _kill(pid: int) -> None:
    time.sleep(1.5)
    os.kill(pid, signal.SIGKILL)


FAULTS = (
    Fault("counter and power differ by 6 %", "channel_mismatch", sim.Sensor(gain=1.06)),
    Fault("the recorder is halted for 2 s", None, meddle=_halt),
    Fault("the recorder is killed", "recorder_lost", meddle=_kill),
    Fault(
        "the card vanishes",
        None,
        keys=lambda opens_s: {"fail_after_s": opens_s + 1.0},
    ),
    Fault("the card slows from heat", "throttled", keys=lambda _: {"throttle": 0x20}),
    Fault(
        "a process of somebody else is on the card",
        "other_process",
        keys=lambda _: {"processes": [{"pid": os.getppid(), "used_memory_bytes": 2**30}]},
    ),
)


def inject(fault: Fault, folder: Path, opens_s: float = 5.0) -> Account:
    """Record a card while the fault happens; return the account of the window.

    Args:
        fault: what goes wrong.
        folder: where the recording goes.
        opens_s: the window's start in the card's time, for what is to come with it must be in
            its trace before the recorder starts; more is taken where that takes longer.
    """
    steps = [(0.0, 100.0), (opens_s - 1.0, 100.0), (opens_s - 1.0, 300.0)]
    device = sim.Device(power_w=steps, sensor=fault.sensor, keys=fault.keys(opens_s))
    os.environ.update(sim.environment(sim.Trace([device]).write(folder)))
    opens_ns = int(os.environ["NVML_SIM_T0"]) + int(opens_s * 1e9)
    recorder = RecorderProcess.start(folder / "samples.arrows", devices="0", sensors="nvml")
    try:
        recorder.wait_ready(READY_S)
        left_s = (opens_ns - time.monotonic_ns()) / 1e9
        if left_s < LEAD_S:
            recorder.stop(STOP_S)
            return inject(fault, folder, 2 * opens_s)
        time.sleep(left_s)
        start_ns = time.monotonic_ns()
        meddler = threading.Thread(target=fault.meddle or (lambda _: None), args=[recorder.pid])
        meddler.start()
        time.sleep(WINDOW_S)
        end_ns = time.monotonic_ns()
        meddler.join()
        time.sleep(LEAD_S)
    finally:
        status = recorder.stop(STOP_S)
    samples = read_samples(folder / "samples.arrows")
    return account(samples, (start_ns, end_ns), recorder_lost=status != 0)


def judge(fault: Fault, made: Account) -> tuple[bool, str]:
    """Return whether the fault gave its code and no zero, and what it gave."""
    zeros = [reading.channel for reading in made.readings if reading.gross_j == 0]
    energies = [reading.gross_j for reading in made.readings if reading.headline]
    told = ", ".join("null" if energy is None else f"{energy:.0f} J" for energy in energies)
    right = all(abs(energy - TRUE_J) <= 0.01 * TRUE_J for energy in energies if energy is not None)
    met = (right if fault.code is None else fault.code in made.validity) and not zeros
    given = ", ".join(made.validity) or "no code"
    asked = fault.code or "the right energy or none"
    return met, f"{fault.name}: asked {asked}, given {given}; energy {told or 'none'}"


def judge_all() -> list[tuple[bool, str]]:
    """Inject every fault in turn; return whether each gave its code, and what it gave."""
    found = []
    before = dict(os.environ)
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found.append(judge(fault, inject(fault, Path(folder))))
            finally:
                os.environ.clear()
                os.environ.update(before)
    return found


def main() -> int:
    """Inject every fault; return 1 if one did not give its code."""
    library, reason = sim.library_or_reason()
    if library is None:
        print(f"no simulated card: {reason}", file=sys.stderr)
        return 1
    found = judge_all()
    for met, text in found:
        print(f"{'pass' if met else 'FAIL'}  {text}")
    return 0 if all(met for met, _ in found) else 1


if __name__ == "__main__":
    sys.exit(main())
