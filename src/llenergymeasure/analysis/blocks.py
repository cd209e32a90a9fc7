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
MAX_OTHER_ORDER = 0.1

RunValue: TypeAlias = Callable[[Row], float | None]
"""A quantity of a run."""


@dataclass(frozen=True)
class Blocks:
    """One quantity of a study's runs; every array is cycles by experiments, NaN where no run is.

    Attributes:
        experiments: their ids, one a column.
        cycles: the cycles, one a row.
        logs: natural logarithm of the quantity: differences are ratios.
        host_order: place of the run in the order in which runs began on its machine, from 1.
        hosts: number of the machine.
        order: place of the run in the order in which runs began on all machines, from 0.
    """

    experiments: tuple[str, ...]
    cycles: tuple[int, ...]
    logs: Reals
    host_order: Reals
    hosts: Reals
    order: Reals


def make_blocks(
    used_runs: Mapping[str, Sequence[Row]], started_runs: Iterable[Row], run_value: RunValue
) -> Blocks:
    """Return one quantity of the runs that are in the means.

    Values that are not positive have no logarithm and count as missing.

    Args:
        used_runs: the runs in the mean of each experiment.
        started_runs: all runs that began, for their places in the order.
        run_value: the quantity.
    """
    experiments = tuple(used_runs)
    cycles = tuple(sorted({row["cycle"] for rows in used_runs.values() for row in rows}))
    orders = _orders(by_start(started_runs))
    row_by_cycle = {cycle: number for number, cycle in enumerate(cycles)}
    shape = (len(cycles), len(experiments))
    logs, host_order, hosts, order = (np.full(shape, np.nan) for _ in range(4))
    for column, rows in enumerate(used_runs.values()):
        for row in rows:
            value = run_value(row)
            if value is None or not value > 0:
                continue
            cell = row_by_cycle[row["cycle"]], column
            logs[cell] = np.log(value)
            order[cell], host_order[cell], hosts[cell] = orders[row["experiment"], row["cycle"]]
    return Blocks(experiments, cycles, logs, host_order, hosts, order)


def _orders(rows: Iterable[Row]) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Return for each run its place in the order, that on its machine, and the machine's number."""
    numbers: dict[str, int] = {}
    counts: Counter[int] = Counter()
    orders = {}
    for order, row in enumerate(rows):
        number = numbers.setdefault(row["host"] or "", len(numbers))
        counts[number] += 1
        orders[row["experiment"], row["cycle"]] = order, counts[number], number
    return orders


def centred(values: Reals, *, by_cycle: bool) -> Reals:
    """Return the residuals of a level for each experiment (column) and, ``by_cycle``, cycle (row).

    Taking out the means of columns and rows in turn converges to the least squares fit of both; it
    is exact at once where no value is missing.
    """
    present = np.isfinite(values)
    in_column, in_row = _counts(present, 0), _counts(present, 1)
    residuals = np.where(present, values, 0.0)
    for _ in range(1 if present.all() or not by_cycle else 200):
        previous = residuals
        means = residuals.sum(axis=0, keepdims=True) / in_column
        residuals = np.where(present, residuals - means, 0.0)
        if by_cycle:
            means = residuals.sum(axis=1, keepdims=True) / in_row
            residuals = np.where(present, residuals - means, 0.0)
        if np.abs(residuals - previous).max(initial=0.0) < 1e-13:
            break
    return np.where(present, residuals, np.nan)


def _counts(present: NDArray[np.bool_], axis: int) -> Reals:
    counts: Reals = np.maximum(present.sum(axis=axis, keepdims=True), 1).astype(np.float64)
    return counts


def widening(order: Reals, residuals: Reals) -> float:
    """Return the factor by which correlated residuals of successive runs widen an interval."""
    present = np.isfinite(residuals)
    by_order = np.argsort(order[present], kind="stable")
    return autocorrelation(residuals[present][by_order].tolist()).widening if present.any() else 1.0


def has_one_order(data: Blocks) -> bool:
    """Return whether experiments have the same places in all cycles, or nearly all.

    Then what a run leaves for the next one, or what its place does, is in their differences.
    """
    present = np.isfinite(data.order)
    in_blocks = present & (present.sum(axis=1, keepdims=True) > 1)
    ranks = np.argsort(np.argsort(np.where(present, data.order, np.inf), axis=1), axis=1)
    places = np.where(in_blocks, ranks, np.nan)[in_blocks.any(axis=1)]
    if len(places) < 2:
        return False
    spread = float(np.nansum(centred(places.T, by_cycle=False) ** 2))
    rest = float(np.nansum(centred(places, by_cycle=True) ** 2))
    return rest <= MAX_OTHER_ORDER * spread


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
    every cycle, because then the levels follow any trend. Where what is left of successive runs is
    alike, as on a machine that wanders, the interval is widened.
    """
    present = np.isfinite(data.logs)
    by_cycle = bool((present.sum(axis=1) > 1).any())
    levels = int(present.any(axis=0).sum())
    if by_cycle:
        levels += int(present.any(axis=1).sum()) - 1
    freedom = int(present.sum()) - levels - 1
    if freedom < MIN_DEGREES_OF_FREEDOM:
        return None
    host_order = np.where(present, data.host_order, np.nan)
    in_time = host_order + data.hosts * (np.nanmax(host_order) + 1)  # one machine, then the next
    x, y = centred(host_order, by_cycle=by_cycle), centred(data.logs, by_cycle=by_cycle)
    spread = float(np.nansum(x * x))
    if spread <= 1e-9 * float(np.nansum((host_order - np.nanmean(host_order)) ** 2)):
        return None
    slope = float(np.nansum(x * y)) / spread
    residual = float(np.nansum((y - slope * x) ** 2))
    half_width = t_quantile(freedom) * float(np.sqrt(residual / freedom / spread))
    half_width *= widening(in_time, y - slope * x)
    low, middle, high = np.expm1([slope - half_width, slope, slope + half_width])
    return Drift(float(middle), float(low), float(high), int(present.sum()), by_cycle)
