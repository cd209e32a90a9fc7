"""Faulty counters and cards: what each gives, and that no wrong number comes without a code.

Each fault is met in windows of 10 s of three loads, cut at ticks.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import meter_adversary_loads as loads
import meter_adversary_ours as ours
import meter_recording as recording
import numpy as np
from harness import Criterion, counted
from meter_adversary_cards import FakePowercap, model
from meter_adversary_loads import Trace
from meter_adversary_windows import seen_tick_s, true_energy_j
from meter_recording import SteppedClock, opened

from llenergymeasure.sensors.behaviour import KnownCards

_LAGS_MS = (10, 30, 60, 100)
LENGTH_S = 10.0
LOADS = ("serve", "offline batches", "low load")
REPETITIONS = 2


Keys = Callable[[Trace, float], Mapping[str, Any]]
"""Settings of the card from its true power, and from when something happens to it."""


def _always(**keys: Any) -> Keys:
    return lambda *_: keys


def _wrap(trace: Trace, fault_s: float) -> Mapping[str, Any]:
    until_j = float(trace.energy_j(np.zeros(1), np.array([fault_s]))[0])
    return {"counter_wrap_mj": 2**32, "counter_start_mj": 2**32 - round(1000 * until_j)}


def _jumps(_: Trace, fault_s: float) -> Mapping[str, Any]:
    return {"counter_jumps": [[fault_s + off_s, 20.0] for off_s in (-2.0, 0.0, 2.0)]}


def _stall(then: str) -> Keys:
    return lambda _, fault_s: {"counter_stalls": [[fault_s, fault_s + 3.0, then]]}


def _own_samples(window_ms: float, period_ms: float) -> Keys:
    """A counter that adds up part-time samples of its own, at another phase than those shown."""
    return _always(
        counter_from="own_samples",
        counter_sample_ms=period_ms,
        counter_window_ms=window_ms,
        counter_sample_phase_ms=0.37 * period_ms,
    )


def _stranger(*_: object) -> Mapping[str, Any]:
    process = {"pid": os.getppid(), "type": "graphics", "used_memory_bytes": 2**30}
    return {"processes": [process]}


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: in words.
        card: which kind of card has it.
        sensor: further settings of its sensors.
        keys: further keys of the card.
        needs_code: whether even a right number is to carry a code.
        probed: whether the card, with the fault, was characterised before.
        watched: whether the recorder looks for other processes.
        latency_s: how long a call takes.
        constant_w: power of a load that never changes, in place of the three loads.
    """

    name: str
    card: str = "H200 true"
    sensor: Keys = field(default=_always())
    keys: Keys = field(default=_always())
    needs_code: bool = False
    probed: bool = False
    watched: bool = False
    latency_s: float = 0.0
    constant_w: float | None = None


FAULTS = (
    Fault("none"),
    Fault("counter starts over from 0", sensor=lambda _, fault_s: {"counter_resets_s": [fault_s]}),
    Fault("counter wraps at 32 bits", sensor=_wrap),
    Fault("counter jumps, 3 x 20 J", sensor=_jumps),
    *(Fault(f"counter lags {ms} ms", sensor=_always(counter_lag_ms=ms)) for ms in _LAGS_MS),
    *(
        Fault(f"counter lags {ms} ms, probed", sensor=_always(counter_lag_ms=ms), probed=True)
        for ms in _LAGS_MS
    ),
    Fault("counter ticks 15 ms early or late", sensor=_always(counter_jitter_ms=15)),
    Fault("counter skips 30 % of its ticks", sensor=_always(counter_skip=0.3)),
    Fault("power skips 30 % of its readings", "A100 sum", _always(power_skip=0.3)),
    Fault("counter stands 3 s, catches up", sensor=_stall("catch_up")),
    Fault("counter stands 3 s, loses them", sensor=_stall("lose")),
    *(
        Fault(f"counter gain {gain}", card, _always(counter_gain=gain))
        for card in ("H200 true", "H100 true")
        for gain in (0.9, 1.08, 1.018)
    ),
    Fault("counter sums own 25/100 ms samples", "H200 true", _own_samples(25, 100)),
    Fault("counter sums own 25/100 ms samples", "H100 true", _own_samples(25, 100)),
    Fault("counter sums own 10/20 ms samples", "H200 true", _own_samples(10, 20)),
    Fault("card dies in the window", keys=lambda _, fault_s: {"fail_after_s": fault_s}),
    Fault("card beside it unreadable"),
    Fault("MIG is on", keys=_always(mig=True), needs_code=True),
    Fault("graphics process of others", keys=_stranger, needs_code=True, watched=True),
    Fault("each 20th power reading is 0", sensor=_always(zero_every=20)),
    Fault("each 20th power reading is 0", "A100 sum", _always(zero_every=20)),
    Fault("constant 300 W, characterised", "RTX 100/100 sum", probed=True, constant_w=300.0),
    Fault("constant 300 W", "RTX 100/100 sum", constant_w=300.0),
    Fault("a call takes 3 ms", latency_s=0.003),
    Fault("a call takes 3 ms", "H100 sum", latency_s=0.003),
)
BESIDE = "card beside it unreadable"
RAPL_FAULTS = ("none", "counter starts over from 0", "counter wraps")


