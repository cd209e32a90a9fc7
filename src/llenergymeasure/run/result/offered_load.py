"""How many requests are under way over time, and whether they pile up."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.units import NS_PER_S

GROWTH_SHARE = 0.05
"""Share of the arrivals by which the requests under way may grow before they count as piling up."""

CHANCE = 3.0
"""Standard deviations of a steady number under way that a growth has to exceed."""


@dataclass(frozen=True)
class InFlight:
    """Requests under way as a step function of time.

    Attributes:
        at_ns: when it changes, rising, shape (changes,).
        count: requests under way from then on, shape (changes,).
    """

    at_ns: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def from_intervals(cls, starts_ns: NDArray[np.int64], ends_ns: NDArray[np.int64]) -> "InFlight":
        """Return it from each request's start and end."""
        # Ends first: a user's next request may begin at the very moment the last one ended.
        at_ns = np.concatenate((ends_ns, starts_ns))
        change = np.concatenate((-np.ones(len(ends_ns)), np.ones(len(starts_ns))))
        order = np.argsort(at_ns, kind="stable")
        return cls(at_ns[order].astype(np.int64), np.cumsum(change[order]).astype(np.int64))

    def mean(self, start_ns: int, end_ns: int) -> float:
        """Return its mean over a stretch."""
        edges, counts = self._pieces(start_ns, end_ns)
        return float(np.diff(edges) @ counts) / (end_ns - start_ns)

    def largest(self, start_ns: int, end_ns: int) -> int:
        """Return its maximum over a stretch."""
        return int(np.max(self._pieces(start_ns, end_ns)[1]))

    def at(self, moment_ns: int) -> int:
        """Return how many there are at a moment."""
        position = int(np.searchsorted(self.at_ns, moment_ns, side="right"))
        return int(self.count[position - 1]) if position else 0

    def _pieces(self, start_ns: int, end_ns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        low = int(np.searchsorted(self.at_ns, start_ns, side="right"))
        high = int(np.searchsorted(self.at_ns, end_ns, side="left"))
        before = int(self.count[low - 1]) if low else 0
        edges = np.concatenate(([start_ns], self.at_ns[low:high], [end_ns]))
        return edges, np.concatenate(([before], self.count[low:high]))


def growth_per_s(flight: InFlight, window: tuple[int, int]) -> float:
    """Return the requests under way that the window's last quarter has more than its first."""
    first, last, apart_s = _quarters(flight, window)
    return (last - first) / apart_s


def is_over_saturated(flight: InFlight, window: tuple[int, int], *, sent: int) -> bool:
    """Return whether requests come faster than they are answered.

    What is not answered piles up: the number under way grows by the difference of the rates. It
    counts if it grows by more than :data:`GROWTH_SHARE` of what comes in and by more than chance:
    the number under way of a server that keeps up scatters as the square root of its mean (Poisson,
    as in a queue with room for all), and so does a difference of two such numbers.

    Args:
        flight: the requests under way.
        window: start and end in CLOCK_MONOTONIC ns.
        sent: requests that were to be sent within it.
    """
    first, last, apart_s = _quarters(flight, window)
    rate = sent * NS_PER_S / (window[1] - window[0])
    growth = last - first
    return growth > GROWTH_SHARE * rate * apart_s and growth > CHANCE * math.sqrt(2 * first + 1)


def _quarters(flight: InFlight, window: tuple[int, int]) -> tuple[float, float, float]:
    """Return the mean under way in the first and last quarter, and how far they are apart in s."""
    start_ns, end_ns = window
    quarter = (end_ns - start_ns) // 4
    first = flight.mean(start_ns, start_ns + quarter)
    last = flight.mean(end_ns - quarter, end_ns)
    return first, last, 3 * quarter / NS_PER_S
