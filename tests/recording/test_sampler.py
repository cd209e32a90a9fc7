"""When a value that is renewed in steps is read next, and how its steps are placed."""

from collections.abc import Iterator

import pytest

from llenergymeasure.recording.sampler import NextRead, Reader
from llenergymeasure.recording.samples import SampleRow
from llenergymeasure.sensors.base import Channel, Follow, SensorError, Value

MS = 1_000_000
FINE_NS = MS


def followed(*steps_ms: float, fine_ns: int = FINE_NS) -> NextRead:
    """After steps at these times."""
    pace = NextRead(fine_ns)
    for at_ms in steps_ms:
        pace.add_step(round(at_ms * MS))
    return pace


def test_it_sleeps_until_shortly_before_the_next_step() -> None:
    pace = followed(0, 100, 200, 300)

    next_ns = pace.next_ns(301 * MS, MS // 10)

    assert 390 * MS <= next_ns < 400 * MS
    # From there on it reads finely until the step is seen.
    assert pace.next_ns(next_ns, MS // 10) == next_ns + FINE_NS


def test_a_step_that_is_late_or_missing_is_waited_for_finely() -> None:
    pace = followed(0, 100, 200, 300)
    for now_ms in (400, 405, 450, 480):
        assert pace.next_ns(now_ms * MS, MS // 10) == now_ms * MS + FINE_NS
    # One was missed, and the pace holds.
    pace.add_step(500 * MS)
    assert 500 * MS < pace.next_ns(501 * MS, MS // 10) < 600 * MS


def test_after_an_early_step_it_comes_earlier() -> None:
    regular, early = followed(0, 100, 200, 300, 400), followed(0, 100, 200, 292, 400)

    usual_ns, next_ns = regular.next_ns(401 * MS, MS // 10), early.next_ns(401 * MS, MS // 10)

    assert next_ns < usual_ns
    # So early that one as early again is not missed.
    assert next_ns <= 492 * MS


@pytest.mark.parametrize(
    ("steps_ms", "now_ms", "read_ms", "next_ms"),
    [
        ((), 0, 0.1, 1),  # no pace is known yet
        ((0, 100, 200), 210, 0.1, 211),
        ((0, 30, 400, 410, 1300), 1301, 0.1, 1302),  # there is none
        # What steps more slowly than any counter known is no pace.
        ((0, 4000, 8000, 12000), 12001, 0.1, 12002),
        ((), 0, 3, 6),  # a slow call fills at most a third of the time
    ],
)
def test_without_a_pace_it_reads_as_finely_as_the_call_allows(
    steps_ms: tuple[float, ...], now_ms: float, read_ms: float, next_ms: float
) -> None:
    next_ns = followed(*steps_ms).next_ns(now_ms * MS, int(read_ms * MS))
    assert next_ns == next_ms * MS


class Counter:
    """A counter whose answers are set."""

    def __init__(self, *answers: float | Exception) -> None:
        self._answers: Iterator[float | Exception] = iter(answers)
        self.rows: list[SampleRow] = []

    def reader(self, steady: bool = True) -> Reader:
        pace = Follow(fine_s=0.001, steady=steady)
        return Reader(Channel("card", "nvml", ("energy_counter_j",), self._read, pace), self._take)

    def _read(self) -> list[Value]:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return [Value("energy_counter_j", answer)]

    def _take(self, row: SampleRow) -> None:
        self.rows.append(row)


def test_a_step_is_written_with_the_read_before_it_and_what_stays_is_not() -> None:
    counter = Counter(1.0, 1.0, 2.0, 2.0)
    reader = counter.reader()
    for _ in range(3):
        reader.read()
    reader.read(last=True)

    first, step, last = counter.rows
    assert [row.value for row in counter.rows] == [1.0, 2.0, 2.0]
    assert first.t_before_ns is None
    assert step.t_before_ns is not None
    assert first.t_ns <= step.t_before_ns < step.t_ns < last.t_ns
    assert last.t_before_ns is None


@pytest.mark.parametrize("error", [SensorError("gone"), ZeroDivisionError("gone")])
def test_a_read_that_fails_says_why_and_is_tried_again_later(error: Exception) -> None:
    counter = Counter(1.0, error, 3.0)
    reader = counter.reader()
    reader.read()

    next_ns = reader.read()
    reader.read()

    _, failed, after = counter.rows
    assert (failed.quantity, failed.value) == ("unavailable", None)
    assert failed.note is not None
    assert failed.note.startswith("energy_counter_j: ")
    assert "gone" in failed.note
    assert next_ns - failed.t_ns == 1_000_000_000
    # What it rose by meanwhile lies between the last answer and this one.
    assert (after.value, after.t_before_ns is not None) == (3.0, True)


def test_values_of_one_call_are_followed_each_by_itself() -> None:
    """A mean over a second goes on changing while the reading of the last instant stands still."""
    pairs = iter([(100.0, 300.0), (100.0, 290.0), (90.0, 290.0), (90.0, 290.0)])
    rows: list[SampleRow] = []

    def read() -> list[Value]:
        instant_w, average_w = next(pairs)
        return [Value("power_instant_w", instant_w), Value("power_average_w", average_w)]

    channel = Channel(
        "card", "nvml", ("power_instant_w", "power_average_w"), read, Follow(fine_s=0.001)
    )
    reader = Reader(channel, rows.append)
    for _ in range(4):
        reader.read()

    new = [(row.quantity, row.value) for row in rows if row.t_before_ns is not None]
    assert new == [("power_average_w", 290.0), ("power_instant_w", 90.0)]
    assert len(rows) == 4
