"""When to read next: follow a value that a sensor renews in steps.

A sensor renews its value every so often (about 100 ms on many GPUs) and whoever reads in between
sees the old one. To place each renewal to about a millisecond without reading a thousand times a
second, period and phase are learned from the renewals seen, and reads are dense only where the
next one is due. Pure arithmetic on times: no clock is read here.
"""

from collections import deque
from itertools import pairwise

_LEARN_TICKS = 4
_TICKS_KEPT = 9
_RESIDUALS_KEPT = 16
_COSTS_KEPT = 15
_MISSES_TO_RELEARN = 4


class Follower:
    """Schedules the reads of one stepping value.

    Attributes:
        period_ns: the learned period; null until it is known.
        last_tick_ns: upper bound of the latest renewal; null before the first.
    """

    def __init__(self, fine_ns: int, coarse_ns: int, learn_ns: int) -> None:
        """Take how finely a renewal is to be placed.

        Args:
            fine_ns: distance of reads where a renewal is due.
            coarse_ns: distance of reads where there is no period to follow.
            learn_ns: how long to read finely in search of a period before giving up.
        """
        self._fine_ns = fine_ns
        self._coarse_ns = coarse_ns
        self._learn_ns = learn_ns
        self.period_ns: int | None = None
        self.last_tick_ns: int | None = None
        self._due_ns = 0
        self._value: float | None = None
        self._read_ns = 0
        self._learning_since_ns: int | None = None
        self._number = 0
        self._ticks: deque[tuple[int, int]] = deque(maxlen=_TICKS_KEPT)
        self._residuals: deque[int] = deque(maxlen=_RESIDUALS_KEPT)
        self._costs: deque[int] = deque(maxlen=_COSTS_KEPT)
        self._misses = 0

    def saw(self, value: float | None, before_ns: int, after_ns: int) -> int | None:
        """Take in a read.

        Args:
            value: what was read; null if the sensor had nothing to say.
            before_ns: time before the call.
            after_ns: time after it.

        Returns:
            If the value is new: the time of the last read that saw the old one, so that the
            renewal lies between it and ``after_ns``; else null.
        """
        self._costs.append(after_ns - before_ns)
        if self._learning_since_ns is None:
            self._learning_since_ns = before_ns
        old_value, old_read_ns = self._value, self._read_ns
        self._value, self._read_ns = value, before_ns
        if value == old_value or value is None or old_value is None:
            return None
        self._renewed(old_read_ns, after_ns)
        return old_read_ns

    def next_read_ns(self, now_ns: int) -> int:
        """Return when to read next, never before ``now_ns``."""
        fine_ns = self._affordable_fine_ns()
        if self.period_ns is None:
            since_ns = now_ns if self._learning_since_ns is None else self._learning_since_ns
            learning = now_ns - since_ns < self._learn_ns
            return now_ns + (fine_ns if learning else max(self._coarse_ns, fine_ns))
        if self.period_ns < 4 * fine_ns:
            return now_ns + max(self._coarse_ns, fine_ns)
        guard_ns = self._guard_ns(fine_ns, self.period_ns)
        if now_ns < self._due_ns - guard_ns:
            # One look on the way bounds what a renewal before its time can cost.
            early_ns = self._due_ns - guard_ns - self.period_ns // 4
            worth_it = self.period_ns >= 32 * fine_ns
            return early_ns if worth_it and now_ns < early_ns else self._due_ns - guard_ns
        if now_ns < self._due_ns + max(guard_ns, self.period_ns // 4):
            return now_ns + fine_ns
        return now_ns + min(self._coarse_ns, max(self.period_ns // 8, fine_ns))

    def _affordable_fine_ns(self) -> int:
        """A sensor that answers slowly is asked less often: at most a third of the time."""
        return max(self._fine_ns, 2 * _middle(self._costs))

    def _guard_ns(self, fine_ns: int, period_ns: int) -> int:
        """How long before the due time to begin: all but the worst seen lately stay within."""
        spread = sorted(self._residuals)
        usual_ns = spread[-2] if len(spread) > 1 else 0
        return min(usual_ns + 3 * fine_ns // 2, period_ns // 2)

    def _renewed(self, before_ns: int, after_ns: int) -> None:
        previous_ns, self.last_tick_ns = self.last_tick_ns, after_ns
        if self.period_ns is not None and previous_ns is not None:
            steps = max(1, round((after_ns - previous_ns) / self.period_ns))
            self._number += steps
            self._due_ns += steps * self.period_ns
        sharp = after_ns - before_ns <= 3 * self._affordable_fine_ns()
        if not sharp:
            self._missed(before_ns, after_ns)
        elif self.period_ns is None:
            self._learn(after_ns)
        else:
            self._track(after_ns, self.period_ns)

    def _learn(self, tick_ns: int) -> None:
        self._number += 1
        self._ticks.append((self._number, tick_ns))
        if len(self._ticks) < _LEARN_TICKS:
            return
        times = [time_ns for _, time_ns in self._ticks]
        intervals = [late - early for early, late in pairwise(times)]
        period_ns = _middle(intervals)
        first_ns = times[0]
        self._ticks = deque(
            ((round((time_ns - first_ns) / period_ns), time_ns) for time_ns in times),
            maxlen=_TICKS_KEPT,
        )
        self._number = self._ticks[-1][0]
        self._aim()

    def _track(self, tick_ns: int, period_ns: int) -> None:
        self._misses = 0
        # The due time has been moved on to the next tick: compare with the one before.
        self._residuals.append(abs(tick_ns - (self._due_ns - period_ns)))
        self._ticks.append((self._number, tick_ns))
        self._aim()

    def _aim(self) -> None:
        """Set period and next due time from the sharp ticks kept; a late one moves little."""
        (first, first_ns), (last, last_ns) = self._ticks[0], self._ticks[-1]
        period_ns = max(1, (last_ns - first_ns) // max(1, last - first))
        phases = [time_ns - number * period_ns for number, time_ns in self._ticks]
        self.period_ns = period_ns
        self._due_ns = _middle(phases) + (self._number + 1) * period_ns

    def _missed(self, before_ns: int, after_ns: int) -> None:
        """The renewal came where reads were far apart: look wider, and at last learn anew."""
        if self.period_ns is None:
            return
        expected_ns = self._due_ns - self.period_ns
        if before_ns <= expected_ns <= after_ns:
            return
        self._misses += 1
        self._residuals.append(min(abs(after_ns - expected_ns), self.period_ns // 4))
        if self._misses >= _MISSES_TO_RELEARN:
            self.period_ns = None
            self._learning_since_ns = None
            self._ticks.clear()
            self._residuals.clear()
            self._misses = 0


def _middle(values: "deque[int] | list[int]") -> int:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0
