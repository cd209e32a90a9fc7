"""The simulated card from Python: write a trace, build the library, and know the truth.

What is computed here is independent of the C code: exact rational arithmetic from the
definitions in README.md, so that tests can hold one against the other.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ON_GPU = HERE / "on_gpu"
# NVML_SIM_OUT names another build, as the one with sanitizers (README.md)
BUILD = Path(os.environ.get("NVML_SIM_OUT", HERE.parents[1] / "build" / "nvml_sim")).absolute()
LIBRARY_NAME = "libnvidia-ml.so.1"
NS_PER_S = 1_000_000_000

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Ticks:
    """When an instrument renews what it shows: tick number k at phase + k * step."""

    step_ns: int
    phase_ns: int
    jitter_ns: int = 0
    skip: float = 0
    stalls_ns: Sequence[tuple[int, int]] = ()
    seeds: tuple[int, int] = (0, 0)  # of jitter and skip

    def time_ns(self, number: int) -> int:
        """When tick `number` is, moved as it is."""
        moved = (2 * self.jitter_ns + 1) * _draw(self.seeds[0], number) // 2**53 - self.jitter_ns
        return self.phase_ns + number * self.step_ns + moved

    def happens(self, number: int) -> bool:
        """Whether tick `number` is neither skipped nor inside a stall."""
        at_ns = self.time_ns(number)
        stalled = any(start <= at_ns < end for start, end in self.stalls_ns)
        return not stalled and Fraction(_draw(self.seeds[1], number), 2**53) >= self.skip

    def last_number(self, elapsed_ns: int) -> int:
        """The last tick that happens at or before `elapsed_ns`."""
        number = (elapsed_ns + self.jitter_ns - self.phase_ns) // self.step_ns
        while self.time_ns(number) > elapsed_ns or not self.happens(number):
            number -= 1
        return number

    def last_ns(self, elapsed_ns: int) -> int:
        """When that tick is."""
        return self.time_ns(self.last_number(elapsed_ns))


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
    counter_lag_ms: float = 0
    counter_sample_ms: float = 100
    counter_sample_phase_ms: float = 0
    counter_window_ms: float = 100
    counter_gain: float = 1.0
    counter_jitter_ms: float = 0
    counter_skip: float = 0
    counter_resets_s: Sequence[float] = ()
    counter_wrap_mj: int | None = None
    counter_jumps: Points = ()
    counter_stalls: Sequence[tuple[float, float, str]] = ()
    power_skip: float = 0
    zero_every: int = 0
    call_ms: Mapping[str, float] | None = None

    def power_ticks(self) -> Ticks:
        """When power is renewed."""
        return Ticks(_ns(self.update_ms), _ns(self.phase_ms), skip=self.power_skip, seeds=(0, 3))

    def counter_ticks(self) -> Ticks:
        """When the counter steps."""
        return Ticks(
            _ns(self.counter_update_ms),
            _ns(self.counter_phase_ms),
            jitter_ns=_ns(self.counter_jitter_ms),
            skip=self.counter_skip,
            stalls_ns=[(_time_ns(start), _time_ns(end)) for start, end, _ in self.counter_stalls],
            seeds=(1, 2),
        )

    def own_ticks(self) -> Ticks:
        """When a counter from "own_samples" samples power."""
        return Ticks(_ns(self.counter_sample_ms), _ns(self.counter_sample_phase_ms))


@dataclass(frozen=True)
class Device:
    """One card. `keys` holds any further keys of the trace, as README.md lists them."""

    power_w: Points = ((0.0, 100.0),)
    sensor: Sensor = field(default_factory=Sensor)
    name: str = "Simulated GPU"
    uuid: str | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The card in a trace."""
        own = {"name": self.name, "uuid": self.uuid, "power_w": self.power_w}
        card = {**own, "sensor": vars(self.sensor), **self.keys}
        yield "card"
        for one in card.pop("processes", ()):
            memory = one.get("used_memory_bytes", "-")
            words = (one["pid"], one.get("type", "compute"), memory, one.get("name", "a process"))
            yield f"process {_words(words)}"
        yield from _lines(card)

    def true_energy_j(self, start_s: float, end_s: float) -> float:
        """Integral of true power over [start_s, end_s] (seconds from time zero), in joules."""
        return float(_integral(self.power_w, Fraction(start_s), Fraction(end_s)))

    def counter_mj(self, elapsed_ns: int) -> int:
        """What the energy counter shows, in mJ, `elapsed_ns` after time zero."""
        sensor = self.sensor
        at_ns = max(sensor.counter_ticks().last_ns(elapsed_ns) - _ns(sensor.counter_lag_ms), 0)
        resets = [reset for reset in map(_time_ns, sensor.counter_resets_s) if reset <= at_ns]
        since_ns = resets[-1] if resets else None
        counted = self._counted_j(at_ns) - self._counted_j(since_ns or 0)
        shown = Fraction(0 if resets else sensor.counter_start_mj)
        shown += Fraction(sensor.counter_gain) * counted * 1000
        for time_s, joules in sensor.counter_jumps:
            if _time_ns(time_s) <= at_ns and (since_ns is None or _time_ns(time_s) >= since_ns):
                shown += Fraction(joules) * 1000
        whole = max(round(shown), 0)
        return whole % sensor.counter_wrap_mj if sensor.counter_wrap_mj else whole

    def shown_power_mw(self, elapsed_ns: int, window_ms: float | None = None) -> int:
        """What a power reading shows, in mW; window_ms None is the sensor's own window."""
        ticks, every = self.sensor.power_ticks(), self.sensor.zero_every
        number = ticks.last_number(elapsed_ns)
        if every and (number + 1) % every == 0:
            return 0
        return round(self._sample_w(ticks.time_ns(number), window_ms) * 1000)

    def _mean_w(self, end_ns: int, window_ms: float) -> Fraction:
        end, start = Fraction(end_ns, NS_PER_S), Fraction(end_ns - _ns(window_ms), NS_PER_S)
        if start == end:
            return _power_at(self.power_w, end)
        return _integral(self.power_w, start, end) / (end - start)

    def _sample_w(self, tick_ns: int, window_ms: float | None = None) -> Fraction:
        mean = self._mean_w(tick_ns, self.sensor.window_ms if window_ms is None else window_ms)
        return max(Fraction(0), Fraction(self.sensor.gain) * mean + Fraction(self.sensor.offset_w))

    def _own_sample_w(self, tick_ns: int) -> Fraction:
        return self._mean_w(tick_ns, self.sensor.counter_window_ms)

    def _counted_j(self, until_ns: int) -> Fraction:
        """What the counter adds up from time zero, less what its stalls lose."""
        counted = self._summed_j(0, until_ns)
        for start_s, end_s, energy in self.sensor.counter_stalls:
            if energy == "lose":
                counted -= self._summed_j(_time_ns(start_s), min(_time_ns(end_s), until_ns))
        return counted

    def _summed_j(self, start_ns: int, end_ns: int) -> Fraction:
        start_ns = max(start_ns, 0)
        if end_ns <= start_ns:
            return Fraction(0)
        if self.sensor.counter_from == "samples":
            return _held_j(self.sensor.power_ticks(), self._sample_w, start_ns, end_ns)
        if self.sensor.counter_from == "own_samples":
            return _held_j(self.sensor.own_ticks(), self._own_sample_w, start_ns, end_ns)
        return _integral(self.power_w, Fraction(start_ns, NS_PER_S), Fraction(end_ns, NS_PER_S))


