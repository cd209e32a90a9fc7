"""Whether the window was steady: no trend in throughput, nor in power, while it was open.

A trend means that what was measured is not the state that would go on: a chip that still warms
and slows, a cache that still fills. A straight line is fitted by least squares and its slope
tested with Student's t. A trend counts if it is both too large to pass over and too clear to be
chance: a long window makes any tiny slope significant, a short one makes noise look steep.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, median
from typing import Any

import numpy as np

from llenergymeasure.energy.batches import Batch
from llenergymeasure.units import NS_PER_S

CHANGE_MAX = 0.05
"""Largest change over the window, relative to the mean, that still counts as steady."""

P_MAX = 0.01
"""Chance of so clear a trend where there is none."""

FEWEST_VALUES = 5
FEWEST_LIKE = 4
SLOWER, SLOWER_S = 3.0, 1.0
"""A batch that took so many times as long as its like, and so many seconds longer, stood still."""

POWER_BLOCK_S = 1.0
"""Power is averaged over this before a line is fitted: neighbouring samples say the same."""


@dataclass(frozen=True)
class Trend:
    """A straight line through values over time.

    Attributes:
        relative_change: change from the first value to the last along the line, over the mean.
        p_value: chance of a line as steep if there is no trend.
        values: how many it rests on.
    """

    relative_change: float
    p_value: float
    values: int

    @property
    def clear(self) -> bool:
        """Whether it is both large and no chance."""
        return abs(self.relative_change) > CHANGE_MAX and self.p_value < P_MAX


def trend(groups: Sequence[Sequence[tuple[float, float]]]) -> Trend | None:
    """Return the line common to all groups; None if the values are too few to show it.

    Each group keeps a level of its own (the "within" estimator: Wooldridge, Econometric Analysis
    of Cross Section and Panel Data, ch. 10.5), so that differences between groups are no trend.

    Args:
        groups: times in s with positive values, of what is alike.
    """
    several = [np.array(group).T for group in groups if len(group) > 1]
    kept = [(t, values) for t, values in several if values.mean() > 0]
    if not kept:
        return None
    times_s = np.concatenate([t for t, _ in kept])
    t = np.concatenate([t - t.mean() for t, _ in kept])
    relative = np.concatenate([values / values.mean() - 1 for _, values in kept])
    freedom, spread = len(t) - len(kept) - 1, float(t @ t)
    if len(t) < FEWEST_VALUES or freedom < 2 or spread == 0:
        return None
    slope = float(t @ relative) / spread
    residual = float(np.sum((relative - slope * t) ** 2))
    return Trend(
        relative_change=slope * float(np.ptp(times_s)),
        p_value=_p_value(slope, math.sqrt(residual / freedom / spread), freedom),
        values=len(t),
    )


def _p_value(slope: float, error: float, freedom: int) -> float:
    """Return the two-sided chance of ``slope / error`` under Student's t.

    By Wallace's normal approximation of t (D. L. Wallace 1959, Ann. Math. Statist. 30, 1121):
    within 0.002 from 3 degrees of freedom on, and no library needed.
    """
    if slope == 0:
        return 1.0
    if error == 0:
        return 0.0
    t = abs(slope) / error
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return 2 * (1 - NormalDist().cdf(z))


def steadiness(
    batches: Sequence[Batch], power: tuple[Sequence[float], Sequence[float]] | None = None
) -> dict[str, Any]:
    """Return whether the window was steady, and the numbers behind it.

    Batches are compared with batches of the same size alone, so that a workload sorted by length
    is no trend: each batch's throughput is taken relative to the mean of its like.

    Args:
        batches: the window's.
        power: times in s and power in W inside the window, if measured.

    Returns:
        ``steady`` (None if it cannot be determined), ``throughput`` and ``power``: a trend each, or
        None, ``change_max`` and ``p_max`` in force.
    """
    found = {
        "throughput": _throughput_trend(batches),
        "power": None if power is None else trend([_blocks(*power)]),
    }
    known = [one for one in found.values() if one is not None]
    return {
        "steady": None if not known else not any(one.clear for one in known),
        **{name: None if one is None else asdict(one) for name, one in found.items()},
        "change_max": CHANGE_MAX,
        "p_max": P_MAX,
    }


def _throughput_trend(batches: Sequence[Batch]) -> Trend | None:
    rates = [
        [
            ((each.start_ns + each.end_ns) / 2 / NS_PER_S, each.output_tokens / each.span_s)
            for each in alike
            if each.output_tokens and each.span_s > 0
        ]
        for alike in _alike(batches).values()
    ]
    return trend([group for group in rates if group])


def far_slower(batches: Sequence[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yield batches far slower than their like, with the median time in s of those."""
    for alike in _alike(batches).values():
        usual_s = median(each.span_s for each in alike)
        for each in alike:
            slow = each.span_s > max(SLOWER * usual_s, usual_s + SLOWER_S)
            if slow and len(alike) >= FEWEST_LIKE:
                yield each, usual_s


def _alike(batches: Sequence[Batch]) -> dict[tuple[int, int, int], list[Batch]]:
    """Return batches by their size: requests, tokens in, tokens out."""
    alike: dict[tuple[int, int, int], list[Batch]] = {}
    for each in batches:
        size = (each.requests, each.input_tokens, each.output_tokens)
        alike.setdefault(size, []).append(each)
    return alike


def _blocks(times_s: Sequence[float], powers_w: Sequence[float]) -> list[tuple[float, float]]:
    """Return mean time and mean power over stretches of :data:`POWER_BLOCK_S`."""
    pairs = np.column_stack((times_s, powers_w))
    block = (pairs[:, 0] - pairs[:1, 0]) // POWER_BLOCK_S
    _, place = np.unique(block, return_inverse=True)
    counts = np.bincount(place)
    means = [(np.bincount(place, weights=column) / counts).tolist() for column in pairs.T]
    return list(zip(*means, strict=True))
