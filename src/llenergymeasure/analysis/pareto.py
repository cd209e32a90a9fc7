"""Trade-offs: experiments that no other beats in energy and a second objective at once.

The front is that of the means. How it would look with other cycles is shown by resampling: each
draw takes whole cycles, so that what all experiments of a cycle share stays shared. The share of
draws in which an experiment is on the front is a description and no test: of many equal experiments
most are off the front in nearly all draws. Whether another one really beats an experiment in both
is a test of its own, corrected for all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.pairwise_comparison import MAX_ALL_PAIRS
from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.statistics import (
    ROUNDING_REL,
    Reals,
    column_means,
    column_variances,
    finite,
    holm,
    t_sf,
)

ENERGY = "energy_per_output_token_j"
OBJECTIVES: dict[str, Literal["min", "max"]] = {
    "request_latency_p50_s": "min",
    "request_latency_p95_s": "min",
    "time_to_first_token_p50_s": "min",
    "output_tokens_per_s": "max",
    "peak_memory_bytes": "min",
    "perplexity": "min",
    "quality_score": "max",
}
"""What energy is traded against, and which way is better; those that no run has are passed over."""

MEMORY = "peak_memory_bytes"
UNLIKE_MEMORY = "on_front: engines take memory unlike, some of them all that they may"
"""vLLM takes its cache whole when it starts, used or not."""

BOOTSTRAP_DRAWS = 1000

MIN_CYCLES = 5
"""Fewer cycles can be drawn in too few ways for a share to mean anything."""

EQUAL_DIGITS = 12
"""Means that agree in so many significant digits are equal: what is left is the arithmetic's."""

MAX_NUMBERS_AT_ONCE = 4_000_000
"""Numbers held at once, so that memory does not grow with the experiments."""


@dataclass(frozen=True)
class Point:
    """One experiment between energy and another objective: a row of ``pareto.parquet``.

    Attributes:
        objective: the other objective.
        direction: ``min`` or ``max``: which way is better.
        experiment: its id.
        label: its short name.
        energy_per_output_token_j: its mean, in J.
        value: its mean of the objective.
        on_front: whether no other experiment is at least as good in both and better in one; None
            of memory where several engines took it.
        front_share: share of resampled studies in which it is on the front; None with fewer than
            :data:`MIN_CYCLES` cycles.
        beaten_p_holm: p value of there being none that beats it in both, corrected for all
            experiments; None beyond :data:`MAX_ALL_PAIRS` of them.
        dominated_by: of those that beat it, the one with the least energy.
        unavailable: what is not known, and why.
    """

    objective: str
    direction: str
    experiment: str
    label: str = ""
    energy_per_output_token_j: float | None = None
    value: float | None = None
    on_front: bool | None = None
    front_share: float | None = None
    beaten_p_holm: float | None = None
    dominated_by: str | None = None
    unavailable: str | None = None


def pareto(used: Mapping[str, Sequence[Row]], seed: Sequence[int]) -> list[Point]:
    """Return every experiment's place for each objective that the runs have.

    Args:
        used: the runs in the mean of each experiment.
        seed: of the draws.
    """
    points: list[Point] = []
    for objective in OBJECTIVES:
        objective_points = list(_points(used, objective, seed))
        if any(point.value is not None for point in objective_points):
            points += objective_points
    return points


def front(energy: Reals, value: Reals) -> NDArray[np.bool_]:
    """Return which points of each row are on its front; less of both is better.

    Args:
        energy: one row a draw, one column an experiment; NaN where there is no value.
        value: the same shape.
    """
    present = np.isfinite(energy) & np.isfinite(value)
    x = np.where(present, energy, np.inf)
    y = np.where(present, value, np.inf)
    order = np.lexsort((y, x), axis=-1)
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    best = np.minimum.accumulate(y, axis=-1)
    best_before = np.concatenate([np.full((len(y), 1), np.inf), best[:, :-1]], axis=-1)
    repeated = np.zeros_like(present)
    repeated[:, 1:] = (x[:, 1:] == x[:, :-1]) & (y[:, 1:] == y[:, :-1])
    sorted_front = y < best_before
    for column in range(1, y.shape[1]):  # equals of a point on the front are on it too
        if repeated[:, column].any():
            sorted_front[:, column] |= repeated[:, column] & sorted_front[:, column - 1]
    is_on_front = np.zeros_like(present)
    np.put_along_axis(is_on_front, order, sorted_front, -1)
    return is_on_front & present


def _points(
    used: Mapping[str, Sequence[Row]], objective: str, seed: Sequence[int]
) -> Iterator[Point]:
    direction = OBJECTIVES[objective]
    sign = 1.0 if direction == "min" else -1.0
    cycles = sorted({row["cycle"] for rows in used.values() for row in rows})
    energy, value = (_by_cycle(used, cycles, name) for name in (ENERGY, objective))
    value = value * sign
    run_counts = np.array([len(rows) for rows in used.values()])
    complete = (np.isfinite(energy) & np.isfinite(value)).sum(axis=0) == run_counts
    energy, value = np.where(complete, energy, np.nan), np.where(complete, value, np.nan)
    ones = np.ones((1, len(cycles)))
    mean_energy, mean_value = _weighted_means(ones, energy), _weighted_means(ones, value)
    is_on_front = front(mean_energy, mean_value)[0]
    shares = _front_shares(energy, value, seed)
    p_values = _domination_p(energy, value)
    dominating = _dominating_columns(mean_energy[0], mean_value[0], is_on_front)
    engines = {
        row.get("backend")
        for rows, is_complete in zip(used.values(), complete, strict=True)
        for row in rows
        if is_complete
    }
    memory_unlike = objective == MEMORY and len(engines) > 1
    experiments = list(used)
    for column, experiment in enumerate(experiments):
        point = Point(objective, direction, experiment)
        if not complete[column]:
            reason = f"not every run in the mean has both {ENERGY} and {objective}"
            yield replace(point, unavailable=reason)
            continue
        point = replace(
            point,
            energy_per_output_token_j=float(mean_energy[0, column]),
            value=float(sign * mean_value[0, column]),
        )
        if memory_unlike:
            yield replace(point, unavailable=UNLIKE_MEMORY)
            continue
        share = finite(shares[column])
        yield replace(
            point,
            on_front=bool(is_on_front[column]),
            front_share=share,
            beaten_p_holm=finite(p_values[column]),
            dominated_by=None if dominating[column] < 0 else experiments[dominating[column]],
            unavailable=None if share is not None else f"front_share: it needs {MIN_CYCLES} cycles",
        )


