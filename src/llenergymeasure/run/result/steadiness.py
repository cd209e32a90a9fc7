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

MIN_VALUES = 5
MIN_SIMILAR = 4
SLOW_FACTOR, SLOW_EXTRA_S = 3.0, 1.0
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
    arrays = [np.array(group).T for group in groups if len(group) > 1]
    usable = [(t, values) for t, values in arrays if values.mean() > 0]
    if not usable:
        return None
    times_s = np.concatenate([t for t, _ in usable])
    t = np.concatenate([t - t.mean() for t, _ in usable])
    relative = np.concatenate([values / values.mean() - 1 for _, values in usable])
    dof, sum_of_squares = len(t) - len(usable) - 1, float(t @ t)
    if len(t) < MIN_VALUES or dof < 2 or sum_of_squares == 0:
        return None
    slope = float(t @ relative) / sum_of_squares
    residual = float(np.sum((relative - slope * t) ** 2))
    return Trend(
        relative_change=slope * float(np.ptp(times_s)),
        p_value=_p_value(slope, math.sqrt(residual / dof / sum_of_squares), dof),
        values=len(t),
    )


def _p_value(slope: float, error: float, dof: int) -> float:
    """Return the two-sided chance of ``slope / error`` under Student's t.

    By Wallace's normal approximation of t (D. L. Wallace 1959, Ann. Math. Statist. 30, 1121):
    within 0.002 from 3 degrees of freedom on, and no library needed.
    """
    if slope == 0:
        return 1.0
    if error == 0:
        return 0.0
    t = abs(slope) / error
    z = (8 * dof + 1) / (8 * dof + 3) * math.sqrt(dof * math.log1p(t * t / dof))
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
    trends = {
        "throughput": _throughput_trend(batches),
        "power": None if power is None else trend([_blocks(*power)]),
    }
    known_trends = [line for line in trends.values() if line is not None]
    return {
        "steady": not any(line.clear for line in known_trends) if known_trends else None,
        **{name: None if line is None else asdict(line) for name, line in trends.items()},
        "change_max": CHANGE_MAX,
        "p_max": P_MAX,
    }


def _throughput_trend(batches: Sequence[Batch]) -> Trend | None:
    counted = [batch for batch in batches if batch.output_tokens and batch.span_s > 0]
    rates = [
        [
            ((batch.start_ns + batch.end_ns) / 2 / NS_PER_S, batch.output_tokens / batch.span_s)
            for batch in similar
        ]
        for similar in _group_by_size(counted).values()
    ]
    return trend(rates)


def far_slower(batches: Sequence[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yield batches far slower than their like, with the median time in s of those."""
    for similar in _group_by_size(batches).values():
        usual_s = median(batch.span_s for batch in similar)
        for batch in similar:
            is_slow = batch.span_s > max(SLOW_FACTOR * usual_s, usual_s + SLOW_EXTRA_S)
            if is_slow and len(similar) >= MIN_SIMILAR:
                yield batch, usual_s


def _group_by_size(batches: Sequence[Batch]) -> dict[tuple[int, int, int], list[Batch]]:
    """Return batches by their size: requests, tokens in, tokens out."""
    groups: dict[tuple[int, int, int], list[Batch]] = {}
    for batch in batches:
        size = (batch.requests, batch.input_tokens, batch.output_tokens)
        groups.setdefault(size, []).append(batch)
    return groups


def _blocks(times_s: Sequence[float], powers_w: Sequence[float]) -> list[tuple[float, float]]:
    """Return mean time and mean power over stretches of :data:`POWER_BLOCK_S`."""
    pairs = np.column_stack((times_s, powers_w))
    block = (pairs[:, 0] - pairs[:1, 0]) // POWER_BLOCK_S
    _, index = np.unique(block, return_inverse=True)
    counts = np.bincount(index)
    means = [(np.bincount(index, weights=column) / counts).tolist() for column in pairs.T]
    return list(zip(*means, strict=True))
