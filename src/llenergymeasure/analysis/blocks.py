"""A study's runs as blocks, one row a cycle, one column an experiment, and their trend in time.

Runs of one cycle follow each other closely, so what a machine does over hours is the same for all
of them and cancels in differences within the cycle. Whether runs follow each other closely is
decided by the order in which they really began, not by the planned one; heat, neighbours or ageing
show as a trend along that order.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.selection import Row, by_start
from llenergymeasure.analysis.statistics import Reals, autocorrelation, t_quantile

MIN_DEGREES_OF_FREEDOM = 2

ValueOf: TypeAlias = Callable[[Row], float | None]
"""A quantity of a run."""


@dataclass(frozen=True)
class Blocks:
    """One quantity of a study's runs; every array is cycles by experiments, NaN where no run is.

    Attributes:
        experiments: their ids, one a column.
        cycles: the cycles, one a row.
        logs: natural logarithm of the quantity: differences are ratios.
        places: place of the run in the order in which runs began on its machine, from 1.
        hosts: number of the machine.
        began: place of the run in the order in which runs began on all machines, from 0.
    """

    experiments: tuple[str, ...]
    cycles: tuple[int, ...]
    logs: Reals
    places: Reals
    hosts: Reals
    began: Reals


def blocks(used: Mapping[str, Sequence[Row]], started: Iterable[Row], value_of: ValueOf) -> Blocks:
    """Return one quantity of the runs that are in the means.

    Values that are not positive have no logarithm and count as missing.

    Args:
        used: the runs in the mean of each experiment.
        started: all runs that began, for their places in the order.
        value_of: the quantity.
    """
    experiments = tuple(used)
    cycles = tuple(sorted({row["cycle"] for rows in used.values() for row in rows}))
    ordered = by_start(started)
    place_of, host_of = places(ordered)
    began_of = {(row["experiment"], row["cycle"]): at for at, row in enumerate(ordered)}
    row_of = {cycle: number for number, cycle in enumerate(cycles)}
    shape = (len(cycles), len(experiments))
    logs, order, hosts, began = (np.full(shape, np.nan) for _ in range(4))
    for column, rows in enumerate(used.values()):
        for row in rows:
            at = row_of[row["cycle"]], column
            value, name = value_of(row), (row["experiment"], row["cycle"])
            if value is None or not value > 0:
                continue
            logs[at] = np.log(value)
            order[at] = place_of[name]
            hosts[at] = host_of[name]
            began[at] = began_of[name]
    return Blocks(experiments, cycles, logs, order, hosts, began)


def places(
    ordered: Iterable[Row],
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """Return each run's place in the order, as they began, on its machine, and its machine."""
    numbers: dict[str, int] = {}
    counts: Counter[int] = Counter()
    place_of, host_of = {}, {}
    for row in ordered:
        name, host = (row["experiment"], row["cycle"]), row["host"] or ""
        number = numbers.setdefault(host, len(numbers))
        counts[number] += 1
        place_of[name], host_of[name] = counts[number], number
    return place_of, host_of


def centred(values: Reals, *, by_cycle: bool) -> Reals:
    """Return what is left after a level for each experiment (column) and, if asked, cycle (row).

    Taking out the means of columns and rows in turn converges to the least squares fit of both; it
    is exact at once where no value is missing.
    """
    present = np.isfinite(values)
    in_column, in_row = _counts(present, 0), _counts(present, 1)
    left = np.where(present, values, 0.0)
    for _ in range(1 if present.all() or not by_cycle else 200):
        before = left
        left = np.where(present, left - left.sum(axis=0, keepdims=True) / in_column, 0.0)
        if by_cycle:
            left = np.where(present, left - left.sum(axis=1, keepdims=True) / in_row, 0.0)
        if np.abs(left - before).max(initial=0.0) < 1e-13:
            break
    return np.where(present, left, np.nan)


def _counts(present: NDArray[np.bool_], axis: int) -> Reals:
    counts: Reals = np.maximum(present.sum(axis=axis, keepdims=True), 1).astype(np.float64)
    return counts


def widening(places: Reals, left: Reals) -> float:
    """Return the factor by which correlated residuals of successive runs widen an interval."""
    known = np.isfinite(left)
    order = np.argsort(places[known], kind="stable")
    return autocorrelation(left[known][order].tolist()).widening if known.any() else 1.0


@dataclass(frozen=True)
class Drift:
    """A straight trend over the order of the runs, common to all experiments.

    Attributes:
        per_run: relative change from one run to the next (0.01 is 1 %).
        ci95_low: lower end of its 95 % interval.
        ci95_high: upper end.
        runs: the number of runs it is computed from.
        by_cycle: whether it is free of what the runs of a cycle share: of one run in each cycle,
            those that are merely like the one before them look like a trend.
    """

    per_run: float
    ci95_low: float
    ci95_high: float
    runs: int
    by_cycle: bool = True

    @property
    def detected(self) -> bool:
        """Whether zero is outside the interval."""
        return not self.ci95_low <= 0 <= self.ci95_high


def drift(data: Blocks) -> Drift | None:
    """Return the common trend along the order of the runs; None if they cannot show it.

    Least squares on the logarithm with a level for each experiment and, where cycles hold more
    than one run, for each cycle (the "within" estimator of panel data: Wooldridge, Econometric
    Analysis of Cross Section and Panel Data, ch. 10). What all runs of a cycle share is no trend:
    without the cycles' levels, five cycles of a machine with moods would pass for as many
    independent runs as they hold. They do not show it where each experiment has the same place in
    every cycle, because then the levels follow any trend.
    """
    present = np.isfinite(data.logs)
    by_cycle = bool((present.sum(axis=1) > 1).any())
    levels = int(present.any(axis=0).sum())
    if by_cycle:
        levels += int(present.any(axis=1).sum()) - 1
    freedom = int(present.sum()) - levels - 1
    if freedom < MIN_DEGREES_OF_FREEDOM:
        return None
    places = np.where(present, data.places, np.nan)
    x, y = centred(places, by_cycle=by_cycle), centred(data.logs, by_cycle=by_cycle)
    spread = float(np.nansum(x * x))
    if spread <= 1e-9 * float(np.nansum((places - np.nanmean(places)) ** 2)):
        return None
    slope = float(np.nansum(x * y)) / spread
    residual = float(np.nansum((y - slope * x) ** 2))
    half_width = t_quantile(freedom) * float(np.sqrt(residual / freedom / spread))
    if not by_cycle:
        half_width *= widening(places, y - slope * x)
    low, middle, high = np.expm1([slope - half_width, slope, slope + half_width])
    return Drift(float(middle), float(low), float(high), int(present.sum()), by_cycle)