def _by_cycle(used: Mapping[str, Sequence[Row]], cycles: Sequence[int], name: str) -> Reals:
    row_by_cycle = {cycle: number for number, cycle in enumerate(cycles)}
    values = np.full((len(cycles), len(used)), np.nan)
    for column, rows in enumerate(used.values()):
        for row in rows:
            if row.get(name) is not None:
                values[row_by_cycle[row["cycle"]], column] = row[name]
    return values


def _weighted_means(weights: Reals, values: Reals) -> Reals:
    """Return the mean of each column under each row of weights; NaN where nothing weighs.

    A product of matrices may add up its columns in different orders: without rounding, means of
    the same values could differ in the last bit and one would "beat" the other.
    """
    present = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = weights @ np.where(present, values, 0.0)
        means: Reals = sums / (weights @ present.astype(float))
    return _rounded(means)


def _rounded(values: Reals) -> Reals:
    """Return values to :data:`EQUAL_DIGITS` significant digits, so that equal means are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(values == 0, 0.0, np.floor(np.log10(np.abs(values))))
    scale = 10.0 ** (EQUAL_DIGITS - 1 - magnitude)
    rounded: Reals = np.round(values * scale) / scale
    return rounded


def _front_shares(energy: Reals, value: Reals, seed: Sequence[int]) -> Reals:
    """Return each experiment's share of draws on the front, of those in which it has a run."""
    cycles, experiments = energy.shape
    if cycles < MIN_CYCLES:
        return np.full(experiments, np.nan)
    rng = np.random.default_rng(seed)
    on_front, present = np.zeros(experiments), np.zeros(experiments)
    draws_left = BOOTSTRAP_DRAWS
    while draws_left:
        batch = max(1, min(draws_left, MAX_NUMBERS_AT_ONCE // max(experiments, 1)))
        weights = rng.multinomial(cycles, np.full(cycles, 1 / cycles), size=batch).astype(float)
        mean_energy = _weighted_means(weights, energy)
        on_front += front(mean_energy, _weighted_means(weights, value)).sum(axis=0)
        present += np.isfinite(mean_energy).sum(axis=0)
        draws_left -= batch
    repeated = np.isfinite(energy).sum(axis=0) >= MIN_CYCLES
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: Reals = np.where(repeated & (present > 0), on_front / present, np.nan)
    return shares


def _domination_p(energy: Reals, value: Reals) -> Reals:
    """Return each experiment's p value of there being no other that beats it in both.

    Another one beats it only if it is better in each of the two, so the larger p value of the two
    counts (intersection-union test: Berger 1982, Technometrics 24, 295-300). The least over the
    others is corrected for their number (Bonferroni), and then for all experiments (Holm).
    """
    experiments = energy.shape[1]
    if not 1 < experiments <= MAX_ALL_PAIRS:
        return np.full(experiments, np.nan)
    p_values = np.maximum(_p_no_better(energy, ties=False), _p_no_better(value, ties=True))
    p_values[~np.isfinite(p_values)] = 1.0
    has_data = np.isfinite(energy).any(axis=0)
    others = max(np.count_nonzero(has_data) - 1, 1)
    smallest = np.minimum(p_values.min(axis=1) * others, 1.0)
    return holm(np.where(has_data, smallest, np.nan))


def _p_no_better(values: Reals, *, ties: bool) -> Reals:
    """Return the one-sided p value of column j being no better than column i, by i and j.

    The t test is paired by cycle. Where all differences are the same there is nothing to test: with
    ``ties``, as of a score that every cycle repeats, it is as good or it is not; otherwise nothing
    shows that it is better, as repeats that do not scatter do not say how sure they are.
    """
    differences = values[:, :, None] - values[:, None, :]
    n = np.isfinite(differences).sum(axis=0)
    center, error = column_means(differences), np.sqrt(column_variances(differences) / n)
    rounding = ROUNDING_REL * np.abs(column_means(values))[:, None]
    exact = error <= rounding
    better = (center >= -rounding) & ties
    with np.errstate(invalid="ignore", divide="ignore"):
        p_values: Reals = np.where(exact, np.where(better, 0.0, 1.0), t_sf(center / error, n - 1))
    return p_values


def _dominating_columns(
    energy: Reals, value: Reals, on_front: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the column of the least-energy front point that beats each one; -1 for none."""
    dominating = np.full(len(energy), -1, np.intp)
    best = np.flatnonzero(on_front)
    best = best[np.argsort(energy[best], kind="stable")]
    for column in np.flatnonzero(~on_front & np.isfinite(energy)):
        better = best[(energy[best] <= energy[column]) & (value[best] <= value[column])]
        dominating[column] = better[0]
    return dominating
