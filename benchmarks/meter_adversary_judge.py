"""What the adversary's windows show: the tables, and what must hold."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from harness import Criterion, word_counts
from meter_adversary_windows import BRACKETED, TICKS, Window

LEAST_COVERED = 0.93
ENOUGH = 24
"""Windows that a cell must have to be judged by itself; smaller ones are pooled."""
WIDEST = 10.0
BEHIND_POINTS = 0.1
ERROR_LIMITS = {5.0: (0.05, 1.5), 20.0: (0.02, 0.4)}
"""By window length in s: largest q95 of |error| in %, cut at ticks (or bracketed) and as asked."""

Key = tuple[object, ...]
_CELLS: tuple[Callable[[Window], Key], ...] = (
    lambda w: (w.sensor, w.load, w.cut, w.length_s),
    lambda w: (w.sensor, w.load),
    lambda w: (w.sensor,),
)
"""Cells whose coverage is judged; the finest that have enough windows."""


def print_table(windows: Sequence[Window]) -> None:
    """Print one line for each length, knowledge, cut and counter; errors in % of the truth."""
    print(
        f"{'length':>6} {'probe':6}{'cut':10}{'counter':8}{'n':>5}{'none':>5}{'cover':>7}"
        f"{'silent':>7}{'med|e|':>9}{'q95|e|':>9}{'max|e|':>9}{'med u95':>9}{'u95/|e|':>8}"
        f"{'Zeus q95':>9}{'poll q95':>9}"
    )
    groups = _grouped(windows, lambda w: (w.length_s, w.probed, w.cut, w.kind))
    for (length_s, probed, cut, kind), group in sorted(
        groups.items(), key=lambda pair: pair[0][:3]
    ):
        errors, widths = _errors(group), _widths(group)
        ratios = [
            window.half_width / max(abs(window.error), 1e-9)
            for window in group
            if window.half_width is not None and window.error is not None
        ]
        polled = _finite(window.off(window.poll_j) for window in group)
        silent = sum(window.silent for window in group) / len(group)
        nothing = len(group) - len(errors)
        print(
            f"{length_s:>5} s {'after' if probed else 'none':6}{cut:10}{kind:8}{len(group):5}"
            f"{nothing:5}{_covered(group):7.1%}{silent:7.1%}{_median(errors):9.4f}{_q95(errors):9.4f}"
            f"{max(errors, default=math.nan):9.4f}{_median(widths):9.4f}{_median(ratios):8.1f}"
            f"{_q95(_zeus(group)):9.3f}{_q95(polled):9.2f}"
        )


def print_cells(windows: Sequence[Window]) -> None:
    """Print coverage by sensor and load, with each cell below the limit marked."""
    cells = _grouped(windows, lambda w: (w.sensor, w.load))
    sensors = list(dict.fromkeys(w.sensor for w in windows))
    names = list(dict.fromkeys(w.load for w in windows))
    print("\ncoverage in % by load and sensor, all cuts, lengths and states of knowledge; * < 93")
    print(f"{'':16}" + "".join(f"{sensor[:16]:>17}" for sensor in sensors))
    for name in names:
        line = f"{name:16}"
        for sensor in sensors:
            cell = cells.get((sensor, name), [])
            share = 100 * _covered(cell) if cell else math.nan
            line += f"{share:16.1f}{'*' if share < 100 * LEAST_COVERED else ' '}"
        print(line)
    print_codes(windows)


def print_codes(windows: Sequence[Window]) -> None:
    """Print how often each validity code was given."""
    codes = word_counts(code for window in windows for code in window.energy.codes)
    print(f"\ncodes: {codes or 'none'}")


def criteria(windows: Sequence[Window]) -> Iterator[Criterion]:
    """Yield what must hold: whether it does, and the figures."""
    yield from silent(windows)
    yield from _coverage(windows)
    yield from widths_and_errors([w for w in windows if w.kind != "sum"])
    yield from _against_zeus(windows)
    yield from bounds(windows)


def silent(windows: Sequence[Window]) -> Iterator[Criterion]:
    """Yield that no window is wrong without a code."""
    bad = [window for window in windows if window.silent]
    text = f"windows outside their interval without a code: {len(bad)} of {len(windows)}"
    if bad:
        worst = max(bad, key=lambda window: abs(window.error or 0.0))
        text += f"; worst {_description(worst)}"
    yield not bad, text
    for cut, group in _grouped(windows, lambda window: (window.cut,)).items():
        yield (
            not any(window.silent for window in group),
            f"  {cut[0]}: {sum(window.silent for window in group)} of {len(group)}",
        )


def _coverage(windows: Sequence[Window]) -> Iterator[Criterion]:
    cells: dict[Key, list[Window]] = {}
    remaining = windows
    for part in _CELLS:
        finer = _grouped(remaining, part)
        large = {name: cell for name, cell in finer.items() if len(cell) >= ENOUGH}
        cells |= large
        remaining = [window for name, cell in finer.items() if name not in large for window in cell]
    low = {key: cell for key, cell in cells.items() if _covered(cell) < LEAST_COVERED}
    chance = sum(_chance_below(len(cell)) for cell in cells.values())
    yield (
        not low,
        f"cells that cover less than {LEAST_COVERED:.0%}: {len(low)} of {len(cells)} "
        f"(with intervals of exactly 95 % chance alone would give {chance:.0f})",
    )
    for key, cell in sorted(low.items(), key=lambda pair: _covered(pair[1])):
        misses = sum(not window.covered for window in cell)
        place = ", ".join(str(part) for part in key)
        yield False, f"  {place}: {_covered(cell):.1%} ({misses} of {len(cell)} missed)"


def widths_and_errors(windows: Sequence[Window]) -> Iterator[Criterion]:
    """Yield how small errors are to be, and how useful intervals; for true counters.

    Intervals are held to be narrow where something shows what the counter counts: one of which
    nothing is shown (``counter_unverified``) is wider by what readings may have missed.
    """
    for (kind, cut, length_s), group in _grouped(
        windows, lambda w: (w.kind, w.cut, w.length_s)
    ).items():
        what = f"{kind} counter, {length_s:g} s, {cut}"
        verified = [window for window in group if "counter_unverified" not in window.energy.codes]
        if verified:
            error, width = _median(_errors(verified)), _median(_widths(verified))
            yield (
                width <= WIDEST * error,
                f"{what}, shown to be one ({len(verified)} of {len(group)}): median u95 "
                f"{width:.4f} % <= {WIDEST:g} x median |e| {error:.4f} %",
            )
        if length_s in ERROR_LIMITS:
            limit = ERROR_LIMITS[length_s][cut not in (TICKS, BRACKETED)]
            q95 = _q95(_errors(group))
            yield q95 <= limit, f"{what}: q95 |e| {q95:.4f} % <= {limit} %"


def _against_zeus(windows: Sequence[Window]) -> Iterator[Criterion]:
    behind = []
    for (load, kind, cut, length_s), group in _grouped(
        windows, lambda w: (w.load, w.kind, w.cut, w.length_s)
    ).items():
        points = _q95(_errors(group)) - _q95(_zeus(group))
        if points > BEHIND_POINTS:
            place = f"{load}, {kind} counter, {cut}, {length_s:g} s"
            behind.append((points, f"  {place}: {points:.2f} points ({len(group)} windows)"))
    yield not behind, f"loads on which Zeus is better by more than {BEHIND_POINTS} points (q95 |e|)"
    for _, text in sorted(behind, reverse=True):
        yield False, text


def bounds(windows: Sequence[Window]) -> Iterator[Criterion]:
    """Yield that the truth is within each bound."""
    bounded = [window for window in windows if window.energy.bound_j is not None]
    beyond = [window for window in bounded if not window.within(window.energy.bound_j)]
    text = f"windows beyond their bound: {len(beyond)}"
    if not bounded:
        text += " (no bounds given)"
    yield not beyond, text + (f"; such as {_description(beyond[0])}" if beyond else "")


def _description(window: Window) -> str:
    knowledge = "after a probe" if window.probed else "no probe"
    error, width = window.error, window.half_width
    return (
        f"{window.load}, {window.sensor}, {window.length_s:g} s, {window.cut}, {knowledge}: "
        f"{math.nan if error is None else error:+.4f} % +- "
        f"{math.nan if width is None else width:.4f} %"
    )


def _covered(windows: Sequence[Window]) -> float:
    return sum(window.covered for window in windows) / len(windows)


def _chance_below(count: int) -> float:
    """Return how likely a 95 % interval covers less than the least share of ``count`` windows."""
    max_misses = math.floor(count * (1 - LEAST_COVERED) + 1e-9)
    return 1 - sum(
        math.comb(count, k) * 0.05**k * 0.95 ** (count - k) for k in range(max_misses + 1)
    )


def _grouped(windows: Iterable[Window], key: Callable[[Window], Key]) -> dict[Key, list[Window]]:
    groups: dict[Key, list[Window]] = {}
    for window in windows:
        groups.setdefault(key(window), []).append(window)
    return groups


def _errors(windows: Iterable[Window]) -> list[float]:
    return _finite(window.error for window in windows)


def _widths(windows: Iterable[Window]) -> list[float]:
    return _finite(window.half_width for window in windows)


def _zeus(windows: Iterable[Window]) -> list[float]:
    return _finite(window.off(window.zeus_j) for window in windows)


def _finite(values: Iterable[float | None]) -> list[float]:
    """Return the amounts of those that are numbers."""
    return [abs(value) for value in values if value is not None and math.isfinite(value)]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _q95(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.95)) if len(values) else math.nan
