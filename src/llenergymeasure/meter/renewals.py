"""When a sensor renewed its value, as nearly as the reads around each renewal tell.

A renewal lies between the last read that saw the old value and the first that saw the new one.
Sensors renew at a steady pace, so many brackets together place each renewal far better than its
own does.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llenergymeasure.units import NS_PER_S

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCK = 64
"""Renewals that are placed together: long enough to help, short enough for a drifting clock."""

_MIN_RENEWALS = 8

_LONGEST_PERIOD_S = 0.5
_LEAST_COMPARED = 24
_MOST_COMPARED = 40
_MOST_PERIODS = 400_000


@dataclass(frozen=True)
class Moments:
    """Moments known to lie each in an interval.

    Attributes:
        t_s: best guess, seconds from an origin kept by the caller, shape (n,).
        half_s: half width of the interval that surely holds it, shape (n,).
    """

    t_s: Floats
    half_s: Floats


def seconds(t_ns: Ints, origin_ns: int) -> Floats:
    """Return times in seconds from an origin."""
    return (t_ns - origin_ns) / NS_PER_S


def find_period(low_s: Floats, high_s: Floats) -> float | None:
    """Return the period of a value's renewals; null where they keep none.

    A renewal to the same value is not seen, so distances are whole multiples of the period: the
    longest period that all but a few distances are multiples of.

    Args:
        low_s: last reads that saw the old value, shape (n,).
        high_s: first reads that saw the new one, shape (n,).
    """
    width_s = high_s - low_s
    if len(width_s) < _MIN_RENEWALS:
        return None
    # Distances between sharply seen renewals tell the most.
    sharp = width_s <= 1.5 * np.median(width_s)
    middle_s, width_s = ((low_s + high_s) / 2)[sharp], width_s[sharp]
    gaps_s, open_s = np.diff(middle_s), (width_s[1:] + width_s[:-1]) / 2
    if len(gaps_s) < _MIN_RENEWALS:
        return None
    guesses_s = np.quantile(gaps_s, (0.5, 0.3, 0.2, 0.1, 0.05))
    found = [_refine(float(guess_s), gaps_s, open_s) for guess_s in guesses_s if guess_s > 0]
    best_s = max((period_s for period_s in found if period_s is not None), default=None)
    return best_s if best_s is not None else _common_measure(low_s, high_s)


def _refine(period_s: float, gaps_s: Floats, open_s: Floats, most_steps: int = 10) -> float | None:
    """Improve a guess; null if the distances are no multiples of it."""
    for _ in range(5):
        steps = np.maximum(np.round(gaps_s / period_s), 1)
        off_s = np.abs(gaps_s - steps * period_s)
        # A long pause holds an uncertain number of periods.
        fits = (off_s <= open_s + 0.05 * period_s) & (steps <= most_steps)
        if fits.sum() < _MIN_RENEWALS or fits.mean() < 0.7:
            return None
        period_s = float(gaps_s[fits].sum() / steps[fits].sum())
    return period_s if float(np.mean(open_s[fits])) < period_s else None


def _common_measure(low_s: Floats, high_s: Floats) -> float | None:
    """Return the longest period whose beats can lie one in each of the first brackets.

    For values that change seldom, such as where only a load's steps change them. With 24 brackets
    that take up 3/7 of a period each, a given false one fits with a chance of about 10^-9.
    """
    if len(low_s) < _LEAST_COMPARED:
        return None
    low_s, high_s = low_s[:_MOST_COMPARED], high_s[:_MOST_COMPARED]
    # A margin at both ends of each bracket, for the steps in which periods are tried.
    margin_s = 0.1 * float(np.median(high_s - low_s))
    width_s = high_s - low_s + 2 * margin_s
    ahead_s = low_s[:, None] - low_s[None, :] + margin_s
    shortest_s = 7 / 3 * float(np.median(width_s))
    step = 1.5 * margin_s / float(np.ptp(low_s))
    count = int(np.log(_LONGEST_PERIOD_S / shortest_s) / step) + 1 if step > 0 else 0
    periods_s = _LONGEST_PERIOD_S * np.exp(-step * np.arange(min(count, _MOST_PERIODS)))
    for some in (8, _LEAST_COMPARED, _MOST_COMPARED):
        chunks = np.array_split(periods_s, len(periods_s) // 2000 + 1)
        fits = [_have_common_phase(chunk_s, ahead_s[:some, :some], width_s) for chunk_s in chunks]
        periods_s = periods_s[np.concatenate(fits)]
    return float(periods_s[0]) if len(periods_s) else None


def _have_common_phase(
    periods_s: Floats, ahead_s: Floats, width_s: Floats
) -> npt.NDArray[np.bool_]:
    """Return for which periods a beat just after the start of one bracket falls in all others."""
    late_s = np.mod(ahead_s[None], periods_s[:, None, None])
    fits = np.all(late_s <= width_s[None, None, : ahead_s.shape[1]], axis=2)
    found: npt.NDArray[np.bool_] = np.any(fits, axis=1)
    return found


def pace(t_s: Floats, period_s: float) -> float:
    """Return the period anew from placed renewals."""
    gaps_s = np.diff(t_s)
    steps = np.round(gaps_s / period_s)
    near = (steps >= 1) & (steps <= 20)
    return float(gaps_s[near].sum() / steps[near].sum()) if near.any() else period_s


def place(low_s: Floats, high_s: Floats, period_s: float | None) -> Moments:
    """Place renewals from their brackets, by their common pace where they keep one.

    Within a block of renewals a strict pace puts each at ``phase + n·pace``, which every bracket
    bounds: the phases and paces that all brackets allow bound each renewal far more closely. Where
    there are none, the pace is not strict enough and each renewal stays in its own bracket.
    """
    middle_s, half_s = (low_s + high_s) / 2, (high_s - low_s) / 2
    if period_s is None or len(low_s) < _MIN_RENEWALS:
        return Moments(middle_s, half_s)
    t_s, left_s = middle_s.copy(), half_s.copy()
    for start in range(0, len(low_s), _BLOCK):
        block = slice(max(0, min(start, len(low_s) - _BLOCK)), start + _BLOCK)
        placed = _place_block(low_s[block], high_s[block], period_s)
        if placed is not None:
            t_s[block], left_s[block] = placed
    return Moments(t_s, left_s)


def _place_block(low_s: Floats, high_s: Floats, period_s: float) -> tuple[Floats, Floats] | None:
    """Place a block of renewals by all phases and paces that every bracket allows."""
    gaps = np.diff((low_s + high_s) / 2) / period_s
    steps = np.round(gaps)
    if np.any(np.abs(gaps - steps) > 0.45):
        return None
    numbers = np.concatenate(([0.0], np.cumsum(steps)))

    def room(pace_s: float) -> tuple[float, float]:
        earliest_s = float(np.max(low_s - numbers * pace_s))
        return earliest_s, float(np.min(high_s - numbers * pace_s)) - earliest_s

    # The room left for the phase is a concave function of the pace: ternary search for the most.
    slow_s, fast_s = 0.99 * period_s, 1.01 * period_s
    ends_s = slow_s, fast_s
    while fast_s - slow_s > 1e-9:
        third_s = (fast_s - slow_s) / 3
        if room(slow_s + third_s)[1] < room(fast_s - third_s)[1]:
            slow_s += third_s
        else:
            fast_s -= third_s
    best_s = (slow_s + fast_s) / 2
    if room(best_s)[1] <= 0:
        return None
    slowest_s, fastest_s = (_last_with_room(room, best_s, end_s) for end_s in ends_s)
    paces_s = np.linspace(slowest_s, fastest_s, 17)
    rooms = np.array([room(float(pace_s)) for pace_s in paces_s])
    earliest_s = rooms[:, :1] + np.outer(paces_s, numbers)
    first_s = earliest_s.min(axis=0)
    last_s = (earliest_s + np.maximum(rooms[:, 1:], 0.0)).max(axis=0)
    return (first_s + last_s) / 2, (last_s - first_s) / 2


def _last_with_room(
    room: Callable[[float], tuple[float, float]], inside_s: float, outside_s: float
) -> float:
    """Return the pace farthest towards ``outside_s`` that leaves room, by bisection."""
    while abs(outside_s - inside_s) > 1e-10:
        middle_s = (inside_s + outside_s) / 2
        if room(middle_s)[1] > 0:
            inside_s = middle_s
        else:
            outside_s = middle_s
    return inside_s
