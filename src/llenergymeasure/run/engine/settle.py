"""The rest before a run: at least the study's gap, and until the GPUs have cooled.

A GPU that is still cooling from the previous run starts the next one warmer, and a warm chip draws
more for the same work. Cooling is exponential, so how much heat is left follows from how fast the
temperature falls: the excess is the slope times the time constant. With a time constant of 75 s, an
assumption, a slope of at most 0.04 °C/s leaves at most 3 °C, the band that start temperatures are
to agree within. The temperature a run started at and the slope then are recorded.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.machine.gpus import inventory
from llenergymeasure.machine.gpus.inventory import Gpu

POLL_S = 0.5
WATCH_S = 20.0
"""Time over which a slope is taken; NVML reports whole degrees, so a shorter one shows nothing."""
SLOPE_MAX_CELSIUS_PER_S = 0.04
POWER_CHANGE_MAX = 0.05
"""Most change of power over the stretch, relative to its mean."""

EndReason = Literal["settled", "ceiling", "skipped", "nothing to watch", "not asked for"]


@dataclass(frozen=True)
class Reading:
    """Temperature and power of the GPUs at one moment, by UUID; silent cards are left out.

    Attributes:
        temperature_celsius: of the chip.
        power_w: as NVML averages it.
    """

    temperature_celsius: Mapping[str, float] = field(default_factory=dict)
    power_w: Mapping[str, float] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to watch."""
        return not self.temperature_celsius and not self.power_w


def read_gpus(cards: Sequence[Gpu]) -> Callable[[], Reading]:
    """Return a function that reads temperature and power from NVML, in some 0.1 ms a card."""

    def read() -> Reading:
        import pynvml

        temperatures: dict[str, float] = {}
        powers: dict[str, float] = {}
        for card in cards:
            try:
                handle = inventory.handle(card)
                temperatures[card.uuid] = float(
                    pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
                )
                powers[card.uuid] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
            except pynvml.NVMLError:
                continue
        return Reading(temperatures, powers)

    return read


def settle(
    read_gpus: Callable[[], Reading],
    protocol: ProtocolSettings,
    gap_s: float,
    skip_file: Path,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Rest at least ``gap_s``, and until temperature and power no longer move or the ceiling.

    Args:
        read_gpus: gives a reading; an empty one where nothing can be watched.
        protocol: whether to settle, and at most how long.
        gap_s: the study's rest before this run.
        skip_file: a file that ends the rest at once when it appears.
        clock: seconds that only go forward.
        sleep: sleeps for a number of seconds.

    Returns:
        ``reason``; ``waited_s``; ``first`` and ``start``: temperature and power by UUID when the
        rest began and when it ended, that is at the run's start; ``slope_celsius_per_s``: the
        steepest at the end, None if it was not watched long enough.
    """
    watch = Watch()
    start_s = clock()
    first = latest = read_gpus()
    watch.add(0.0, first)
    while True:
        waited_s = clock() - start_s
        reason = _end_reason(watch, protocol, gap_s, waited_s, latest)
        if skip_file.exists():
            reason = "skipped"
        if reason is not None:
            break
        sleep(POLL_S)
        latest = read_gpus()
        watch.add(clock() - start_s, latest)
    return {
        "reason": reason,
        "waited_s": waited_s,
        "first": asdict(first),
        "start": asdict(latest),
        "slope_celsius_per_s": watch.slope_celsius_per_s(),
    }


def _end_reason(
    watch: "Watch", protocol: ProtocolSettings, gap_s: float, waited_s: float, reading: Reading
) -> EndReason | None:
    if waited_s < gap_s:
        return None
    if not protocol.settle_enabled:
        return "not asked for"
    if reading.empty:
        return "nothing to watch"
    if watch.settled():
        return "settled"
    return "ceiling" if waited_s >= protocol.settle_max_s else None


class Watch:
    """The latest readings, over the time that a slope needs, and whether they still change."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, Reading]] = deque()

    def add(self, at_s: float, reading: Reading) -> None:
        """Take a reading, at seconds that only go forward."""
        self._readings.append((at_s, reading))
        while at_s - self._readings[0][0] > WATCH_S:
            self._readings.popleft()

    def settled(self) -> bool:
        """Return whether neither temperature nor power moves; false until it is known."""
        slope, power_series = self.slope_celsius_per_s(), self._series("power_w")
        if slope is None and not power_series:
            return False
        steady = all(_relative_change(*series) <= POWER_CHANGE_MAX for series in power_series)
        return (slope or 0.0) <= SLOPE_MAX_CELSIUS_PER_S and steady

    def slope_celsius_per_s(self) -> float | None:
        """Return the steepest card's slope, up or down; None if not watched long enough."""
        slopes = [
            abs(statistics.linear_regression(times_s, celsius).slope)
            for times_s, celsius in self._series("temperature_celsius")
        ]
        return max(slopes, default=None)

    def _series(self, quantity: str) -> list[tuple[list[float], list[float]]]:
        """Return each card's times and values, of those watched over the whole stretch."""
        by_card: dict[str, tuple[list[float], list[float]]] = {}
        for at_s, reading in self._readings:
            for uuid, value in getattr(reading, quantity).items():
                times_s, values = by_card.setdefault(uuid, ([], []))
                times_s.append(at_s)
                values.append(value)
        min_s = WATCH_S - 2 * POLL_S
        return [
            (times_s, values)
            for times_s, values in by_card.values()
            if len(times_s) > 2 and times_s[-1] - times_s[0] >= min_s
        ]


def _relative_change(times_s: Sequence[float], powers_w: Sequence[float]) -> float:
    """Return how much power changes over the stretch, along a line, relative to its mean."""
    mean_w = statistics.fmean(powers_w)
    slope = statistics.linear_regression(times_s, powers_w).slope
    return abs(slope) * (times_s[-1] - times_s[0]) / mean_w if mean_w > 0 else 0.0
