"""Faulty counters and cards: what each gives, and that no wrong number comes without a code.

Counters that lag, jump, stall or count something else are made here, in place of the simulated
card's own, from the same true power; lost cards, MIG slices and other processes are the simulated
card's. Each fault is met in windows of 10 s of three loads.
"""

import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import meter_adversary_loads as loads
import meter_adversary_ours as ours
import meter_recording as recording
import numpy as np
from meter_adversary_cards import COUNTER_PERIOD_S, DrawnCard, FakePowercap, model
from meter_adversary_judge import Criterion
from meter_adversary_loads import Scene
from meter_adversary_windows import opened, phases, seen_tick_s, true_energy_j
from meter_recording import SteppedClock
from meter_traces import Trace

Floats = loads.Floats
LENGTH_S = 10.0
LOADS = ("serve", "offline batches", "low load")
REPETITIONS = 2


@dataclass(frozen=True)
class Counted:
    """What a faulty counter is made from.

    Attributes:
        trace: true power.
        ticks_s: when a faultless counter would step.
        fault_s: when something happens to it: in the middle of the window.
        rng: for what is random.
    """

    trace: Trace
    ticks_s: Floats
    fault_s: float
    rng: np.random.Generator

    @property
    def energy_j(self) -> Floats:
        """Return the true energy at the ticks."""
        return self.up_to(self.ticks_s)

    def up_to(self, moments_s: Floats) -> Floats:
        """Return the true energy from time zero."""
        return self.trace.energy_j(np.zeros(len(moments_s)), moments_s)


Ticks = tuple[Floats, Floats]
"""When a counter steps, in s, and what it shows from then on, in J."""
Make = Callable[[Counted], Ticks]


def _reset(of: Counted) -> Ticks:
    lost_j = of.up_to(np.array([of.fault_s]))[0]
    return of.ticks_s, of.energy_j - np.where(of.ticks_s >= of.fault_s, lost_j, 0.0)


def _wrap(of: Counted) -> Ticks:
    range_j = 2**32 / 1000
    start_j = range_j - of.up_to(np.array([of.fault_s]))[0]
    return of.ticks_s, (start_j + of.energy_j) % range_j


def _jumps(of: Counted) -> Ticks:
    at_s = of.fault_s + np.array([-2.0, 0.0, 2.0])
    return of.ticks_s, of.energy_j + 20.0 * np.searchsorted(at_s, of.ticks_s)


def _lag(lag_s: float) -> Make:
    return lambda of: (of.ticks_s, of.up_to(of.ticks_s - lag_s))


def _jitter(of: Counted) -> Ticks:
    ticks_s = np.sort(of.ticks_s + of.rng.uniform(-0.015, 0.015, len(of.ticks_s)))
    return ticks_s, of.up_to(ticks_s)


def _skipped(of: Counted) -> Ticks:
    kept = of.rng.random(len(of.ticks_s)) > 0.3
    return of.ticks_s[kept], of.energy_j[kept]


def _stall(*, lost: bool) -> Make:
    def make(of: Counted) -> Ticks:
        begin_s, end_s = of.fault_s, of.fault_s + 3.0
        kept = (of.ticks_s < begin_s) | (of.ticks_s >= end_s)
        gone_j = float(np.diff(of.up_to(np.array([begin_s, end_s])))[0]) if lost else 0.0
        shown_j = of.energy_j - np.where(of.ticks_s >= end_s, gone_j, 0.0)
        return of.ticks_s[kept], shown_j[kept]

    return make


def _gain(gain: float) -> Make:
    return lambda of: (of.ticks_s, gain * of.energy_j)