@dataclass(frozen=True)
class Trace:
    """A whole trace file. `keys` holds further keys at its top level."""

    devices: Sequence[Device] = (Device(),)
    keys: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, name: str = "trace.txt") -> Path:
        """Write the file into `folder` and return its path."""
        path = folder / name
        lines = [*_lines(self.keys), *(line for each in self.devices for line in each.lines())]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path


class SteppedClock:
    """A clock file for NVML_SIM_CLOCK: simulated time stands still until it is set or advanced.

    Attributes:
        now_ns: the simulated CLOCK_MONOTONIC.
    """

    def __init__(self, path: Path, start_ns: int = 0) -> None:
        self.path, self.now_ns = path, start_ns
        path.write_bytes(struct.pack("<q", start_ns))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    def set(self, now_ns: int) -> None:
        """Put the clock to `now_ns`, for every process that has the file open."""
        self.now_ns = now_ns
        self._memory[:] = struct.pack("<q", now_ns)

    def advance(self, seconds: float) -> None:
        """Move the clock on by `seconds`."""
        self.set(self.now_ns + round(seconds * NS_PER_S))


def environment(
    trace: Path,
    *,
    t0_ns: int | None = None,
    state: Path | None = None,
    clock: Path | SteppedClock | str | None = None,
    library_folder: Path = BUILD,
    base: Mapping[str, str] | None = None,
    computes: bool = True,
) -> dict[str, str]:
    """Environment variables for a process that is to see the simulated card.

    Args:
        trace: the trace file.
        t0_ns: time zero in CLOCK_MONOTONIC ns; None: now, so that every process given this
            environment agrees on it.
        state: file for what callers set; None: each process keeps its own.
        clock: a clock file.
        library_folder: folder with libnvidia-ml.so.1.
        base: variables to start from; None: this process' own.
        computes: transformers is to look as if it computed on the card (``on_gpu``); False: as a
            PyTorch that cannot use the GPU which NVML sees.
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
    given = variables.pop("PYTHONPATH", "").split(os.pathsep)
    searched = [str(ON_GPU)] if computes else []
    searched += [path for path in given if path and path != str(ON_GPU)]
    if searched:
        variables["PYTHONPATH"] = os.pathsep.join(searched)
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


def library_or_skip() -> Path:
    """The built library's path; a test that asks is skipped where there is none."""
    import pytest

    path, reason = library_or_reason()
    if path is None:
        pytest.skip(reason)
    return path


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


