"""Following a stepping value: each step placed finely, at few reads."""

import random
from dataclasses import dataclass, field

import pytest

from llenergymeasure.meter.follow import Follower

MS = 1_000_000
CALL_NS = 50_000
WAKE_NS = 60_000


@dataclass
class Watched:
    """What following a made-up counter gave."""

    reads: int = 0
    widths_ns: list[int] = field(default_factory=list)
    brackets: list[tuple[int, int, int]] = field(default_factory=list)
    period_ns: int | None = None


def watch(
    ticks_ns: list[int], until_ns: int, fine_ns: int = MS, settled_ns: int = 1000 * MS
) -> Watched:
    """Follow a counter that steps at these times; widths count from ``settled_ns`` on."""
    follower = Follower(fine_ns, coarse_ns=20 * MS, learn_ns=10_000 * MS)
    seen = Watched()
    now_ns, step = 0, 0
    while now_ns < until_ns:
        before_ns = now_ns + WAKE_NS
        while step < len(ticks_ns) and ticks_ns[step] <= before_ns:
            step += 1
        now_ns = before_ns + CALL_NS
        old_ns = follower.saw(float(step), before_ns, now_ns)
        seen.reads += 1
        if old_ns is not None:
            seen.brackets.append((old_ns, ticks_ns[step - 1], now_ns))
            if now_ns > settled_ns:
                seen.widths_ns.append(now_ns - old_ns)
        next_ns = follower.next_read_ns(now_ns)
        assert next_ns >= now_ns
        now_ns = next_ns
    seen.period_ns = follower.period_ns
    return seen


def steady(period_ms: float, seconds: float, jitter_ms: float = 0.0, start_ms: float = 37.0):
    """Times of a counter's steps."""
    chance = random.Random(1)
    count = int(seconds * 1000 / period_ms)
    return [
        int((start_ms + number * period_ms + chance.gauss(0, jitter_ms)) * MS)
        for number in range(count)
    ]


@pytest.mark.parametrize("period_ms", [10.0, 20.0, 100.0, 101.7])
def test_every_step_is_placed_to_about_a_millisecond(period_ms: float) -> None:
    seen = watch(steady(period_ms, 20), 20_000 * MS)

    assert max(seen.widths_ns) < 1.5 * MS
    assert seen.period_ns == pytest.approx(period_ms * MS, rel=0.02)


def test_every_bracket_holds_its_step() -> None:
    seen = watch(steady(100, 20, jitter_ms=3), 20_000 * MS)

    assert seen.brackets
    assert all(low <= tick <= high for low, tick, high in seen.brackets)


def test_a_counter_of_100_ms_costs_few_reads() -> None:
    seen = watch(steady(100, 60), 60_000 * MS)

    assert seen.reads / 60 < 60


def test_steps_that_wander_are_mostly_placed_finely() -> None:
    seen = watch(steady(100, 60, jitter_ms=1), 60_000 * MS)

    fine = sum(width < 1.5 * MS for width in seen.widths_ns)
    assert fine / len(seen.widths_ns) > 0.95


def test_a_changed_period_is_learned_anew() -> None:
    ticks = steady(100, 10)
    ticks += [ticks[-1] + int(number * 37 * MS) for number in range(1, 400)]

    seen = watch(ticks, ticks[-1], settled_ns=ticks[110])

    assert seen.period_ns == pytest.approx(37 * MS, rel=0.05)
    fine = sum(width < 1.5 * MS for width in seen.widths_ns)
    assert fine / len(seen.widths_ns) > 0.9


def test_a_value_that_never_changes_is_read_coarsely_in_the_end() -> None:
    seen = watch([], 60_000 * MS)

    assert not seen.brackets
    assert seen.reads < 10_000 / 1 + 50_000 / 20 + 100


def test_missing_values_are_no_steps() -> None:
    follower = Follower(MS, 20 * MS, 1000 * MS)

    assert follower.saw(1.0, 0, 10) is None
    assert follower.saw(None, 20, 30) is None
    assert follower.saw(2.0, 40, 50) is None
    assert follower.saw(3.0, 60, 70) == 40
