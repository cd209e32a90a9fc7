"""The window under traffic: opened once the traffic is steady, closed while it goes on.

Ramp-up and drain are phases of their own. The window opens when every request sent in the first
second (or the first one, where it comes later) has been answered and as long again has passed:
then as many requests are under way as there will be, in every stage of being answered. With users
in a closed loop, each has been answered once. The traffic does not end before the window does, so
its end is as loaded as its middle; what was sent in it is waited for after it.

ML.ENERGY's rule (arXiv:2505.06371) holds for a server kept full: from when as many requests as fit
have their first token until the last batch thins out. With arrivals over time a server is rarely
full, and its load settles by how long answers take, which is what this rule waits for.
"""

import asyncio
import gc
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pyarrow.parquet as pq

from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.errors import BackendError
from llenergymeasure.files import replacing
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.run.engine.traffic import SentRequest, Traffic
from llenergymeasure.run.result.traffic_table import traffic_table
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.arrivals import arrival_offsets

GAUGE_EVERY_S = 1.0
LEAD_S = 0.05
"""Between the plan and its first arrival."""

DRAIN_SPARE_S = 5.0
SPARE_S = 2.0
"""Traffic that is planned beyond the window, so that its end is as loaded as its middle."""
_POLL_S = 0.01

RampUp = Literal["steady", "gave up", "not needed"]


@dataclass
class TrafficWindow:
    """What happened, from the first request to the last answer. Times in CLOCK_MONOTONIC ns.

    Attributes:
        start_ns: the window's start.
        end_ns: its end.
        ramp_up: why the window opened.
        sent: every request of the run in the order of sending.
        gauges: what the server said of itself, and when.
        client_cpu_s: CPU time of this process, the client's, within the window.
    """

    start_ns: int = 0
    end_ns: int = 0
    ramp_up: RampUp = "not needed"
    sent: list[SentRequest] = field(default_factory=list)
    gauges: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    client_cpu_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as the run's window in plain values; the requests are in a file."""
        return {
            "start_ns": self.start_ns,
            "end_ns": self.end_ns,
            "work_s": (self.end_ns - self.start_ns) / NS_PER_S,
            "batches": 0,
            "completions": [],
            "batch_of_request": [],
        }

    def statistics(self) -> dict[str, float]:
        """Return the key-value cache's share in use within it, as the server reported it."""
        shares = [
            values["kv_cache_share"]
            for at_ns, values in self.gauges
            if self.start_ns <= at_ns <= self.end_ns and "kv_cache_share" in values
        ]
        if not shares:
            return {}
        return {"kv_cache_share_mean": fmean(shares), "kv_cache_share_max": max(shares)}

    def answered(self) -> list[SentRequest]:
        """Return the requests whose answers ended within it."""
        return [
            request
            for request in self.sent
            if request.exchange.failure is None
            and self.start_ns <= request.exchange.end_ns <= self.end_ns
        ]

    def report(self) -> dict[str, Any]:
        """Return in plain values what only a window of traffic has."""
        names = ("ramp_up", "gauges", "client_cpu_s")
        return {name: getattr(self, name) for name in names}

    def write_requests(self, path: Path, engine: ServedEngine) -> None:
        """Write the requests as a table."""
        with replacing(path) as temporary:
            pq.write_table(traffic_table(self.sent, engine), temporary)


def measure_traffic(
    engine: ServedEngine, protocol: ProtocolSettings, marks: Marks
) -> TrafficWindow:
    """Send the traffic and measure one window of it.

    Args:
        engine: ready and warm.
        protocol: how long the window is at least.
        marks: gets the phases ``prepare``, ``ramp_up``, ``measure`` and ``drain``.

    Raises:
        BackendError: the server ended.
    """
    gc.disable()  # the collector would stop the client amid its time stamps
    try:
        window = engine.run(_TrafficMeasurement(engine, protocol, marks).measure())
    finally:
        gc.enable()
    code = engine.exit_code()
    if code is not None:
        raise BackendError(f"the server ended with exit code {code} under traffic; see run.log")
    return window


