"""Power against load.

Below saturation the power of a server is a straight line in its load: a constant, and a part for
each request (L. A. Barroso and U. Hölzle 2007, IEEE Computer 40(12), 33). The
intercept is the power while waiting, the slope the energy of one more request.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, stdev
from typing import Any

import numpy as np

from llenergymeasure.analysis.comparable import MACHINE
from llenergymeasure.analysis.selection import Row, in_means, selections
from llenergymeasure.analysis.statistics import ROUNDING_REL, Reals, f_isf, t_quantile
from llenergymeasure.analysis.summary import records_window_ends
from llenergymeasure.energy.window import quadrature_difference
from llenergymeasure.units import COVERAGE_FACTOR

MIN_LOADS = 3
MIN_LOAD_GAP = 1e-3
"""Loads that differ by less than this share count as the same, without a slope between them."""
MAX_CONDITION = 1e7
"""With a larger condition number, a fit finds only rounding."""
LACK_OF_FIT_LEVEL = 0.05

LOAD_SETTINGS = (
    "serving.rate_per_s",
    "serving.rate_end_per_s",
    "serving.concurrency",
    "serving.trace_speed",
)
"""Settings that are the load itself: runs that differ in nothing else lie on one line."""


EXPERIMENT_COLUMNS = ("backend", "model", "precision")
SURROUNDINGS = ("kind", "energy_source", *MACHINE)
"""What two groups that may not be compared can differ in, apart from their settings."""


@dataclass(frozen=True)
class GroupKey:
    """What the runs of a group have in common.

    Attributes:
        group: the number of those that may be compared.
        values: their settings, and the meter and machine of the first, by column.
    """

    group: int | None
    values: tuple[tuple[str, Any], ...]

    @property
    def settings(self) -> tuple[tuple[str, Any], ...]:
        """Those of :attr:`values` that a planned run without a result has as well."""
        return self.values[: -len(SURROUNDINGS)]


@dataclass(frozen=True)
class LoadPoint:
    """One run: its load, its power, and the uncertainty of that.

    Attributes:
        load_per_s: requests answered per second.
        power_w: mean power of the window.
        u_w: standard uncertainty of the power by what differs from run to run; None where it is not
            known.
        cycle: the run's: runs of a cycle may all be off alike.
        shared_w: half width of the 95 % interval of what repeats share.
        experiment: the run's: its repeats are those of one experiment.
    """

    load_per_s: float
    power_w: float
    u_w: float | None = None
    cycle: int = 0
    shared_w: float = 0.0
    experiment: str = ""


@dataclass(frozen=True)
class LoadCurve:
    """Power = intercept + slope · load, with the half widths of the 95 % intervals.

    Attributes:
        intercept_w: power at no load.
        intercept_half_w: half width of its interval.
        slope_j: energy of one request more, in J.
        slope_half_j: half width of its interval.
        points: how many it rests on.
        off_line: whether the experiments' means are off the line by more than their runs explain.
        bent: whether the points show that power is no straight line over these loads.
        idle_w: power of the runs without traffic: their mean, and half width of its interval, 0 of
            a single run; None where there are none.
    """

    intercept_w: float
    intercept_half_w: float
    slope_j: float
    slope_half_j: float
    points: int
    off_line: bool = False
    bent: bool = False
    idle_w: tuple[float, float] | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the runs show that power changes with load."""
        return abs(self.slope_j) > self.slope_half_j