def _own_samples(window_s: float, period_s: float) -> Make:
    """A counter that adds up part-time samples of its own, at another phase than those shown."""

    def make(of: Counted) -> Ticks:
        count = int(of.ticks_s[-1] / period_s) + 1
        first_s = float(of.rng.uniform(0, period_s))
        sampled_s = first_s + period_s * np.arange(count, dtype=np.float64)
        watts = of.trace.energy_j(sampled_s - window_s, sampled_s) / window_s
        held_j = np.concatenate(([0.0], np.cumsum(watts[:-1] * period_s)))
        return of.ticks_s, np.interp(of.ticks_s, sampled_s, held_j)

    return make


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: in words.
        card: which kind of card has it.
        counter: what stands in place of the card's counter.
        keys: further keys of the card's trace, from when the fault happens.
        needs_code: whether even a right number is to carry a code.
        probed: whether the card, with the fault, was characterised before.
        watched: whether the recorder looks for other processes.
        latency_s: how long a call takes.
        zero_each: each so many readings of power are 0.
        constant_w: power of a load that never changes, in place of the three loads.
    """

    name: str
    card: str = "H200 true"
    counter: Make | None = None
    keys: Callable[[float], Mapping[str, Any]] = field(default=lambda _: {})
    needs_code: bool = False
    probed: bool = False
    watched: bool = False
    latency_s: float = 0.0
    zero_each: int | None = None
    constant_w: float | None = None


def _stranger(_: float) -> Mapping[str, Any]:
    process = {"pid": os.getppid(), "type": "graphics", "used_memory_bytes": 2**30}
    return {"processes": [process]}


FAULTS = (
    Fault("none"),
    Fault("counter starts over from 0", counter=_reset),
    Fault("counter wraps at 32 bits", counter=_wrap),
    Fault("counter jumps, 3 x 20 J", counter=_jumps),
    *(Fault(f"counter lags {ms} ms", counter=_lag(ms / 1000)) for ms in (10, 30, 60, 100)),
    *(
        Fault(f"counter lags {ms} ms, probed", counter=_lag(ms / 1000), probed=True)
        for ms in (30, 100)
    ),
    Fault("counter ticks 15 ms early or late", counter=_jitter),
    Fault("counter skips 30 % of its ticks", counter=_skipped),
    Fault("counter stands 3 s, catches up", counter=_stall(lost=False)),
    Fault("counter stands 3 s, loses them", counter=_stall(lost=True)),
    *(Fault(f"counter gain {gain}", counter=_gain(gain)) for gain in (0.9, 1.08, 1.018)),
    *(
        Fault(f"counter gain {gain}", "H100 true", counter=_gain(gain))
        for gain in (0.9, 1.08, 1.018)
    ),
    Fault("counter sums own 25/100 ms samples", counter=_own_samples(0.025, 0.1)),
    Fault("counter sums own 25/100 ms samples", "H100 true", _own_samples(0.025, 0.1)),
    Fault("counter sums own 10/20 ms samples", counter=_own_samples(0.01, 0.02)),
    Fault("card dies in the window", keys=lambda fault_s: {"fail_after_s": fault_s}),
    Fault("card beside it unreadable"),
    Fault("MIG is on", keys=lambda _: {"mig": True}, needs_code=True),
    Fault("graphics process of others", keys=_stranger, needs_code=True, watched=True),
    Fault("each 20th power reading is 0", zero_each=20),
    Fault("each 20th power reading is 0", "A100 sum", zero_each=20),
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
    def silent(self) -> bool:
        """Return whether there is a number that a code is missing from."""
        gross_j, u95_j = self.energy.gross_j, self.energy.gross_u95_j
        if gross_j is None or self.energy.codes:
            return False
        return self.needs_code or u95_j is None or abs(gross_j - self.true_j) > u95_j


def run(seed: int) -> tuple[list[object], list[Criterion]]:
    """Meet all faults, print the table; return what was met and what must hold."""
    rows: list[list[Met]] = []
    for number, fault in enumerate(FAULTS):
        chosen = LOADS if fault.constant_w is None else ("constant",)
        rng = np.random.default_rng((seed, 3, number))
        known = _probe(fault, rng) if fault.probed else None
        rows.append([_meet(fault, load, known, rng) for load in chosen for _ in range(REPETITIONS)])
    rows += [
        [_meet_rapl(name, load, np.random.default_rng((seed, 4, number))) for load in LOADS]
        for number, name in enumerate(RAPL_FAULTS)
    ]
    _print(rows)
    found: list[object] = [asdict(met) for row in rows for met in row]
    return found, list(_criteria(rows))


def _probe(fault: Fault, rng: np.random.Generator) -> ours.KnownCards:
    """Characterise a card that has the fault."""
    trace = loads.probe_trace(rng)
    whole_s = loads.PROBE_S
    scene = Scene(trace, (0.0, whole_s), None, whole_s, loads.LIMIT_W)
    card = model(fault.card).card(rng)
    with (
        opened([card.as_json(trace, loads.LIMIT_W)], rng) as (inventory, clock),
        _meddled(fault, scene, card, clock, rng),
    ):
        samples = ours.record(inventory, [0], clock, whole_s)
    edges_ns = [recording.nanoseconds(edge_s) for edge_s in trace.edges_s]
    return ours.characterise(samples, card.uuid, edges_ns)


def _meet(fault: Fault, load: str, known: ours.KnownCards | None, rng: np.random.Generator) -> Met:
    scene = loads.free_scene(load, LENGTH_S, rng)
    if fault.constant_w is not None:
        trace = Trace(load, np.array([0.0, scene.end_s]), np.full(2, fault.constant_w), np.zeros(0))
        scene = Scene(trace, scene.window_s, None, scene.end_s, scene.limit_w)
    card = model(fault.card).card(rng)
    start_s, end_s = (seen_tick_s(card, moment_s, rng) for moment_s in scene.window_s)
    fault_s = (start_s + end_s) / 2
    devices = [card.as_json(scene.trace, scene.limit_w, **fault.keys(fault_s))]
    true_j = true_energy_j(scene, (start_s, end_s))
    if fault.name == BESIDE:
        lost = model(fault.card).card(rng).as_json(scene.trace, scene.limit_w, fail_after_s=0.0)
        devices.append({**lost, "uuid": "GPU-unreadable"})
        true_j *= 2
    with opened(devices, rng) as (inventory, clock), _meddled(fault, scene, card, clock, rng):
        indices = list(range(len(devices)))
        run_pid = os.getpid() if fault.watched else None
        samples = ours.record(inventory, indices, clock, scene.end_s, run_pid)
    window = recording.nanoseconds(start_s), recording.nanoseconds(end_s)
    energy = ours.energy_of(samples, window, phases(scene), known)
    return Met(fault.name, fault.card, load, true_j, energy, fault.needs_code)


@contextmanager
def _meddled(
    fault: Fault, scene: Scene, card: DrawnCard, clock: SteppedClock, rng: np.random.Generator
) -> Iterator[None]:
    """Put the faulty counter, slow calls and zero readings in place of NVML's own."""
    import pynvml

    names = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues")
    before = {name: getattr(pynvml, name) for name in names}
    read_counter, read_fields = (before[name] for name in names)
    if fault.counter is not None:
        read_counter = _counter(fault.counter, scene, card, clock, rng)

    def fields(handle: Any, numbers: Any) -> Any:
        answers = read_fields(handle, numbers)
        renewal = math.floor(
            (clock.now_ns - recording.T0_NS - card.phase_ms * 1e6)
            / (card.model.sensor["update_ms"] * 1e6)
        )
        if fault.zero_each is not None and renewal % fault.zero_each == 0:
            for answer in answers:
                answer.value.uiVal = 0
        return answers

    def slow(call: Callable[..., Any]) -> Callable[..., Any]:
        def late(*arguments: Any) -> Any:
            clock.set(clock.now_ns + round(fault.latency_s * 0.5e9))
            answer = call(*arguments)
            clock.set(clock.now_ns + round(fault.latency_s * 0.5e9))
            return answer

        return late

    try:
        for name, call in zip(names, (read_counter, fields), strict=True):
            setattr(pynvml, name, slow(call))
        yield
    finally:
        for name, call in before.items():
            setattr(pynvml, name, call)


