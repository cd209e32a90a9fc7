"""The simulated card from Python: write a trace, build the library, and know the truth.

What is computed here is independent of the C code: exact rational arithmetic from the
definitions in README.md, so that tests can hold one against the other.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# NVML_SIM_OUT names another build, as the one with sanitizers (README.md)
BUILD = Path(os.environ.get("NVML_SIM_OUT", HERE.parents[1] / "build" / "nvml_sim")).absolute()
LIBRARY_NAME = "libnvidia-ml.so.1"
NS_PER_S = 1_000_000_000

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Sensor:
    """The card's instruments; the defaults are the library's own."""

    update_ms: float = 100
    window_ms: float = 100
    counter_update_ms: float = 100
    gain: float = 1.0
    offset_w: float = 0.0
    counter_from: str = "true"
    average_window_ms: float | None = None
    phase_ms: float = 0
    counter_phase_ms: float = 0
    counter_start_mj: float = 0
    power_noise_w: float = 0

    def as_json(self) -> dict[str, Any]:
        """The trace's `sensor` object."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Device:
    """One card. `keys` holds any further keys of the trace, as README.md lists them."""

    power_w: Points = ((0.0, 100.0),)
    sensor: Sensor = field(default_factory=Sensor)
    name: str = "Simulated GPU"
    uuid: str | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The trace's element of `devices`."""
        card = {
            "name": self.name,
            "uuid": self.uuid,
            "power_w": [list(point) for point in self.power_w],
            "sensor": self.sensor.as_json(),
            **self.keys,
        }
        return {key: value for key, value in card.items() if value is not None}

    def true_energy_j(self, start_s: float, end_s: float) -> float:
        """Integral of true power over [start_s, end_s] (seconds from time zero), in joules."""
        return true_energy_j(self.power_w, start_s, end_s)

    def counter_mj(self, elapsed_ns: int) -> int:
        """What the energy counter shows, in mJ, `elapsed_ns` after time zero."""
        sensor = self.sensor
        tick_ns = _tick_ns(elapsed_ns, sensor.counter_update_ms, sensor.counter_phase_ms)
        if tick_ns <= 0:
            energy_j = Fraction(0)
        elif sensor.counter_from == "samples":
            energy_j = self._samples_energy_j(tick_ns)
        else:
            energy_j = _integral(self.power_w, Fraction(0), Fraction(tick_ns, NS_PER_S))
        return round(Fraction(sensor.counter_start_mj) + energy_j * 1000)

    def shown_power_mw(self, elapsed_ns: int, window_ms: float | None = None) -> int:
        """What a power reading shows, in mW; window_ms None is the sensor's own window."""
        tick_ns = _tick_ns(elapsed_ns, self.sensor.update_ms, self.sensor.phase_ms)
        return round(self._sample_w(tick_ns, window_ms) * 1000)

    def _sample_w(self, tick_ns: int, window_ms: float | None = None) -> Fraction:
        window_ns = _ns(self.sensor.window_ms if window_ms is None else window_ms)
        end, start = Fraction(tick_ns, NS_PER_S), Fraction(tick_ns - window_ns, NS_PER_S)
        mean = _integral(self.power_w, start, end) / (end - start)
        return max(Fraction(0), Fraction(self.sensor.gain) * mean + Fraction(self.sensor.offset_w))

    def _samples_energy_j(self, until_ns: int) -> Fraction:
        energy, at_ns = Fraction(0), 0
        step_ns = _ns(self.sensor.update_ms)
        while at_ns < until_ns:
            tick_ns = _tick_ns(at_ns, self.sensor.update_ms, self.sensor.phase_ms)
            next_ns = min(tick_ns + step_ns, until_ns)
            energy += self._sample_w(tick_ns) * Fraction(next_ns - at_ns, NS_PER_S)
            at_ns = next_ns
        return energy


@dataclass(frozen=True)
class Trace:
    """A whole trace file. `keys` holds further keys at its top level."""

    devices: Sequence[Device] = (Device(),)
    keys: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, name: str = "trace.json") -> Path:
        """Write the file into `folder` and return its path."""
        path = folder / name
        content = {"devices": [device.as_json() for device in self.devices], **self.keys}
        path.write_text(json.dumps(content), encoding="utf-8")
        return path