def load_curve(points: Sequence[LoadPoint]) -> LoadCurve | None:
    """Fit the line by weighted least squares; None with fewer than three different loads.

    Weights are ``1/(u² + s²)``: ``u`` is a point's own uncertainty, nothing if some are not known,
    and ``s`` what runs scatter in addition, so that chi-squared is n - 2 (R. C. Paule and J. Mandel
    1982, J. Res. NBS 87, 377). A run that the meter knows ten times as well as another is not ten
    times nearer to the line. The intervals are Student's t with n - 2 degrees of freedom, or those
    of the experiments' means where these are off the line by more than their runs explain; that of
    the intercept is at least as wide as that of what all runs of a cycle have in common, which the
    line cannot show. What repeats share is added in quadrature: no number of runs shrinks it.
    """
    if _distinct_count([point.load_per_s for point in points]) < MIN_LOADS:
        return None
    squared_errors = [point.u_w**2 for point in points if point.u_w]
    if len(squared_errors) < len(points):
        squared_errors = [0.0] * len(points)
    variances = np.array(squared_errors)
    loads = np.array([point.load_per_s for point in points])
    powers = np.array([point.power_w for point in points])
    design = np.column_stack((np.ones(len(points)), loads))
    freedom = len(points) - 2
    low = 1e-18 * (float(powers @ powers) or 1.0)
    high = float(np.sum((powers - powers.mean()) ** 2))
    for _ in range(60):
        scatter = (low + high) / 2
        _, _, chi_squared = _fit(design, powers, variances + scatter)
        low, high = (scatter, high) if chi_squared > freedom else (low, scatter)
    variances += low
    line, covariance, _ = _fit(design, powers, variances)
    intercept, slope = line
    half_widths, off_line = _half_widths(powers - design @ line, variances, covariance, points)
    shared_w, shared_j = _shared_half_widths(design, variances, points)
    residuals_w: dict[int, list[float]] = {}
    for point in points:
        residual_w = point.power_w - intercept - slope * point.load_per_s
        residuals_w.setdefault(point.cycle, []).append(residual_w)
    cycles_half_w = _mean_half_width([fmean(values_w) for values_w in residuals_w.values()])
    idle_points = [point for point in points if point.load_per_s == 0]
    return LoadCurve(
        intercept_w=float(intercept),
        intercept_half_w=math.hypot(max(float(half_widths[0]), cycles_half_w), shared_w),
        slope_j=float(slope),
        slope_half_j=math.hypot(half_widths[1], shared_j),
        points=len(points),
        off_line=off_line,
        bent=_is_bent(loads, powers, variances, points),
        idle_w=_idle_power(idle_points) if idle_points else None,
    )


def _half_widths(
    residuals_w: Reals, variances: Reals, covariance: Reals, points: Sequence[LoadPoint]
) -> tuple[Reals, bool]:
    """Return the half widths of a fit's terms from what runs scatter, and whether it lacks fit.

    If the experiments' means are further from it than their runs scatter (F test of the lack of
    fit), each start of a server, or each load, is off by itself, and experiments are the points.
    """
    errors: Reals = np.sqrt(np.diag(covariance))
    names, places = np.unique([point.experiment for point in points], return_inverse=True)
    weighted = np.bincount(places, residuals_w / variances)
    between = float(np.sum(weighted**2 / np.bincount(places, 1 / variances)))
    within = float(np.sum(residuals_w**2 / variances)) - between
    freedom, rest_freedom = len(names) - len(errors), len(points) - len(names)
    if min(freedom, rest_freedom) > 0:
        limit = f_isf(LACK_OF_FIT_LEVEL, freedom, rest_freedom)
        if between * rest_freedom > limit * within * freedom:
            return t_quantile(freedom) * errors * max(math.sqrt(between / freedom), 1.0), True
    return t_quantile(len(points) - len(errors)) * errors, False


def _idle_power(points: Sequence[LoadPoint]) -> tuple[float, float]:
    """Return the mean power of runs without traffic, and the half width; 0 of a single run."""
    powers = [point.power_w for point in points]
    if len(points) < 2:
        return powers[0], 0.0
    shared_w = fmean(point.shared_w for point in points)
    return fmean(powers), math.hypot(_mean_half_width(powers), shared_w)


def _shared_half_widths(design: Reals, variances: Reals, points: Sequence[LoadPoint]) -> Reals:
    """Return the half widths of a fit's terms from what repeats share.

    Either all runs are off by their share alike, or those of each experiment by themselves:
    whichever moves a term more.
    """
    shared_w = np.array([point.shared_w for point in points])
    names = np.array([point.experiment for point in points])
    shifts = [_fit(design, shared_w * (names == name), variances)[0] for name in np.unique(names)]
    half_widths: Reals = np.maximum(np.abs(np.sum(shifts, axis=0)), np.linalg.norm(shifts, axis=0))
    return half_widths


def _distinct_count(loads: Sequence[float]) -> int:
    """Return the number of loads that are over :data:`MIN_LOAD_GAP` from the next lower one."""
    count, previous = 0, -math.inf
    for load in sorted(loads):
        if load - previous > MIN_LOAD_GAP * load:
            count, previous = count + 1, load
    return count


def _mean_half_width(values: Sequence[float]) -> float:
    """Return the half width of the 95 % interval of a mean; 0 of a single value."""
    n = len(values)
    return t_quantile(n - 1) * stdev(values) / math.sqrt(n) if n > 1 else 0.0