@dataclass(frozen=True)
class Met:
    """What one window under a fault gave."""

    fault: str
    card: str
    load: str
    true_j: float
    energy: ours.Energy
    needs_code: bool

    @property
    def covered(self) -> bool:
        """Return whether the truth lies inside the interval."""
        return ours.covers(self.energy.gross_j, self.energy.gross_u95_j, self.true_j)

    @property
    def silent(self) -> bool:
        """Return whether there is a number that a code is missing from."""
        if self.energy.gross_j is None or self.energy.codes:
            return False
        return self.needs_code or not self.covered


def run(seed: int) -> tuple[list[object], list[Criterion]]:
    """Meet all faults, print the table; return what was met and what must hold."""
    rows: list[list[Met]] = []
    for number, fault in enumerate(FAULTS):
        chosen = LOADS if fault.constant_w is None else ("constant", "constant")
        rng = np.random.default_rng((seed, 3, number))
        row: list[Met] = []
        for _ in range(REPETITIONS):
            known = _probe(fault, rng) if fault.probed else None
            row += [_meet(fault, load, known, rng) for load in chosen]
        rows.append(row)
    rows += [
        [_meet_rapl(name, load, np.random.default_rng((seed, 4, number))) for load in LOADS]
        for number, name in enumerate(RAPL_FAULTS)
    ]
    _print(rows)
    found: list[object] = [asdict(met) for row in rows for met in row]
    return found, list(_criteria(rows))


def _probe(fault: Fault, rng: np.random.Generator) -> KnownCards:
    """Characterise a card that has the fault."""
    trace = loads.probe_trace(rng)
    card = model(fault.card).card(rng)
    devices = [card.device(trace, loads.LIMIT_W, fault.sensor(trace, loads.PROBE_S / 2))]
    with opened(devices, rng) as (inventory, clock), _slow_calls(fault.latency_s, clock):
        samples = recording.record(inventory, [0], clock, loads.PROBE_S)
    edges_ns = [recording.nanoseconds(edge_s) for edge_s in trace.edges_s]
    return ours.characterise(samples, card.uuid, edges_ns)


def _meet(fault: Fault, load: str, known: KnownCards | None, rng: np.random.Generator) -> Met:
    scene = loads.free_scene(load, LENGTH_S, rng)
    trace = scene.trace
    if fault.constant_w is not None:
        watts = np.full(2, fault.constant_w)
        trace = Trace(load, np.array([0.0, scene.end_s]), watts, np.zeros(0))
    card = model(fault.card).card(rng)
    start_s, end_s = (seen_tick_s(card, moment_s, rng) for moment_s in scene.window_s)
    fault_s = (start_s + end_s) / 2
    sensor, keys = (make(trace, fault_s) for make in (fault.sensor, fault.keys))
    devices = [card.device(trace, scene.limit_w, sensor, **keys)]
    true_j = float(trace.energy_j(np.array([start_s]), np.array([end_s]))[0])
    if fault.name == BESIDE:
        lost = model(fault.card).card(rng).device(trace, scene.limit_w, fail_after_s=0.0)
        devices.append(replace(lost, uuid="GPU-unreadable"))
        true_j *= 2
    with opened(devices, rng) as (inventory, clock), _slow_calls(fault.latency_s, clock):
        indices = list(range(len(devices)))
        run_pid = os.getpid() if fault.watched else None
        samples = recording.record(inventory, indices, clock, scene.end_s, run_pid)
    window = recording.nanoseconds(start_s), recording.nanoseconds(end_s)
    energy = ours.energy_of(samples, window, (), known)
    return Met(fault.name, fault.card, load, true_j, energy, fault.needs_code)


