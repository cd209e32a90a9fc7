"""A study's runs as blocks: one row a cycle, one column an experiment.

Runs of one cycle follow each other closely, so what a machine does over hours is the same for all
of them and cancels in differences within the cycle. Whether that is so is looked up in the order
in which the runs really began, not in the planned one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = Mapping[str, Any]
Reals: TypeAlias = NDArray[np.float64]

MIN_COVARIATE_FREEDOM = 8
"""Degrees of freedom that must be left before a covariate is fitted at all."""

COVARIATE_LEVEL = 0.05
"""A covariate is taken out of the differences where its p value is below this."""


@dataclass(frozen=True)
class Blocks:
    """One quantity of a study's runs; every array is cycles by experiments, NaN where no run is.

    Attributes:
        experiments: their ids, one a column.
        cycles: the cycles, one a row.
        logs: natural logarithm of the quantity: differences are ratios.
        places: place of the run in the order in which runs began on its machine, from 1.
        temperatures: start temperature of the warmest GPU, in degrees Celsius.
        hosts: number of the machine.
    """

    experiments: tuple[str, ...]
    cycles: tuple[int, ...]
    logs: Reals
    places: Reals
    temperatures: Reals
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
    logs, order, temperatures, hosts = (np.full(shape, np.nan) for _ in range(4))
    for column, rows in enumerate(used.values()):
        for row in rows:
            at = row_of[row["cycle"]], column
            value, name = row[metric], (row["experiment"], row["cycle"])
            if value is None or not value > 0:
                continue
            logs[at] = np.log(value)
            order[at] = place_of[name]
            hosts[at] = host_of[name]
            if row["start_temperature_celsius"] is not None:
                temperatures[at] = row["start_temperature_celsius"]
    return Blocks(experiments, cycles, logs, order, temperatures, hosts)


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


@dataclass(frozen=True)
class Covariate:
    """A common trend of the logarithm with the order or the start temperature.

    Attributes:
        name: ``order`` (per run) or ``start_temperature`` (per degree Celsius).
        slope: relative change per unit; null where it cannot be told.
        standard_error: of the slope.
        degrees_of_freedom: it rests on.
        p: two-sided p value of no trend.
        used: whether it is taken out of the differences.
        unavailable: why it cannot be told.
    """

    name: str
    slope: float | None = None
    standard_error: float | None = None
    degrees_of_freedom: int | None = None
    p: float | None = None
    used: bool = False
    unavailable: str | None = None


def covariates(data: Blocks) -> list[Covariate]:
    """Return what order and start temperature do to all experiments alike.

    Least squares on the logarithm with a level for each experiment and each cycle (two-way
    "within" estimator: Wooldridge, Econometric Analysis of Cross Section and Panel Data, ch. 10).
    The order is looked at first; the temperature in what it leaves. Each is used only if its p
    value is below :data:`COVARIATE_LEVEL`, because a slope that is not there costs precision.
    """
    found: list[Covariate] = []
    residual = data.logs
    taken: list[Reals] = []
    for name, values in (("order", data.places), ("start_temperature", data.temperatures)):
        covariate, residual = _covariate(name, values, residual, taken)
        if covariate.used:
            taken.append(values)
        found.append(covariate)
    return found


def adjusted(data: Blocks, found: Sequence[Covariate]) -> Reals:
    """Return the logarithms as they would be at the mean order and temperature."""
    logs = data.logs
    for covariate, values in zip(found, (data.places, data.temperatures), strict=True):
        if covariate.used and covariate.slope is not None:
            present = np.isfinite(data.logs)
            logs = logs - covariate.slope * (values - values[present].mean())
    return logs


def _covariate(
    name: str, values: Reals, logs: Reals, taken: Sequence[Reals]
) -> tuple[Covariate, Reals]:
    """Return a covariate's slope and what of the logarithms it leaves."""
    present = np.isfinite(logs)
    if not np.isfinite(values[present]).all() or not present.any():
        return Covariate(name, unavailable="it is not known of every run"), logs
    levels = _levels(present) + len(taken)
    freedom = int(present.sum()) - levels - 1
    if freedom < MIN_COVARIATE_FREEDOM:
        reason = f"{max(freedom, 0)} degrees of freedom are left, {MIN_COVARIATE_FREEDOM} needed"
        return Covariate(name, unavailable=reason), logs
    x = _within(np.where(present, values, np.nan))
    for other in taken:
        z = _within(np.where(present, other, np.nan))
        x = x - z * (np.nansum(x * z) / np.nansum(z * z))
    spread = float(np.nansum(x * x))
    if spread < 1e-9 * max(float(np.nansum((values - np.nanmean(values[present])) ** 2)), 1e-12):
        return Covariate(name, unavailable="it is the same in every cycle"), logs
    y = _within(logs)
    slope = float(np.nansum(x * y)) / spread
    rest = float(np.nansum((y - slope * x) ** 2))
    error = float(np.sqrt(rest / freedom / spread))
    p = _p_value(slope, error, freedom)
    used = p < COVARIATE_LEVEL
    left = logs - slope * (values - values[present].mean()) if used else logs
    return Covariate(name, slope, error, freedom, p, used), left


def _levels(present: NDArray[np.bool_]) -> int:
    """Return how many means the two-way within transform takes out."""
    return int(present.any(axis=0).sum() + present.any(axis=1).sum()) - 1


def _within(values: Reals) -> Reals:
    """Return what is left after the mean of each row and column; exact at once if none lack."""
    present = np.isfinite(values)
    left = np.where(present, values, 0.0)
    in_column = np.maximum(present.sum(axis=0, keepdims=True), 1)
    in_row = np.maximum(present.sum(axis=1, keepdims=True), 1)
    for _ in range(1 if present.all() else 200):
        before = left
        left = np.where(present, left - left.sum(axis=0, keepdims=True) / in_column, 0.0)
        left = np.where(present, left - left.sum(axis=1, keepdims=True) / in_row, 0.0)
        if np.abs(left - before).max(initial=0.0) < 1e-13:
            break
    return np.where(present, left, np.nan)


def _p_value(slope: float, error: float, freedom: int) -> float:
    from scipy.stats import t

    if error == 0:
        return 0.0 if slope else 1.0
    return float(2 * t.sf(abs(slope) / error, freedom))
