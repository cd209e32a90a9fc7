"""A study's runs as blocks: one row a cycle, one column an experiment.

Runs of one cycle follow each other closely, so what a machine does over hours is the same for all
of them and cancels in differences within the cycle. Whether that is so is looked up in the order
in which the runs really began, not in the planned one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.statistics import Reals


@dataclass(frozen=True)
class Blocks:
    """One quantity of a study's runs; every array is cycles by experiments, NaN where no run is.

    Attributes:
        experiments: their ids, one a column.
        cycles: the cycles, one a row.
        logs: natural logarithm of the quantity: differences are ratios.
        places: place of the run in the order in which runs began on its machine, from 1.
        hosts: number of the machine.
    """

    experiments: tuple[str, ...]
    cycles: tuple[int, ...]
    logs: Reals
    places: Reals
    hosts: Reals


def blocks(used: Mapping[str, Sequence[Row]], started: Iterable[Row], metric: str) -> Blocks:
    """Return one quantity of the runs that are in the means.

    Values that are not positive have no logarithm and count as missing.

    Args:
        used: the runs in the mean of each experiment.
        started: all runs that began, for their places in the order.
        metric: the column.
    """
    experiments = tuple(used)
    cycles = tuple(sorted({row["cycle"] for rows in used.values() for row in rows}))
    place_of, host_of = places(started)
    row_of = {cycle: number for number, cycle in enumerate(cycles)}
    shape = (len(cycles), len(experiments))
    logs, order, hosts = (np.full(shape, np.nan) for _ in range(3))
    for column, rows in enumerate(used.values()):
        for row in rows:
            at = row_of[row["cycle"]], column
            value, name = row[metric], (row["experiment"], row["cycle"])
            if value is None or not value > 0:
                continue
            logs[at] = np.log(value)
            order[at] = place_of[name]
            hosts[at] = host_of[name]
    return Blocks(experiments, cycles, logs, order, hosts)


def places(
    started: Iterable[Row],
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """Return each run's place in the order in which runs began on its machine, and its machine."""
    by_start = sorted(started, key=lambda row: (row["started_at"] or "", row["order"]))
    machines = {name: number for number, name in enumerate(sorted({_host(r) for r in by_start}))}
    counts = dict.fromkeys(machines.values(), 0)
    place_of, host_of = {}, {}
    for row in by_start:
        name, host = (row["experiment"], row["cycle"]), machines[_host(row)]
        counts[host] += 1
        place_of[name], host_of[name] = counts[host], host
    return place_of, host_of


def _host(row: Row) -> str:
    return row["host"] or ""


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
