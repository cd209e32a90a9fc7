"""What each value of a swept setting does to a quantity, the other settings being equal.

Least squares on the logarithm of the quantity, with a coefficient for each value of each setting
and each cycle. Effects on a logarithm are ratios: a setting that saves 10 % everywhere has one
effect. Experiments without data are left out: a value without data has no effect to report, and is
never the reference.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.blocks import Blocks, centred
from llenergymeasure.analysis.statistics import (
    ROUNDING_REL,
    Reals,
    f_isf,
    holm_optional,
    t_quantile,
    t_sf,
)

MAX_COLUMNS = 400
"""With more columns in the model, there is no table."""

RANK_TOLERANCE = 1e-9

MIN_CYCLES = 5
"""From so many cycles on, a level's interval rests on the spread between them."""

UNLIKE_LEVEL = 0.05
"""Of fewer cycles too, where runs that all spread alike have such cycles more rarely than this."""

Levels: TypeAlias = Mapping[str, Sequence[Any]]
"""Each factor's value in each experiment."""

NO_DATA = "no data: no run in the means has this quantity"
ALIASED = "ratio: it cannot be distinguished from other settings that change with it"
NO_REPEATS = "interval: no repeats are left to judge it by"


@dataclass(frozen=True)
class Level:
    """What one level of a factor does, the others being equal: a row of ``levels.parquet``.

    Attributes:
        metric: the quantity.
        factor: the setting.
        level: its value, as text.
        reference: the value compared with, the first in the study that has data.
        ratio: of geometric means, over all settings of the others and all cycles.
        ci95_low: lower end of the 95 % t interval.
        ci95_high: upper end.
        p: two-sided p value of no difference.
        p_holm: the same, corrected for all levels of the quantity.
        unavailable: what is not known, and why.
    """

    metric: str = field(default="", kw_only=True)
    factor: str
    level: str
    reference: str
    ratio: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    unavailable: str | None = None


def levels(data: Blocks, factors: Levels) -> list[Level]:
    """Return every level of every factor against its first with data.

    Args:
        data: one quantity of the study's runs.
        factors: the settings that vary, each with a value for each experiment of ``data``.
    """
    present = np.isfinite(data.logs)
    has_data = [bool(column.any()) for column in present.T]
    if not any(has_data):
        return []
    logs = data.logs[present.any(axis=1)][:, has_data]
    all_factors = [_factor(name, values, has_data) for name, values in factors.items()]
    varying = [factor for factor in all_factors if len(factor.levels) > 1]
    rows = [
        Level(factor.name, level, factor.levels[0])
        for factor in varying
        for level in factor.levels[1:]
    ]
    width = len(rows) + len(logs)
    if width > MAX_COLUMNS:
        reason = f"the settings have {width} levels together; up to {MAX_COLUMNS} are analysed"
        rows = [replace(row, unavailable=reason) for row in rows]
    elif varying:
        rows = list(_with_ratios(logs, varying, rows))
    rows += [
        Level(factor.name, level, factor.levels[0], unavailable=NO_DATA)
        for factor in all_factors
        for level in factor.empty
    ]
    corrected = holm_optional([row.p for row in rows])
    return [replace(row, p_holm=p_holm) for row, p_holm in zip(rows, corrected, strict=True)]


@dataclass(frozen=True)
class _Factor:
    """A setting of the experiments with data.

    Attributes:
        name: of the setting.
        levels: its values that have data, in the order of the study.
        empty: its values that have none.
        codes: for each experiment with data, which of ``levels`` it has.
    """

    name: str
    levels: tuple[str, ...]
    empty: tuple[str, ...]
    codes: NDArray[np.intp]


def _factor(name: str, values: Sequence[Any], has_data: Sequence[bool]) -> _Factor:
    # A failed run may lack some of its settings: there, None is no level.
    texts = [
        level_text(value)
        for value, is_known in zip(values, has_data, strict=True)
        if is_known or value is not None
    ]
    observed = [level_text(value) for value in compress(values, has_data)]
    with_data = set(observed)
    levels = [level for level in dict.fromkeys(texts) if level in with_data]
    empty = [level for level in dict.fromkeys(texts) if level not in with_data]
    code_by_level = {level: code for code, level in enumerate(levels)}
    codes = np.array([code_by_level[value] for value in observed], np.intp)
    return _Factor(name, tuple(levels), tuple(empty), codes)


