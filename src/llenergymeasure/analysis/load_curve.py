"""Power against load, and the load at which a server no longer keeps up.

Below saturation the power of a server is a straight line in its load: a constant, and a part for
each request (L. A. Barroso and U. Hölzle 2007, IEEE Computer 40(12), 33). The
intercept is the power while waiting, the slope the energy of one more request.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from llenergymeasure.analysis.comparable import MACHINE
from llenergymeasure.analysis.selection import Row, in_means, selections
from llenergymeasure.analysis.statistics import COVERAGE_FACTOR, Reals, t_quantile
from llenergymeasure.analysis.summary import knows_ends
from llenergymeasure.energy.window import without
from llenergymeasure.validity_codes import DISQUALIFYING

FEWEST_POINTS = 3
LEAST_APART = 1e-3
"""Loads that differ by less than this share count as the same, without a slope between them."""
MOST_CONDITION = 1e7
"""With a larger condition number, a fit finds only rounding."""
TOO_MANY_FAILED = "failed_requests"

LOAD_SETTINGS = (
    "serving.rate_per_s",
    "serving.rate_end_per_s",
    "serving.concurrency",
    "serving.trace_speed",
)
"""Settings that are the load itself: runs that differ in nothing else lie on one line."""


OWN = ("backend", "model", "precision")
SURROUNDINGS = ("kind", "energy_source", *MACHINE)
"""What two groups that may not be compared can differ in, apart from their settings."""


@dataclass(frozen=True)
class Key:
    """What the runs of a group have in common.

    Attributes:
        group: the number of those that may be compared.
        values: their settings, and the meter and machine of the first, by column.
    """

    group: int | None
    values: tuple[tuple[str, Any], ...]


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
        bent: whether the points show that power is no straight line over these loads.
        idle_w: power of the runs without traffic: their mean, and half width of its interval, 0 of
            a single run; None where there are none.
    """

    intercept_w: float
    intercept_half_w: float
    slope_j: float
    slope_half_j: float
    points: int
    bent: bool = False
    idle_w: tuple[float, float] | None = None

    @property
    def shown(self) -> bool:
        """Whether the runs show that power changes with load."""
        return abs(self.slope_j) > self.slope_half_j


@dataclass(frozen=True)
class Knee:
    """The loads between which a server stops keeping up.

    Attributes:
        sustained_per_s: the highest rate that it kept up with (and, with an slo, kept the slo at);
            None if it did at none.
        failed_per_s: the lowest rate above it that it did not; None if it did at all.
    """

    sustained_per_s: float | None
    failed_per_s: float | None


def load_curve(points: Sequence[LoadPoint]) -> LoadCurve | None:
    """Fit the line by weighted least squares; None with fewer than three different loads.

    Weights are ``1/(u² + s²)``: ``u`` is a point's own uncertainty, nothing if some are not known,
    and ``s`` what runs scatter in addition, so that chi-squared is n - 2 (R. C. Paule and J. Mandel
    1982, J. Res. NBS 87, 377). A run that the meter knows ten times as well as another is not ten
    times nearer to the line. The intervals are Student's t with n - 2 degrees of freedom; that
    of the intercept is at least as wide as that of what all runs of a cycle have in common, which
    the line cannot show. What repeats share is added in quadrature: no number of runs shrinks it.
    """
    if _different([point.load_per_s for point in points]) < FEWEST_POINTS:
        return None
    known = [point.u_w**2 for point in points if point.u_w]
    own = np.array(known) if len(known) == len(points) else np.zeros(len(points))
    loads = np.array([point.load_per_s for point in points])
    powers = np.array([point.power_w for point in points])
    design = np.column_stack((np.ones(len(points)), loads))
    freedom = len(points) - 2
    least, most = (
        1e-18 * (float(powers @ powers) or 1.0),
        float(np.sum((powers - powers.mean()) ** 2)),
    )
    for _ in range(60):
        between = (least + most) / 2
        _, _, chi_squared = _fit(design, powers, own + between)
        least, most = (between, most) if chi_squared > freedom else (least, between)
    (intercept, slope), covariance, _ = _fit(design, powers, own + least)
    half = t_quantile(freedom) * np.sqrt(np.diag(covariance))
    open_w, open_j = _left_open(design, own + least, points)
    by_cycle: dict[int, list[float]] = {}
    for point in points:
        off_w = point.power_w - intercept - slope * point.load_per_s
        by_cycle.setdefault(point.cycle, []).append(off_w)
    of_cycles_w = _mean_half_width([fmean(each) for each in by_cycle.values()])
    idle = [point for point in points if point.load_per_s == 0]
    return LoadCurve(
        intercept_w=float(intercept),
        intercept_half_w=math.hypot(max(float(half[0]), of_cycles_w), open_w),
        slope_j=float(slope),
        slope_half_j=math.hypot(half[1], open_j),
        points=len(points),
        bent=_is_bent(loads, powers, own + least, points),
        idle_w=_idle(idle) if idle else None,
    )