def _is_bent(loads: Reals, powers: Reals, variances: Reals, points: Sequence[LoadPoint]) -> bool:
    """Return whether a term in the square of the load is shown at the 5 % level.

    What such a term explains is not scatter: its error comes from the remaining residuals, as that
    of a line does, and from the sensor's shared uncertainty.
    """
    freedom = len(loads) - 3
    if freedom < 1:
        return False
    scaled = (loads - loads.mean()) / np.ptp(loads)
    design = np.column_stack((np.ones(len(loads)), scaled, scaled**2))
    if np.linalg.cond(design / np.sqrt(variances)[:, None]) > MAX_CONDITION:
        return False
    line, covariance, chi_squared = _fit(design, powers, variances)
    rest = max(chi_squared / freedom, ROUNDING_REL)
    residuals_w = powers - design @ line
    random, _ = _half_widths(residuals_w, rest * variances, rest * covariance, points)
    half_width = math.hypot(random[2], _shared_half_widths(design, variances, points)[2])
    return bool(abs(line[2]) > max(half_width, 1e-9 * abs(line[1])))


def _fit(design: Reals, powers: Reals, variances: Reals) -> tuple[Reals, Reals, float]:
    """Return a weighted line, its covariance, and chi-squared."""
    inverse = np.linalg.inv(design.T @ (design / variances[:, None]))
    covariance: Reals = np.asarray(inverse, np.float64)
    line: Reals = covariance @ (design.T @ (powers / variances))
    return line, covariance, float(np.sum((powers - design @ line) ** 2 / variances))


def load_points(runs: Sequence[Row]) -> list[LoadPoint]:
    """Return the points of runs that count, keep up, and have a measured energy.

    The slope of an estimated energy would be that of the model behind the estimate.

    Args:
        runs: rows of ``runs.parquet``.
    """
    points = []
    for run in runs:
        power_w, window_s = run["power_mean_w"], run["window_s"]
        if not in_means(run) or run["over_saturated"]:
            continue
        if power_w is None or run["kind"] != "measured":
            continue
        u95_j, shared_j = run["energy_u95_j"], run["energy_shared_u95_j"] or 0.0
        u_w = quadrature_difference(u95_j, shared_j) / COVERAGE_FACTOR / window_s if u95_j else None
        shared_w = (shared_j if records_window_ends(run) else u95_j or 0.0) / window_s
        points.append(
            LoadPoint(
                run["requests_per_s"], power_w, u_w, run["cycle"], shared_w, run["experiment"]
            )
        )
    return points


def served_groups(
    runs: Sequence[Row], settings: Sequence[str], group_by_experiment: Mapping[str, int | None]
) -> dict[GroupKey, list[Row]]:
    """Return the runs under traffic, grouped by everything but their load.

    Runs that were metered otherwise or made on another machine than most of their experiment are in
    no group, and experiments that may not be compared are in groups of their own.

    Args:
        runs: rows of ``runs.parquet``, those of runs under traffic.
        settings: the columns of the swept settings.
        group_by_experiment: the ``comparison_group`` of each experiment.

    Returns:
        The runs of each group, by what they have in common.
    """
    surroundings_by_group: dict[int | None, tuple[tuple[str, Any], ...]] = {}
    groups: dict[GroupKey, list[Row]] = {}
    for run in chain.from_iterable(
        selection.matching_runs for selection in selections(runs).values()
    ):
        group = group_by_experiment.get(run["experiment"])
        surroundings = surroundings_by_group.setdefault(group, tuple(_items(run, SURROUNDINGS)))
        key = GroupKey(group, (*_shared_settings(run, settings), *surroundings))
        groups.setdefault(key, []).append(run)
    return groups


def runs_without_result(
    runs: Sequence[Row], settings: Sequence[str], groups: Mapping[GroupKey, Sequence[Row]]
) -> dict[GroupKey, list[Row]]:
    """Return the runs that would be in each of :func:`served_groups` and did not complete.

    Those of an experiment without any result may belong to several groups, as their meter and
    machine are not known.

    Args:
        runs: rows of ``runs.parquet``.
        settings: the columns of the swept settings.
        groups: the runs of each group.
    """
    by_settings: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for run in runs:
        if run["status"] != "completed":
            by_settings.setdefault(tuple(_shared_settings(run, settings)), []).append(run)
    group_of = {run["experiment"]: key for key, members in groups.items() for run in members}
    return {
        key: [
            run
            for run in by_settings.get(key.settings, ())
            if group_of.get(run["experiment"], key) == key
        ]
        for key in groups
    }


def _shared_settings(run: Row, settings: Sequence[str]) -> Iterator[tuple[str, Any]]:
    shared = [name for name in settings if name not in LOAD_SETTINGS]
    return _items(run, (*EXPERIMENT_COLUMNS, *shared))


def _items(run: Row, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    return ((name, run[name]) for name in names)