class _TrafficMeasurement:
    def __init__(
        self,
        engine: ServedEngine,
        protocol: ProtocolSettings,
        marks: Marks,
    ) -> None:
        self._engine, self._serving = engine, engine.serving
        self._window_s = protocol.window_min_s
        self._marks = marks
        self._window = TrafficWindow()
        self._slowest_reading_s = 0.0

    async def measure(self) -> TrafficWindow:
        window, serving = self._window, self._serving
        traffic = Traffic(
            self._engine.client, self._engine.prompts, self._engine.encode, serving.timeout_s
        )
        with self._marks.phase("prepare"):
            self._prepare(traffic)
        gauges = asyncio.get_running_loop().create_task(self._read_gauges())
        try:
            if serving.arrivals != "ramp":
                with self._marks.phase("ramp_up"):
                    self._start(traffic)
                    window.ramp_up = await self._wait_for_ramp_up(traffic)
            with self._marks.phase("measure"):
                readings = await self._run_window(traffic)
            traffic.stop()
            with self._marks.phase("drain"):
                await traffic.drain(serving.timeout_s + DRAIN_SPARE_S)
            await readings
        finally:
            gauges.cancel()
        await self._read_gauges_once()  # all that was asked is answered, and counted
        window.sent = traffic.sent
        return window

    def _prepare(self, traffic: Traffic) -> None:
        serving = self._serving
        if not serving.open_loop:
            traffic.prepare_closed(serving.concurrency or 1)
            return
        duration_s = self._window_s + LEAD_S
        if serving.arrivals != "ramp":
            duration_s += serving.ramp_up_max_s + SPARE_S
        prompts = self._engine.prompts
        offsets = arrival_offsets(serving, duration_s, prompts.seed, prompts.trace)
        traffic.prepare(offsets.tolist())

    def _start(self, traffic: Traffic) -> None:
        start_ns = time.monotonic_ns() + round(LEAD_S * NS_PER_S)
        if self._serving.open_loop:
            traffic.start_open(start_ns)
        else:
            traffic.start_closed(start_ns, self._serving.concurrency or 1)

    async def _run_window(self, traffic: Traffic) -> "asyncio.Future[Any]":
        """Let the window pass; return what is still read of the server, which it never waits for.

        A short one may have no reading but those at its ends.
        """
        window = self._window
        window.start_ns = time.monotonic_ns()
        cpu_s = time.process_time()
        if self._serving.arrivals == "ramp":
            self._start(traffic)
        end_s = window.start_ns / NS_PER_S + self._window_s
        readings = asyncio.gather(self._read_gauges_once(), self._read_gauges_before(end_s))
        await asyncio.sleep(max(0.0, end_s - time.monotonic()))
        window.end_ns = time.monotonic_ns()
        window.client_cpu_s = time.process_time() - cpu_s
        return readings

    async def _wait_for_ramp_up(self, traffic: Traffic) -> RampUp:
        if self._serving.open_loop and not traffic.planned:
            return "not needed"
        start_s = time.monotonic()
        while time.monotonic() - start_s < self._serving.ramp_up_max_s:
            needed_s = _ramp_up_s(traffic)
            if needed_s is not None and time.monotonic() - start_s >= needed_s + LEAD_S:
                return "steady"
            await asyncio.sleep(_POLL_S)
        return "gave up"

    async def _read_gauges(self) -> None:
        while True:
            await self._read_gauges_once()
            await asyncio.sleep(GAUGE_EVERY_S)

    async def _read_gauges_before(self, end_s: float) -> None:
        await asyncio.sleep(self._window_s / 2)
        await asyncio.sleep(end_s - max(_POLL_S, self._slowest_reading_s) - time.monotonic())
        await self._read_gauges_once()

    async def _read_gauges_once(self) -> None:
        """Read them; what a server says is of some moment while it is asked, its middle at best."""
        request_ns = time.monotonic_ns()
        gauges = await self._engine.gauges()
        duration_ns = time.monotonic_ns() - request_ns
        self._slowest_reading_s = max(self._slowest_reading_s, duration_ns / NS_PER_S)
        if gauges:
            self._window.gauges.append((request_ns + duration_ns // 2, gauges))


def _ramp_up_s(traffic: Traffic) -> float | None:
    """Return how long the ramp-up has to be; None while the first answers are not in."""
    first_ns = traffic.first_ns
    if first_ns is None or not traffic.sent:
        return None
    if traffic.users:
        first_requests = traffic.sent[: traffic.users]
        if len(first_requests) < traffic.users:
            return None
    else:
        until_ns = max(first_ns + NS_PER_S, traffic.sent[0].exchange.planned_ns)
        if time.monotonic_ns() < until_ns:
            return None
        first_requests = [sent for sent in traffic.sent if sent.exchange.planned_ns <= until_ns]
    ends = [sent.exchange.end_ns for sent in first_requests]
    if 0 in ends:
        return None
    answered_s = (max(ends) - first_ns) / NS_PER_S
    return answered_s if traffic.users else 2 * answered_s
