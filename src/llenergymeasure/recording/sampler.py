"""Reading channels, each at its own pace, and turning what they say into rows.

One loop has the fast channels, another the slow ones, so that a call that takes long never
stands between a counter and its next tick. Rows go to a list that a third thread writes.
"""

import heapq
import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from llenergymeasure.recording.samples import HOST_DEVICE, RECORDER, SampleRow
from llenergymeasure.sensors.base import (
    ENERGY_QUANTITIES,
    Channel,
    Every,
    Follow,
    SensorError,
    Value,
)

RETRY_NS = 1_000_000_000
"""A sensor that failed is asked again after this long."""
HEARTBEAT_NS = 500_000_000
COST_NS = 2_000_000_000
"""How often the recorder writes down what it costs itself."""
_LONGEST_WAIT_NS = 100_000_000
_PERIODS_KEPT = 8
_LONGEST_PERIOD_NS = 1_500_000_000


class NextRead:
    """When to read a value that its sensor renews in steps, so that each step is placed finely.

    Reads are dense around the moment at which the next step is due, by the steps seen lately, and
    there are none in between: on a card whose counter takes milliseconds to answer dense reads all
    the time would keep a core busy. Pure arithmetic on times: no clock is read here.
    """

    def __init__(self, fine_ns: int) -> None:
        """Take the distance of dense reads."""
        self._fine_ns = fine_ns
        self._steps_ns: deque[int] = deque(maxlen=_PERIODS_KEPT)

    def add_step(self, at_ns: int) -> None:
        """Take in that the value was new at a time."""
        self._steps_ns.append(at_ns)

    def next_ns(self, now_ns: int, read_ns: int) -> int:
        """Return when to read next.

        Args:
            now_ns: the time now.
            read_ns: how long a read takes: at most a third of the time is spent reading.
        """
        fine_ns = max(self._fine_ns, 2 * read_ns)
        gaps_ns = sorted(later - earlier for earlier, later in pairwise(self._steps_ns))
        if len(gaps_ns) < 3:
            return now_ns + fine_ns
        period_ns = gaps_ns[len(gaps_ns) // 2]
        if period_ns > _LONGEST_PERIOD_NS:
            return now_ns + fine_ns
        # The gaps' own scatter, and a little more: a step that comes early is seen late.
        guard_ns = gaps_ns[-1] - gaps_ns[0] + 4 * fine_ns
        return max(now_ns + fine_ns, self._steps_ns[-1] + period_ns - guard_ns)


class Reader:
    """One channel: reads it, says when next, and makes rows of what it says."""

    def __init__(self, channel: Channel, write: Callable[[SampleRow], None]) -> None:
        """Take what to read, and what takes the rows."""
        self.channel = channel
        self._write = write
        pace = channel.pace
        self._next = NextRead(int(pace.fine_s * 1e9)) if isinstance(pace, Follow) else None
        self._seen: dict[str, float | None] = {}
        self._seen_ns = 0
        self._written_ns: dict[str, int] = {}
        self.read_ns = 0
        self.reads = 0

    def read(self, *, last: bool = False) -> int:
        """Read once; return when to read next.

        With ``last`` all is written, new or not: there is no next time.
        """
        before_ns = time.monotonic_ns()
        try:
            values = self.channel.read()
        except Exception as error:  # one broken sensor must not end the others
            kind = "" if isinstance(error, SensorError) else f"{type(error).__name__}: "
            note = f"{', '.join(self.channel.quantities)}: {kind}{error}"
            now_ns = time.monotonic_ns()
            self._row(now_ns, Value("unavailable", None, note))
            return now_ns + RETRY_NS
        after_ns = time.monotonic_ns()
        self.read_ns += after_ns - before_ns
        self.reads += 1
        pace = self.channel.pace
        if isinstance(pace, Every):
            for value in values:
                at_ns = (before_ns + after_ns) // 2 if value.at_ns is None else value.at_ns
                self._row(at_ns, value, None if value.span_ns is None else at_ns - value.span_ns)
            return before_ns + int(pace.period_s * 1e9)
        self._follow(pace, values, before_ns, after_ns, last=last)
        assert self._next is not None
        read_ns = after_ns - before_ns
        if pace.steady:
            return self._next.next_ns(after_ns, read_ns)
        return after_ns + max(int(pace.fine_s * 1e9), 2 * read_ns)

    def _follow(
        self, pace: Follow, values: Sequence[Value], before_ns: int, after_ns: int, *, last: bool
    ) -> None:
        """Write the values that changed, and those that are due again."""
        previous_ns, self._seen_ns = self._seen_ns, before_ns
        for value in values:
            name = value.quantity
            previous, self._seen[name] = self._seen.get(name), value.value
            written_ns = self._written_ns.get(name)
            if previous is not None and value.value is not None and value.value != previous:
                # The end of the call, so that the renewal surely lies in (old_ns, t_ns].
                t_ns = after_ns
                self._row(t_ns, value, previous_ns)
                if self._next is not None and value is values[0]:
                    self._next.add_step(t_ns)
            elif (
                last
                or written_ns is None
                or (pace.repeat_s is not None and after_ns - written_ns >= pace.repeat_s * 1e9)
            ):
                t_ns = (before_ns + after_ns) // 2
                self._row(t_ns, value)
            else:
                continue
            self._written_ns[name] = t_ns

    def _row(self, t_ns: int, value: Value, before_ns: int | None = None) -> None:
        device, sensor = self.channel.device, self.channel.sensor
        self._write(
            SampleRow(t_ns, device, sensor, value.quantity, value.value, before_ns, value.note)
        )


class Loop:
    """Reads its channels, each when it is due, until it is asked to stop."""

    def __init__(
        self,
        channels: Sequence[Channel],
        write: Callable[[SampleRow], None],
        *,
        beats: bool,
    ) -> None:
        """Take the channels; ``write`` is called from the loop's thread.

        With ``beats`` this loop writes the heartbeat and the recorder's CPU time.
        """
        self._write = write
        self._beats = beats
        self._readers = [Reader(channel, write) for channel in channels]
        self._due: list[tuple[int, int]] = []
        # Not by a lock: where libc is old, Python waits for one by the wall clock.
        self._stop = os.eventfd(0)
        self._next_beat_ns = 0
        self._next_cost_ns = time.monotonic_ns() + COST_NS

    def prime(self) -> None:
        """Read every channel once, so that the recording has begun when this returns."""
        self._due = [(reader.read(), index) for index, reader in enumerate(self._readers)]
        heapq.heapify(self._due)
        self._beat(time.monotonic_ns())

    def run(self) -> None:
        """Read until ``stop``; then read every channel a last time."""
        wait_s = 0.0
        while not select.select([self._stop], [], [], wait_s)[0]:
            next_ns = self.step()
            wait_s = 0.0 if next_ns is None else max(next_ns - time.monotonic_ns(), 0) / 1e9
        self.finish()

    def step(self) -> int | None:
        """Read what is due; return when to come again, None for at once."""
        now_ns = time.monotonic_ns()
        self._beat(now_ns)
        if self._due and self._due[0][0] <= now_ns:
            index = self._due[0][1]
            heapq.heapreplace(self._due, (self._readers[index].read(), index))
            return None
        return min([now_ns + _LONGEST_WAIT_NS, *(due for due, _ in self._due[:1])])

    def finish(self) -> None:
        """Read every channel a last time."""
        for reader in self._readers:
            reader.read(last=True)
        self._write_costs(time.monotonic_ns())

    def stop(self) -> None:
        """Ask the loop to end."""
        os.eventfd_write(self._stop, 1)

    def _beat(self, now_ns: int) -> None:
        if self._beats and now_ns >= self._next_beat_ns:
            self._next_beat_ns = now_ns + HEARTBEAT_NS
            ahead_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
            self._write(SampleRow(now_ns, HOST_DEVICE, RECORDER, "heartbeat", ahead_s))
        if now_ns >= self._next_cost_ns:
            self._write_costs(now_ns)

    def _write_costs(self, now_ns: int) -> None:
        self._next_cost_ns = now_ns + COST_NS
        if self._beats:
            self._write(
                SampleRow(now_ns, HOST_DEVICE, RECORDER, "recorder_cpu_s", time.process_time())
            )
        totals: dict[tuple[str, str], list[int]] = {}
        for reader in self._readers:
            channel = reader.channel
            if not ENERGY_QUANTITIES.isdisjoint(channel.quantities):
                total = totals.setdefault((channel.device, channel.sensor), [0, 0])
                total[0] += reader.read_ns
                total[1] += reader.reads
                reader.read_ns = reader.reads = 0
        for (device, sensor), (read_ns, reads) in totals.items():
            if reads:
                self._write(SampleRow(now_ns, device, sensor, "read_s", read_ns / reads / 1e9))