def _idle(points: Sequence[LoadPoint]) -> tuple[float, float]:
    """Return the mean power of runs without traffic, and the half width; 0 of a single run."""
    powers = [point.power_w for point in points]
    if len(points) < 2:
        return powers[0], 0.0
    open_w = fmean(point.shared_w for point in points)
    return fmean(powers), math.hypot(_mean_half_width(powers), open_w)


def _left_open(design: Reals, variances: Reals, points: Sequence[LoadPoint]) -> Reals:
    """Return the half widths of a fit's terms from what repeats share.

    Either all runs are off by their share alike, or those of each experiment by themselves:
    whichever moves a term more.
    """
    shared = np.array([point.shared_w for point in points])
    names = np.array([point.experiment for point in points])
    moved = [_fit(design, shared * (names == name), variances)[0] for name in np.unique(names)]
    most: Reals = np.maximum(np.abs(np.sum(moved, axis=0)), np.linalg.norm(moved, axis=0))
    return most


def _different(loads: Sequence[float]) -> int:
    """Return the number of loads that are over :data:`LEAST_APART` from the next lower one."""
    counted, last = 0, -math.inf
    for load in sorted(loads):
        if load - last > LEAST_APART * load:
            counted, last = counted + 1, load
    return counted


def _mean_half_width(values: Sequence[float]) -> float:
    """Return the half width of the 95 % interval of a mean; 0 of a single value."""
    n = len(values)
    return t_quantile(n - 1) * stdev(values) / math.sqrt(n) if n > 1 else 0.0


def _is_bent(loads: Reals, powers: Reals, variances: Reals, points: Sequence[LoadPoint]) -> bool:
    """Return whether a term in the square of the load is shown at the 5 % level.

    What such a term explains is not scatter: its error comes from the remaining residuals and from
    the sensor's shared uncertainty.
    """
    freedom = len(loads) - 3
    if freedom < 1:
        return False
    off = (loads - loads.mean()) / np.ptp(loads)
    design = np.column_stack((np.ones(len(loads)), off, off**2))
    if np.linalg.cond(design / np.sqrt(variances)[:, None]) > MOST_CONDITION:
        return False
    line, covariance, chi_squared = _fit(design, powers, variances)
    error = np.sqrt(covariance[2, 2] * chi_squared / freedom)
    half = math.hypot(t_quantile(freedom) * error, _left_open(design, variances, points)[2])
    return bool(abs(line[2]) > max(half, 1e-9 * abs(line[1])))


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
        u_w = without(u95_j, shared_j) / COVERAGE_FACTOR / window_s if u95_j else None
        shared_w = (shared_j if knows_ends(run) else u95_j or 0.0) / window_s
        of_run = u_w, run["cycle"], shared_w, run["experiment"]
        points.append(LoadPoint(run["requests_per_s"], power_w, *of_run))
    return points


def find_knee(runs: Sequence[Row]) -> Knee | None:
    """Return where a server stops keeping up, from runs at several rates.

    A rate is sustained if no run at it was over-saturated, missed its slo or had too many requests
    fail, and so was every lower one: a higher rate that succeeded once by chance is no capacity.
    Runs that are disqualified for other reasons say nothing about the server.

    Args:
        runs: rows of ``runs.parquet``.

    Returns:
        None where no run has a rate of its own, as with users in a closed loop.
    """
    by_rate: dict[float, bool] = {}
    for run in runs:
        rate = run.get("serving.rate_per_s")
        if rate is None or run["status"] != "completed" or run["over_saturated"] is None:
            continue
        codes = DISQUALIFYING.intersection(run["validity"] or ())
        if codes - {TOO_MANY_FAILED}:
            continue
        held = not run["over_saturated"] and run["slo_attained"] is not False
        by_rate[rate] = by_rate.get(rate, True) and held and not codes
    if not by_rate:
        return None
    sustained = None
    for rate in sorted(by_rate):
        if not by_rate[rate]:
            return Knee(sustained, rate)
        sustained = rate
    return Knee(sustained, None)


def served_groups(
    runs: Sequence[Row], settings: Sequence[str], group_of: Mapping[str, int | None]
) -> dict[Key, list[Row]]:
    """Return the runs under traffic, grouped by everything but their load.

    Runs that were metered otherwise or made on another machine than most of their experiment are in
    no group, and experiments that may not be compared are in groups of their own.

    Args:
        runs: rows of ``runs.parquet``, those of runs under traffic.
        settings: the columns of the swept settings.
        group_of: the ``comparison_group`` of each experiment.

    Returns:
        The runs of each group, by what they have in common.
    """
    shared = [name for name in settings if name not in LOAD_SETTINGS]
    surroundings: dict[int | None, tuple[tuple[str, Any], ...]] = {}
    groups: dict[Key, list[Row]] = {}
    alike = (run for chosen in selections(runs).values() for run in chosen.alike)
    for run in alike:
        number = group_of.get(run["experiment"])
        around = surroundings.setdefault(number, tuple(_items(run, SURROUNDINGS)))
        key = Key(number, (*_items(run, (*OWN, *shared)), *around))
        groups.setdefault(key, []).append(run)
    return groups


def _items(run: Row, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    return ((name, run[name]) for name in names)
