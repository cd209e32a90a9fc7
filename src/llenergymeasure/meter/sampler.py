"""Reading channels, each at its own pace, and turning what they say into rows.

One loop has the fast channels, another the slow ones, so that a call that takes long never
stands between a counter and its next tick. Rows go to a list that a third thread writes.
"""

import heapq
import threading
import time
from collections.abc import Callable, Sequence

from llenergymeasure.meter.follow import Follower
from llenergymeasure.meter.samples import ENERGY_QUANTITIES, HOST_DEVICE, RECORDER, Row
from llenergymeasure.meter.sensors.base import Channel, Every, Follow, SensorError, Value
from llenergymeasure.meter.ticks import TickBoard

RETRY_NS = 1_000_000_000
"""A sensor that failed is asked again after this long."""
HEARTBEAT_NS = 500_000_000
COST_NS = 2_000_000_000
"""How often the recorder writes down what it costs itself."""
_COARSE_NS = 20_000_000
_LEARN_NS = 10_000_000_000
_LONGEST_WAIT_NS = 100_000_000


class Reader:
    """One channel: reads it, says when next, and makes rows of what it says."""

    def __init__(self, channel: Channel, write: Callable[[Row], None], board: TickBoard | None):
        self.channel = channel
        self._write = write
        self._board = board if channel.ticks else None
        self._follower: Follower | None = None
        self._repeat_ns: int | None = None
        self._longest_ns: int | None = None
        if isinstance(channel.pace, Follow):
            if channel.pace.longest_s is not None:
                self._longest_ns = int(channel.pace.longest_s * 1e9)
            self._follower = Follower(int(channel.pace.fine_s * 1e9), _COARSE_NS, _LEARN_NS)
            if channel.pace.repeat_s is not None:
                self._repeat_ns = int(channel.pace.repeat_s * 1e9)
        self._written_ns: int | None = None
        self.read_ns = 0
        self.reads = 0

    def read(self, *, last: bool = False) -> int:
        """Read once; return when to read next.

        Args:
            last: write what is read whether it is new or not: there is no next time.
        """
        before_ns = time.monotonic_ns()
        try:
            values = self.channel.read()
        except SensorError as error:
            return self._failed(str(error))
        except Exception as error:  # one broken sensor must not end the others
            return self._failed(f"{type(error).__name__}: {error}")
        after_ns = time.monotonic_ns()
        self.read_ns += after_ns - before_ns
        self.reads += 1
        if self._follower is None:
            self._take(values, before_ns, after_ns)
            return self._next_regular(before_ns)
        self._follow(self._follower, values, before_ns, after_ns, last=last)
        next_ns = self._follower.next_read_ns(after_ns)
        if self._longest_ns is None:
            return next_ns
        # A call that takes long is not made more often than it can be afforded.
        return min(next_ns, after_ns + max(self._longest_ns, 2 * (after_ns - before_ns)))

    def _next_regular(self, before_ns: int) -> int:
        assert isinstance(self.channel.pace, Every)
        return before_ns + int(self.channel.pace.period_s * 1e9)

    def _take(self, values: Sequence[Value], before_ns: int, after_ns: int) -> None:
        t_ns = (before_ns + after_ns) // 2
        for value in values:
            back_ns = None if value.span_ns is None else t_ns - value.span_ns
            self._row(t_ns, value, back_ns)

    def _follow(
        self,
        follower: Follower,
        values: Sequence[Value],
        before_ns: int,
        after_ns: int,
        *,
        last: bool,
    ) -> None:
        old_ns = follower.saw(values[0].value, before_ns, after_ns)
        if old_ns is not None:
            # The end of the call, so that the renewal surely lies in (old_ns, t_ns].
            self._rows(after_ns, values, old_ns)
            if self._board is not None:
                self._board.tick(self.channel.device, after_ns, follower.period_ns)
        elif last or self._written_ns is None or self._is_stale(after_ns):
            self._rows((before_ns + after_ns) // 2, values, None)

    def _is_stale(self, now_ns: int) -> bool:
        assert self._written_ns is not None
        return self._repeat_ns is not None and now_ns - self._written_ns >= self._repeat_ns

    def _rows(self, t_ns: int, values: Sequence[Value], before_ns: int | None) -> None:
        self._written_ns = t_ns
        for value in values:
            self._row(t_ns, value, before_ns)

    def _row(self, t_ns: int, value: Value, before_ns: int | None) -> None:
        channel = self.channel
        self._write(
            Row(
                t_ns,
                channel.device,
                channel.sensor,
                value.quantity,
                value.value,
                before_ns,
                value.note,
            )
        )

    def _failed(self, reason: str) -> int:
        now_ns = time.monotonic_ns()
        note = f"{', '.join(self.channel.quantities)}: {reason}"
        self._row(now_ns, Value("unavailable", None, note), None)
        return now_ns + RETRY_NS


class Loop:
    """Reads its channels, each when it is due, until it is told to stop."""

    def __init__(
        self,
        channels: Sequence[Channel],
        write: Callable[[Row], None],
        board: TickBoard | None = None,
        *,
        beats: bool = False,
    ) -> None:
        """Take the channels.

        Args:
            channels: what to read.
            write: takes rows; called from the loop's thread.
            board: where ticks and heartbeats are published.
            beats: whether this loop writes the heartbeat and the recorder's CPU time.
        """
        self._write = write
        self._board = board
        self._beats = beats
        self._readers = [Reader(channel, write, board) for channel in channels]
        self._due: list[tuple[int, int]] = []
        self._stop = threading.Event()
        self._next_beat_ns = 0
        self._next_cost_ns = time.monotonic_ns() + COST_NS

    def prime(self) -> None:
        """Read every channel once, so that the recording has begun when this returns."""
        self._due = [(reader.read(), index) for index, reader in enumerate(self._readers)]
        heapq.heapify(self._due)
        self._beat(time.monotonic_ns())

    def run(self) -> None:
        """Read until ``stop``; then read every channel a last time."""
        while not self._stop.is_set():
            next_ns = self.step()
            if next_ns is not None:
                time.sleep(max(next_ns - time.monotonic_ns(), 0) / 1e9)
        self.finish()

    def step(self) -> int | None:
        """Read what is due; return when to come again, null for at once."""
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
        self._stop.set()

    def _beat(self, now_ns: int) -> None:
        if not self._beats:
            if now_ns >= self._next_cost_ns:
                self._write_costs(now_ns)
            return
        if self._board is not None:
            self._board.beat(now_ns)
        if now_ns >= self._next_beat_ns:
            self._next_beat_ns = now_ns + HEARTBEAT_NS
            self._write(Row(now_ns, HOST_DEVICE, RECORDER, "heartbeat"))
        if now_ns >= self._next_cost_ns:
            self._write_costs(now_ns)

    def _write_costs(self, now_ns: int) -> None:
        self._next_cost_ns = now_ns + COST_NS
        if self._beats:
            self._write(Row(now_ns, HOST_DEVICE, RECORDER, "recorder_cpu_s", time.process_time()))
        totals: dict[tuple[str, str], tuple[int, int]] = {}
        for reader in self._readers:
            if ENERGY_QUANTITIES.isdisjoint(reader.channel.quantities):
                continue
            key = (reader.channel.device, reader.channel.sensor)
            read_ns, reads = totals.get(key, (0, 0))
            totals[key] = (read_ns + reader.read_ns, reads + reader.reads)
            reader.read_ns = reader.reads = 0
        for (device, sensor), (read_ns, reads) in totals.items():
            if reads:
                self._write(Row(now_ns, device, sensor, "read_s", read_ns / reads / 1e9))
