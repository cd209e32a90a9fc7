"""The card that is validated, real or simulated, and what makes it work and rest."""

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOAD_FILE, SCALE, MARKS = "VALIDATION_LOAD", "VALIDATION_SCALE", "VALIDATION_MARKS"
ENTRY = Path(__file__).resolve().parents[1] / "gpu_validation.py"
ROOT = ENTRY.parents[1]

Work = Callable[[bool], None]
"""Keeps the card busy for a ms or two, or says that it rests."""

_HAND_OVER_S = 0.0007
"""How long one piece of work lasts past the moment that it was to end at, about half of it."""


@dataclass(frozen=True)
class Setting:
    """How to validate.

    Attributes:
        load_file: what the simulated card's power follows; None on a real one.
        scale: every stretch of time is this many times as long as on a real card.
    """

    load_file: Path | None
    scale: float

    @classmethod
    def now(cls) -> "Setting":
        """Return that of this process."""
        file = os.environ.get(LOAD_FILE)
        return cls(Path(file) if file else None, float(os.environ.get(SCALE, "1")))

    @property
    def simulated(self) -> bool:
        """Whether the card is a simulated one."""
        return self.load_file is not None

    @property
    def patience(self) -> float:
        """How many times its limit a stage may take: the simulated card's machine may be slow."""
        return 3.0 if self.simulated else 1.0

    def seconds(self, real_s: float, least_s: float = 0.0) -> float:
        """Return how long to do what takes ``real_s`` on a real card."""
        return max(least_s, real_s * self.scale)

    def sleep(self, real_s: float) -> None:
        """Rest for what is ``real_s`` on a real card."""
        time.sleep(self.seconds(real_s))


def use_simulated(library: Path, folder: Path, scale: float) -> None:
    """Have this process and its children see one simulated card, which follows a load file."""
    sys.path.insert(0, str(ROOT / "tests"))
    from nvml_sim import sim

    folder.mkdir(parents=True, exist_ok=True)
    load = folder / "load"
    load.write_text("")
    sensor = sim.Sensor(
        window_ms=25, phase_ms=13, counter_phase_ms=41, average_window_ms=1000, power_noise_w=1
    )
    keys = {"load_file": str(load), "idle_w": 75, "max_w": 600}
    trace = sim.Trace([sim.Device(name="Simulated H100", sensor=sensor, keys=keys)]).write(folder)
    state = folder / "settings"
    os.environ |= sim.environment(trace, library_folder=library.absolute(), state=state)
    os.environ |= {LOAD_FILE: str(load), SCALE: str(scale)}
    os.environ.pop("LLEM_CACHE", None)  # what is known of real cards is not for this one


def make_work(setting: Setting) -> Work:
    """Return what makes the card work: on a real card, products of matrices."""
    if setting.load_file is not None:
        return simulated_work(setting.load_file)
    import torch

    square = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def work(on: bool) -> None:
        if on:
            for _ in range(4):
                torch.matmul(square, square)
            torch.cuda.synchronize()

    for _ in range(5):
        work(True)
    return work


def simulated_work(load_file: Path) -> Work:
    state: list[bool] = []

    def work(on: bool) -> None:
        if state != [on]:
            state[:] = [on]
            with load_file.open("a") as file:
                file.write(f"{time.monotonic_ns()},{0.9 if on else 0}\n")
        if on:
            time.sleep(0.001)

    return work


def hold(work: Work, seconds: float) -> None:
    """Work without a rest."""
    end = time.monotonic() + seconds
    work(True)
    while time.monotonic() < end:
        work(True)
    work(False)


def pulse(work: Work, on_s: float, off_s: float, seconds: float) -> float:
    """Work in pulses; return the share of time with work handed over and not done."""
    start_s = next_s = time.monotonic()
    busy_s = 0.0
    while time.monotonic() < start_s + seconds:
        start = time.monotonic()
        hold(work, on_s - _HAND_OVER_S)
        busy_s += time.monotonic() - start
        next_s += on_s + off_s
        time.sleep(max(0.0, next_s - time.monotonic()))
    return busy_s / (time.monotonic() - start_s)


PULSES = ((50, 50), (10, 10), (18.5, 18.5), (25, 75), (25, 75), (37, 63), (33.3, 33.3))
"""Work and rest in ms; those of 100 ms together are locked to most cards' sensors."""


def _marker(variable: str, form: str) -> Callable[[str], Any]:
    """Return what writes down that something begins now, in the file that a variable names."""
    path = Path(os.environ[variable])

    def mark(what: str) -> None:
        with path.open("a") as file:
            print(form.format(ns=time.monotonic_ns(), what=what), file=file)

    return mark


def _step(
    work: Work, count: int, mark: Callable[[str], Any], chance: random.Random, *span_s: float
) -> None:
    """Alternate between work and rest for stretches of irregular lengths within ``span_s``."""
    for number in range(count):
        on = number % 2 == 0
        mark("on" if on else "off")
        length_s = chance.uniform(*span_s)
        hold(work, length_s) if on else time.sleep(length_s)


def _play_known(setting: Setting) -> None:
    """Make a load of known times, and write its moments down as they come.

    Steps between rest and work at irregular times, each long enough for the readings to stand,
    then a steady stretch and pulses.
    """
    mark = _marker(MARKS, "{ns} {what}")
    mark("rest")
    work = make_work(setting)
    mark("context")
    setting.sleep(4)
    _step(work, 28 if setting.scale == 1 else 6, mark, random.Random(5), 0.45, 0.95)
    mark("off")
    time.sleep(1)
    mark("steady")
    hold(work, setting.seconds(4, 1.2))
    mark("rest")
    setting.sleep(2)
    for on_ms, off_ms in PULSES if setting.scale == 1 else PULSES[:2]:
        on_s, off_s = on_ms / 1e3, off_ms / 1e3
        mark(f"pulses {on_s:g} {off_s:g}")
        share = pulse(work, on_s, off_s, setting.seconds(4, 1.3))
        mark(f"done {share:.4f}")
        setting.sleep(0.55)
    mark("end")


def _play_steps(setting: Setting) -> None:
    """Step as ``llem sensors --characterise`` wants it from a COMMAND."""
    _step(make_work(setting), 26, _marker("LLEM_STEPS", "{ns}"), random.Random(1), 1.35, 1.75)


PLAYED = {"known": _play_known, "steps": _play_steps}
"""What the command plays in a process of its own."""


@contextlib.contextmanager
def simulated_busy(setting: Setting) -> Iterator[None]:
    """Have the simulated card draw power while a program works on the processor."""
    work = (lambda _: None) if setting.load_file is None else simulated_work(setting.load_file)
    work(True)
    try:
        yield
    finally:
        work(False)