def _with_ratios(logs: Reals, factors: Sequence[_Factor], rows: Sequence[Level]) -> Iterator[Level]:
    """Yield each level with its ratio to the first of its factor."""
    constant = np.ones((logs.shape[1], 1))
    design = np.hstack([constant, *(_dummies(factor.codes) for factor in factors)])
    cycles, experiments = np.nonzero(np.isfinite(logs))
    x, y = np.hstack([design[experiments], _dummies(cycles)]), logs[cycles, experiments]
    gram = x.T @ x
    inverse = np.linalg.pinv(gram, rcond=RANK_TOLERANCE, hermitian=True)
    centers = inverse @ x.T @ (y - y.mean())
    is_estimable = np.isclose(gram @ inverse, np.eye(len(gram)), atol=1e-6).all(axis=0)
    errors, freedom = _errors(logs, design, np.diag(inverse))
    for column, level in enumerate(rows, start=1):
        center, error = float(centers[column]), float(errors[column])
        if not is_estimable[column]:
            yield replace(level, unavailable=ALIASED)
        elif not error > ROUNDING_REL:
            yield replace(level, ratio=math.exp(center), unavailable=NO_REPEATS)
        else:
            half_width = t_quantile(float(freedom[column])) * error
            ratio, low, high = np.exp([center, center - half_width, center + half_width]).tolist()
            p = float(2 * t_sf(abs(center) / error, freedom[column]))
            yield replace(level, ratio=ratio, ci95_low=low, ci95_high=high, p=p)


def _errors(logs: Reals, design: Reals, variances: Reals) -> tuple[Reals, Reals]:
    """Return the coefficients' standard errors and their degrees of freedom.

    Where every one of many cycles holds every experiment, the coefficients are the means of those
    of its cycles, whose spread is right however unlike the experiments' own are. Otherwise the
    runs' spread around the levels of their experiment and cycle is taken to be the same for all,
    unless the F test of what is between whole cycles against the rest speaks against that.
    """
    present = np.isfinite(logs)
    cycles, experiments = logs.shape
    whole_cycles, cycle_errors = logs[present.all(axis=1)], np.zeros(design.shape[1])
    if len(whole_cycles) > 1:
        coefficients = np.linalg.pinv(design) @ whole_cycles.T
        cycle_errors = coefficients.std(axis=1, ddof=1) / math.sqrt(len(whole_cycles))
    cycle_freedom = np.full(len(cycle_errors), len(whole_cycles) - 1.0)
    if cycles >= MIN_CYCLES and present.all():
        return cycle_errors, cycle_freedom
    freedom = int(present.sum()) - experiments - cycles + 1
    variance = (
        float(np.nansum(centred(logs, by_cycle=True) ** 2)) / freedom if freedom > 0 else np.nan
    )
    pooled_errors = np.sqrt(np.maximum(variances, 0.0) * variance)[: len(cycle_errors)]
    rest_freedom = freedom - cycle_freedom
    explained = cycle_errors**2 * cycle_freedom
    limit = f_isf(UNLIKE_LEVEL, cycle_freedom, rest_freedom)
    unexplained = pooled_errors**2 * freedom - explained
    by_cycles = explained * rest_freedom > limit * cycle_freedom * unexplained
    errors = np.where(by_cycles, cycle_errors, pooled_errors)
    return errors, np.where(by_cycles, cycle_freedom, freedom)


def _dummies(codes: NDArray[np.intp]) -> Reals:
    """Return one column for each level but the first."""
    columns: Reals = (codes[:, None] == np.arange(1, int(codes.max()) + 1)).astype(np.float64)
    return columns


def level_text(value: Any) -> str:
    """Return a setting's value as the text of its level."""
    if isinstance(value, bool):
        return str(value).lower()
    return "not set" if value is None else str(value)