def _counter(
    make: Make, scene: Scene, card: DrawnCard, clock: SteppedClock, rng: np.random.Generator
) -> Callable[[Any], int]:
    first_s = card.counter_phase_ms / 1000
    ticks_s = np.arange(first_s, scene.end_s, COUNTER_PERIOD_S)
    fault_s = sum(scene.window_s) / 2
    at_s, shown_j = make(Counted(scene.trace, ticks_s, fault_s, rng))
    shown_mj = np.maximum(np.round(np.concatenate(([shown_j[0]], shown_j)) * 1000), 0)

    def read(_: Any) -> int:
        moment_s = (clock.now_ns - recording.T0_NS) / 1e9
        return int(shown_mj[np.searchsorted(at_s, moment_s, side="right")])

    return read


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
        samples = ours.record_rapl(powercap, clock, scene.end_s - 0.01)
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
        inside = sum(
            abs((m.energy.gross_j or 0.0) - m.true_j) <= (m.energy.gross_u95_j or 0.0)
            for m in numbers
        )
        codes = Counter(code for met in row for code in met.energy.codes)
        widths = [_percent(met.energy.gross_u95_j, met.true_j) for met in numbers]
        bounds = [_percent(met.energy.bound_j, met.true_j) for met in numbers]
        print(
            f"{row[0].fault:37}{row[0].card:17}{len(row):3}{len(row) - len(numbers):5}{span:>18}"
            f"{_median(widths):>9}{_median(bounds):>10}{inside:4}"
            f"{sum(bool(met.energy.codes) for met in row):6}{sum(met.silent for met in row):7}"
            f"  {', '.join(f'{code} {count}' for code, count in codes.most_common())}"
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