@contextmanager
def _slow_calls(latency_s: float, clock: SteppedClock) -> Iterator[None]:
    """Have time pass while NVML is asked: under a stepped clock the card itself cannot wait."""
    import pynvml

    names = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues")
    before = {name: getattr(pynvml, name) for name in names}

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def late(*arguments: Any) -> Any:
            clock.set(clock.now_ns + round(latency_s * 0.5e9))
            answer = call(*arguments)
            clock.set(clock.now_ns + round(latency_s * 0.5e9))
            return answer

        return late

    try:
        for name, call in before.items():
            setattr(pynvml, name, slow(call))
        yield
    finally:
        for name, call in before.items():
            setattr(pynvml, name, call)


def _meet_rapl(name: str, load: str, rng: np.random.Generator) -> Met:
    scene = loads.scaled(loads.free_scene(load, LENGTH_S, rng), 0.4)
    fault_s = sum(scene.window_s) / 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        clock = SteppedClock(path / "clock", rng)
        powercap = FakePowercap(path / "powercap", scene.trace, clock, 0.0)
        if name == RAPL_FAULTS[1]:
            powercap.start_over(fault_s)
        elif name == RAPL_FAULTS[2]:
            powercap.wrap(fault_s)
        samples = ours.record_rapl(powercap, clock, 0.0, scene.end_s - 0.01)
    start_s, end_s = scene.window_s
    window = recording.nanoseconds(start_s), recording.nanoseconds(end_s)
    true_j = true_energy_j(scene, scene.window_s)
    return Met(name, "RAPL", load, true_j, ours.energy_of(samples, window), needs_code=False)


def _print(rows: Sequence[Sequence[Met]]) -> None:
    print(
        f"{'fault':37}{'card':17}{'n':>3}{'none':>5}{'error in %':>18}{'med u95':>9}"
        f"{'med bound':>10}{'in':>4}{'coded':>6}{'silent':>7}  codes"
    )
    for row in rows:
        numbers = [met for met in row if met.energy.gross_j is not None]
        errors = [100 * ((met.energy.gross_j or 0.0) / met.true_j - 1) for met in numbers]
        span = f"{min(errors):+.3f} to {max(errors):+.3f}" if errors else "-"
        inside = sum(met.covered for met in row)
        widths = [_percent(met.energy.gross_u95_j, met.true_j) for met in numbers]
        bounds = [_percent(met.energy.bound_j, met.true_j) for met in numbers]
        print(
            f"{row[0].fault:37}{row[0].card:17}{len(row):3}{len(row) - len(numbers):5}{span:>18}"
            f"{_median(widths):>9}{_median(bounds):>10}{inside:4}"
            f"{sum(bool(met.energy.codes) for met in row):6}{sum(met.silent for met in row):7}"
            f"  {counted(code for met in row for code in met.energy.codes)}"
        )


def _criteria(rows: Sequence[Sequence[Met]]) -> Iterator[Criterion]:
    silent = [met for row in rows for met in row if met.silent]
    yield not silent, f"numbers that a code is missing from: {len(silent)}"
    for row in rows:
        count = sum(met.silent for met in row)
        if count:
            yield False, f"  {row[0].fault}, {row[0].card}: {count} of {len(row)}"
    zeros = sum(met.energy.gross_j == 0 for row in rows for met in row)
    yield zeros == 0, f"energies of 0: {zeros}"


def _percent(value_j: float | None, true_j: float) -> float | None:
    return None if value_j is None else 100 * value_j / true_j


def _median(values: Sequence[float | None]) -> str:
    given = [value for value in values if value is not None]
    return f"{float(np.median(given)):.4f}" if given else "-"
