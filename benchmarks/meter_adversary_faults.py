"""Faulty counters and cards: what each gives, and that no wrong number comes without a code.

Each fault is met in windows of 10 s of three loads, cut at ticks.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import meter_adversary_loads as loads
import meter_recording as recording
import numpy as np
from harness import Criterion, word_counts
from meter_adversary_cards import RAPL_SCALE, FakePowercap, model
from meter_adversary_loads import Trace
from meter_adversary_windows import (
    TICKS,
    Keys,
    Window,
    always,
    energy_of,
    measure_rapl,
    probe,
    seen_tick_s,
)
from meter_recording import CostlyClock, opened

from llenergymeasure.sensors.known_behaviour import Behaviours

_LAGS_MS = (10, 30, 60, 100)
LENGTH_S = 10.0
LOADS = ("serve", "offline batches", "low load")
REPETITIONS = 2


def _wrap(trace: Trace, fault_s: float) -> Mapping[str, Any]:
    until_j = trace.energy_j(0.0, fault_s)
    return {"counter_wrap_mj": 2**32, "counter_start_mj": 2**32 - round(1000 * until_j)}


def _jumps(_: Trace, fault_s: float) -> Mapping[str, Any]:
    return {"counter_jumps": [[fault_s + off_s, 20.0] for off_s in (-2.0, 0.0, 2.0)]}


def _stall(then: str) -> Keys:
    return lambda _, fault_s: {"counter_stalls": [[fault_s, fault_s + 3.0, then]]}


def _own_samples(window_ms: float, period_ms: float) -> Keys:
    """A counter that adds up part-time samples of its own, at another phase than those shown."""
    return always(
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
    sensor: Keys = field(default=always())
    keys: Keys = field(default=always())
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
    *(Fault(f"counter lags {ms} ms", sensor=always(counter_lag_ms=ms)) for ms in _LAGS_MS),
    *(
        Fault(f"counter lags {ms} ms, probed", sensor=always(counter_lag_ms=ms), probed=True)
        for ms in _LAGS_MS
    ),
    Fault("counter ticks 15 ms early or late", sensor=always(counter_jitter_ms=15)),
    Fault("counter skips 30 % of its ticks", sensor=always(counter_skip=0.3)),
    Fault("power skips 30 % of its readings", "A100 sum", always(power_skip=0.3)),
    Fault("counter stands 3 s, catches up", sensor=_stall("catch_up")),
    Fault("counter stands 3 s, loses them", sensor=_stall("lose")),
    *(
        Fault(f"counter gain {gain}", card, always(counter_gain=gain))
        for card in ("H200 true", "H100 true")
        for gain in (0.9, 1.08, 1.018)
    ),
    Fault("counter sums own 25/100 ms samples", "H200 true", _own_samples(25, 100)),
    Fault("counter sums own 25/100 ms samples", "H100 true", _own_samples(25, 100)),
    Fault("counter sums own 10/20 ms samples", "H200 true", _own_samples(10, 20)),
    Fault("card dies in the window", keys=lambda _, fault_s: {"fail_after_s": fault_s}),
    Fault("card beside it unreadable"),
    Fault("MIG is on", keys=always(mig=True), needs_code=True),
    Fault("graphics process of others", keys=_stranger, needs_code=True, watched=True),
    Fault("each 20th power reading is 0", sensor=always(zero_every=20)),
    Fault("each 20th power reading is 0", "A100 sum", always(zero_every=20)),
    Fault("constant 300 W, characterised", "RTX 100/100 sum", probed=True, constant_w=300.0),
    Fault("constant 300 W", "RTX 100/100 sum", constant_w=300.0),
    Fault("a call takes 3 ms", latency_s=0.003),
    Fault("a call takes 3 ms", "H100 sum", latency_s=0.003),
)
BESIDE = "card beside it unreadable"
RAPL_FAULTS: dict[str, Callable[[FakePowercap, float], None]] = {
    "none": lambda *_: None,
    "counter starts over from 0": FakePowercap.start_over,
    "counter wraps": FakePowercap.wrap,
}

Row = tuple[str, list[Window]]
"""A fault and the windows that met it."""


def run(seed: int) -> tuple[list[object], list[Criterion]]:
    """Meet all faults, print the table; return what was met and what must hold."""
    rows: list[Row] = []
    for number, fault in enumerate(FAULTS):
        load_names = LOADS if fault.constant_w is None else ("constant", "constant")
        rng = np.random.default_rng((seed, 3, number))
        met: list[Window] = []
        for _ in range(REPETITIONS):
            known_cards = None
            if fault.probed:
                known_cards = probe((fault.card,), rng, fault.sensor, fault.latency_s)[fault.card]
            met += [_meet(fault, load, known_cards, rng) for load in load_names]
        rows.append((fault.name, met))
    for number, name in enumerate(RAPL_FAULTS):
        seeds = seed, 4, number
        rows.append(
            (name, [_meet_rapl(name, load, np.random.default_rng(seeds)) for load in LOADS])
        )
    _print(rows)
    records = [{"fault": name, **asdict(window)} for name, row in rows for window in row]
    return list(records), list(_criteria(rows))


def _meet(
    fault: Fault, load: str, known_cards: Behaviours | None, rng: np.random.Generator
) -> Window:
    scene = loads.free_scene(load, LENGTH_S, rng)
    trace = scene.trace
    if fault.constant_w is not None:
        trace = Trace(load, np.array([0.0, scene.end_s]), np.full(2, fault.constant_w))
    card = model(fault.card).card(rng)
    start_s, end_s = (seen_tick_s(card, moment_s, rng) for moment_s in scene.window_s)
    fault_s = (start_s + end_s) / 2
    sensor, keys = (make(trace, fault_s) for make in (fault.sensor, fault.keys))
    devices = [card.device(trace, scene.limit_w, sensor, **keys)]
    true_j = trace.energy_j(start_s, end_s)
    if fault.name == BESIDE:
        lost = model(fault.card).card(rng).device(trace, scene.limit_w, fail_after_s=0.0)
        devices.append(replace(lost, uuid="GPU-unreadable"))
        true_j *= 2
    with opened(devices, rng, fault.latency_s) as (inventory, clock):
        indices = list(range(len(devices)))
        run_pid = os.getpid() if fault.watched else None
        samples = recording.record(inventory, indices, clock, scene.end_s, run_pid)
    energy = energy_of(samples, (start_s, end_s), (), known_cards)
    return Window(
        load,
        fault.card,
        card.model.kind,
        LENGTH_S,
        TICKS,
        true_j,
        energy,
        known_cards is not None,
        needs_code=fault.needs_code,
    )


def _meet_rapl(name: str, load: str, rng: np.random.Generator) -> Window:
    scene = loads.scaled(loads.free_scene(load, LENGTH_S, rng), RAPL_SCALE)
    fault_s = sum(scene.window_s) / 2
    with tempfile.TemporaryDirectory() as folder:
        clock = CostlyClock(Path(folder) / "clock", rng)
        fault = RAPL_FAULTS[name]
        return measure_rapl(scene, LENGTH_S, clock, fault=lambda card: fault(card, fault_s))


def _print(rows: Sequence[Row]) -> None:
    print(
        f"{'fault':37}{'card':17}{'n':>3}{'none':>5}{'error in %':>18}{'med u95':>9}"
        f"{'med bound':>10}{'in':>4}{'coded':>6}{'silent':>7}  codes"
    )
    for name, row in rows:
        numbers = [window for window in row if window.energy.gross_j is not None]
        errors = [window.error for window in numbers if window.error is not None]
        span = f"{min(errors):+.3f} to {max(errors):+.3f}" if errors else "-"
        bounds = [
            100 * bound_j / window.true_j
            for window in numbers
            if (bound_j := window.energy.bound_j) is not None
        ]
        print(
            f"{name:37}{row[0].sensor:17}{len(row):3}{len(row) - len(numbers):5}{span:>18}"
            f"{_median(window.half_width for window in numbers):>9}{_median(bounds):>10}"
            f"{sum(window.covered for window in row):4}"
            f"{sum(bool(window.energy.codes) for window in row):6}"
            f"{sum(window.silent for window in row):7}"
            f"  {word_counts(code for window in row for code in window.energy.codes)}"
        )


def _criteria(rows: Sequence[Row]) -> Iterator[Criterion]:
    windows = [window for _, row in rows for window in row]
    silent = sum(window.silent for window in windows)
    yield silent == 0, f"numbers that a code is missing from: {silent}"
    for name, row in rows:
        count = sum(window.silent for window in row)
        if count:
            yield False, f"  {name}, {row[0].sensor}: {count} of {len(row)}"
    zeros = sum(window.energy.gross_j == 0 for window in windows)
    yield zeros == 0, f"energies of 0: {zeros}"


def _median(values: Iterable[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{float(np.median(numbers)):.4f}" if numbers else "-"