class SteppedClock:
    """A clock file for NVML_SIM_CLOCK: simulated time stands still until it is set or advanced."""

    def __init__(self, path: Path, start_ns: int = 0) -> None:
        self.path = path
        self._now_ns = start_ns
        path.write_bytes(struct.pack("<q", start_ns))

    @property
    def now_ns(self) -> int:
        """The simulated CLOCK_MONOTONIC, in ns."""
        return self._now_ns

    def set(self, now_ns: int) -> None:
        """Put the clock to `now_ns`, for every process that has the file open."""
        self._now_ns = now_ns
        with self.path.open("r+b", buffering=0) as file:
            file.write(struct.pack("<q", now_ns))

    def advance(self, seconds: float) -> None:
        """Move the clock on by `seconds`."""
        self.set(self._now_ns + round(seconds * NS_PER_S))


def true_energy_j(power_w: Points, start_s: float, end_s: float) -> float:
    """Integral of piecewise linear power over [start_s, end_s], in joules, exact but for rounding.

    Before the first point its value holds, after the last one likewise; two points at one time
    are a step.
    """
    return float(_integral(power_w, Fraction(start_s), Fraction(end_s)))


def environment(
    trace: Path,
    *,
    t0_ns: int | None = None,
    state: Path | None = None,
    clock: Path | SteppedClock | str | None = None,
    library_folder: Path = BUILD,
    base: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Environment variables for a process that is to see the simulated card.

    Args:
        trace: the trace file.
        t0_ns: time zero in CLOCK_MONOTONIC ns; None: now, so that every process given this
            environment agrees on it.
        state: file for what callers set; None: each process keeps its own.
        clock: a clock file, or "xN" for N times real time.
        library_folder: folder with libnvidia-ml.so.1.
        base: variables to start from; None: this process' own.
    """
    variables = dict(os.environ if base is None else base)
    for name in ("NVML_SIM_T0", "NVML_SIM_STATE", "NVML_SIM_CLOCK"):
        variables.pop(name, None)
    if t0_ns is None:
        t0_ns = clock.now_ns if isinstance(clock, SteppedClock) else time.monotonic_ns()
    paths = [str(library_folder), *filter(None, [variables.get("LD_LIBRARY_PATH")])]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(paths)
    variables["NVML_SIM_TRACE"] = str(trace)
    variables["NVML_SIM_T0"] = str(t0_ns)
    if state is not None:
        variables["NVML_SIM_STATE"] = str(state)
    if clock is not None:
        variables["NVML_SIM_CLOCK"] = str(clock.path if isinstance(clock, SteppedClock) else clock)
    return variables


@functools.lru_cache(maxsize=1)
def library_or_reason() -> tuple[Path | None, str]:
    """The built library's path and "", or None and why there is none.

    Builds it where it is missing or older than its sources; processes take turns.
    """
    if sys.platform != "linux":
        return None, "the simulated card needs Linux"
    for tool in ("make", os.environ.get("CC", "gcc")):
        if shutil.which(tool) is None:
            return None, f"the simulated card needs {tool} to be built"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "--no-print-directory", "-C", str(HERE), f"OUT={BUILD}"],
            capture_output=True,
            text=True,
            check=False,
        )
    if made.returncode != 0:
        raise RuntimeError(f"the simulated card does not build:\n{made.stderr}")
    return BUILD / LIBRARY_NAME, ""


def run_python(
    code: str, variables: Mapping[str, str], *arguments: str, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run Python source in a process of its own; the caller looks at the return code."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=dict(variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


def _tick_ns(elapsed_ns: int, step_ms: float, phase_ms: float) -> int:
    step_ns, phase_ns = _ns(step_ms), _ns(phase_ms)
    return (elapsed_ns - phase_ns) // step_ns * step_ns + phase_ns


def _integral(power_w: Points, start_s: Fraction, end_s: Fraction) -> Fraction:
    """Sum over stretches; plain and slow, from the definition."""
    points = [(Fraction(t), Fraction(w)) for t, w in power_w]
    first, last = points[0], points[-1]
    early = (min(start_s, first[0]), first[1])
    late = (max(end_s, last[0]), last[1])
    energy = Fraction(0)
    stretches = [early, *points, late]
    for (t1, w1), (t2, w2) in itertools.pairwise(stretches):
        a, b = max(t1, start_s), min(t2, end_s)
        if b <= a:
            continue
        slope = (w2 - w1) / (t2 - t1)
        energy += (b - a) * (2 * w1 + slope * (a + b - 2 * t1)) / 2
    return energy