def _lines(keys: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Keys of a trace with their values; a mapping is a line for each of its keys."""
    for key, value in keys.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{above}{key}.")
        elif value is not None and (words := _words(value)):
            yield f"{above}{key} {words}"


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1_000_000)


def _time_ns(seconds: float) -> int:
    return round(Fraction(seconds) * NS_PER_S)


def _draw(seed: int, number: int) -> int:
    """53 random bits of a number: the first that splitmix64 gives from seed + number steps."""
    mask = 2**64 - 1
    z = (seed + number * 0x9E3779B97F4A7C15) & mask
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
    return (z ^ (z >> 31)) >> 11


def _held_j(
    ticks: Ticks, sample_w: Callable[[int], Fraction], start_ns: int, end_ns: int
) -> Fraction:
    """Integral of samples that are each held until the next."""
    energy, at_ns = Fraction(0), start_ns
    while at_ns < end_ns:
        steps = (at_ns - ticks.phase_ns) // ticks.step_ns
        next_ns = min(ticks.phase_ns + (steps + 1) * ticks.step_ns, end_ns)
        energy += sample_w(ticks.last_ns(at_ns)) * Fraction(next_ns - at_ns, NS_PER_S)
        at_ns = next_ns
    return energy


def _power_at(power_w: Points, at_s: Fraction) -> Fraction:
    """Power at a moment; at a step what follows it."""
    points = [(Fraction(t), Fraction(w)) for t, w in power_w]
    before = [point for point in points if point[0] <= at_s]
    after = [point for point in points if point[0] > at_s]
    if not before or not after:
        return (before[-1] if before else after[0])[1]
    (t1, w1), (t2, w2) = before[-1], after[0]
    return w1 + (w2 - w1) * (at_s - t1) / (t2 - t1)


def _integral(power_w: Points, start_s: Fraction, end_s: Fraction) -> Fraction:
    """Sum over stretches, plain and slow; two points at one time are a step."""
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
