"""The window: the batch plan repeated until it is long enough, cut at the counter's ticks."""

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.meter.ticks import TickClock
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.requests import Request

TICK_WAIT_S = 2.0


@dataclass
class Window:
    """What happened inside the window.

    Attributes:
        start_ns: its start, on a tick where ``tick_aligned``; CLOCK_MONOTONIC.
        end_ns: its end, likewise: up to a tick's period after the work's.
        work_s: from the first batch's start to the last one's end.
        tick_aligned: whether both ends lie on ticks of the energy counter.
        batches: how many were generated; always whole passes over the batch plan.
        completions: one a request, in the order they were made.
        batch_of_request: the batch of each, from 0.
    """

    start_ns: int = 0
    end_ns: int = 0
    work_s: float = 0.0
    tick_aligned: bool = False
    batches: int = 0
    completions: list[Completion] = field(default_factory=list)
    batch_of_request: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def cut_batches(requests: Sequence[Request], batch_size: int | None) -> list[Sequence[Request]]:
    """Return the batch plan: the requests in order, ``batch_size`` at a time; all at once if null.

    The last batch is smaller where the count does not divide.
    """
    size = batch_size or len(requests)
    return [requests[place : place + size] for place in range(0, len(requests), size)]


def measure_window(
    engine: Engine,
    batches: Sequence[Sequence[Request]],
    protocol: ProtocolSettings,
    ticks: TickClock | None,
) -> Window:
    """Open the window on a tick where there are ticks, work, and close it on one.

    Whole passes over the batch plan are made until both ``window_min_s`` and ``min_batches``
    are reached, so that every run of an experiment does the same work.

    Args:
        engine: loaded and warm.
        batches: the batch plan.
        protocol: how long and how many.
        ticks: the energy counter's ticks; null where no counter is.
    """
    window = Window()
    opened_ns = _next_tick(engine, ticks)
    if ticks is not None and opened_ns is not None:
        _shift_phase(ticks)
    work_started_ns = time.monotonic_ns()
    shortest_ns = protocol.window_min_s * NS_PER_S
    while True:
        for batch in batches:
            window.completions += engine.generate(batch)
            window.batch_of_request += [window.batches] * len(batch)
            window.batches += 1
        work_ended_ns = time.monotonic_ns()
        long_enough = work_ended_ns - work_started_ns >= shortest_ns
        if long_enough and window.batches >= protocol.min_batches:
            break
    closed_ns = None if opened_ns is None else _next_tick(engine, ticks)
    window.start_ns = opened_ns or work_started_ns
    window.end_ns = closed_ns or work_ended_ns
    window.work_s = (work_ended_ns - work_started_ns) / NS_PER_S
    window.tick_aligned = closed_ns is not None
    return window


def _next_tick(engine: Engine, ticks: TickClock | None) -> int | None:
    if ticks is None:
        return None
    engine.synchronize()
    return ticks.wait_next(timeout_s=TICK_WAIT_S)


def _shift_phase(ticks: TickClock) -> None:
    """Begin the work at a random place between two ticks, so that no alias repeats each cycle."""
    time.sleep(random.uniform(0.0, ticks.period_s()))
