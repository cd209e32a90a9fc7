"""Main effects and two-way interactions of the swept settings.

Analysis of variance on the logarithm of a quantity, with the cycles as blocks and the order and
start temperature as covariates where they matter. Each term is tested against the model of all
main effects and two-way interactions, with what stands above it left out ("type II": Langsrud
2003, Stat. Comput. 13, 163-167), so that unequal numbers of runs do not favour the first factor.
Effects on a logarithm are ratios: a setting that saves 10 % everywhere has no interaction.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from llenergymeasure.analysis.blocks import Blocks, Covariate, Reals, covariates
from llenergymeasure.analysis.comparison import ROUNDING, holm
from llenergymeasure.analysis.statistics import t_quantile

MAX_COLUMNS = 400
"""Columns of the model beyond which interactions, and then the whole table, are left out."""

RANK_TOLERANCE = 1e-9

MIN_CYCLES = 5
"""From so many cycles on, a level's interval rests on the spread between them."""

Levels = Mapping[str, Sequence[Any]]
"""Of each factor, its value in each experiment."""


@dataclass(frozen=True)
class Term:
    """How much of the variation one term explains.

    Attributes:
        term: ``backend``, ``backend x precision``, ``cycle``, ``order``, …
        role: ``main``, ``interaction``, ``block``, ``covariate`` or ``residual``.
        degrees_of_freedom: that it takes.
        sum_of_squares: of the logarithm, that it explains beyond the others.
        share: that over the total variation between all runs; null for the residual of none.
        f: its mean square over the residual's.
        p: p value of no effect.
        p_holm: the same, corrected for all main effects and interactions of the quantity.
        slope: of a covariate, relative change a unit.
        unavailable: why there is no test.
    """

    term: str
    role: str
    degrees_of_freedom: int | None = None
    sum_of_squares: float | None = None
    share: float | None = None
    f: float | None = None
    p: float | None = None
    p_holm: float | None = None
    slope: float | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Level:
    """What one level of a factor does, the others being equal.

    Attributes:
        factor: the setting.
        level: its value, as text.
        reference: the value compared with, the first in the study.
        ratio: of geometric means, over all settings of the others and all cycles.
        ci95_low: lower end of the 95 % t interval.
        ci95_high: upper end.
        p: two-sided p value of no difference.
        unavailable: what cannot be told, and why.
    """

    factor: str
    level: str
    reference: str
    ratio: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    p: float | None = None
    unavailable: str | None = None


def effects(data: Blocks, factors: Levels) -> tuple[list[Term], list[Level]]:
    """Return the table of terms, and every level of every factor against its first.

    Args:
        data: one quantity of the study's runs.
        factors: the settings that vary, each with a value for each experiment of ``data``.
    """
    varying = {name: [_text(v) for v in values] for name, values in factors.items()}
    varying = {name: values for name, values in varying.items() if len(set(values)) > 1}
    present = np.isfinite(data.logs)
    if not varying or not present.any():
        return [], []
    width = sum(len(set(values)) - 1 for values in varying.values()) + int(present.shape[0])
    if width > MAX_COLUMNS:
        reason = f"the settings have {width} levels together; up to {MAX_COLUMNS} are analysed"
        return [Term(name, "main", unavailable=reason) for name in varying], []
    found = covariates(data)
    model = _Model(data, varying, found)
    return _terms(model, found), list(_levels(model, _by_cycle(data, varying, found)))


class _Model:
    """The design as columns in groups, and its normal equations."""

    def __init__(self, data: Blocks, factors: Levels, found: Sequence[Covariate]) -> None:
        rows, columns = np.nonzero(np.isfinite(data.logs))
        y = data.logs[rows, columns]
        self.n = len(y)
        self.factors = factors
        self.level_names = {name: list(dict.fromkeys(values)) for name, values in factors.items()}
        coded = {
            name: np.array([self.level_names[name].index(v) for v in values])[columns]
            for name, values in factors.items()
        }
        parts: dict[str, Reals] = {"mean": np.ones((self.n, 1))}
        self.role: dict[str, str] = {}
        if len(set(rows)) > 1:
            parts["cycle"] = _dummies(np.unique(rows, return_inverse=True)[1])
            self.role["cycle"] = "block"
        for each, values in zip(found, (data.places, data.temperatures), strict=True):
            if each.used:
                column = values[rows, columns]
                parts[each.name] = ((column - column.mean()) / np.ptp(column))[:, None]
                self.role[each.name] = "covariate"
        for name, codes in coded.items():
            parts[name] = _dummies(codes)
            self.role[name] = "main"
        width = sum(part.shape[1] for part in parts.values())
        self.left_out: list[str] = []
        for one, other in combinations(factors, 2):
            name = f"{one} x {other}"
            added = parts[one].shape[1] * parts[other].shape[1]
            if width + added > MAX_COLUMNS:
                self.left_out.append(name)
                continue
            width += added
            parts[name] = _products(parts[one], parts[other])
            self.role[name] = "interaction"
        self.groups: dict[str, slice] = {}
        start = 0
        for name, part in parts.items():
            self.groups[name] = slice(start, start + part.shape[1])
            start += part.shape[1]
        x = np.hstack(list(parts.values()))
        y = y - y.mean()
        self.gram, self.moment, self.total = x.T @ x, x.T @ y, float(y @ y)
        self.rest, self.rank, _ = self.fit(list(self.groups))
        self.freedom = self.n - self.rank

    def fit(self, names: Sequence[str]) -> tuple[float, int, Reals]:
        """Return residual sum of squares, rank and pseudo-inverse of a model of these groups."""
        at = np.concatenate([np.arange(s.start, s.stop) for s in map(self.groups.get, names) if s])
        values, vectors = np.linalg.eigh(self.gram[np.ix_(at, at)])
        kept = values > RANK_TOLERANCE * max(float(values[-1]), 1.0)
        inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        moment = self.moment[at]
        return max(self.total - float(moment @ inverse @ moment), 0.0), int(kept.sum()), inverse

    def without(self, term: str) -> tuple[list[str], list[str]]:
        """Return the model with a term and without it, what stands above it in neither."""
        above = {name for name in self.groups if term in name.split(" x ") and name != term}
        full = [name for name in self.groups if name not in above]
        return full, [name for name in full if name != term]


def _terms(model: _Model, found: Sequence[Covariate]) -> list[Term]:
    slopes = {each.name: each for each in found}
    terms = [_term(model, name, slopes) for name in model.role]
    terms += [
        Term(name, "interaction", unavailable=f"more than {MAX_COLUMNS} columns would be needed")
        for name in model.left_out
    ]
    terms += [
        Term(each.name, "covariate", slope=each.slope, p=each.p, unavailable=_unused(each))
        for each in found
        if not each.used
    ]
    tested = [term.role in ("main", "interaction") for term in terms]
    p_values = np.array(
        [
            np.nan if term.p is None or not own else term.p
            for term, own in zip(terms, tested, strict=True)
        ]
    )
    corrected = holm(p_values)
    terms = [
        _with_holm(term, None if np.isnan(value) else float(value))
        for term, value in zip(terms, corrected, strict=True)
    ]
    share = model.rest / model.total if model.total > 0 else None
    terms.append(Term("residual", "residual", model.freedom, model.rest, share))
    return terms


def _with_holm(term: Term, p_holm: float | None) -> Term:
    return term if p_holm is None else replace(term, p_holm=p_holm)


def _unused(covariate: Covariate) -> str:
    if covariate.unavailable is not None:
        return covariate.unavailable
    return "it is not taken out: its p value is not below 0.05"


def _term(model: _Model, name: str, slopes: Mapping[str, Covariate]) -> Term:
    from scipy.stats import f as f_distribution

    full, reduced = model.without(name)
    full_rest, full_rank, _ = model.fit(full)
    reduced_rest, reduced_rank, _ = model.fit(reduced)
    freedom = full_rank - reduced_rank
    role = model.role[name]
    slope = slopes[name].slope if role == "covariate" else None
    if freedom == 0:
        reason = "it cannot be told from other settings that change with it"
        return Term(name, role, 0, slope=slope, unavailable=reason)
    squares = max(reduced_rest - full_rest, 0.0)
    share = squares / model.total if model.total > 0 else None
    if model.freedom < 1:
        reason = "no repeats are left to judge it by; more cycles would do"
        return Term(name, role, freedom, squares, share, slope=slope, unavailable=reason)
    if model.rest <= 1e-12 * model.total:
        reason = "the runs do not differ beyond the settings at all"
        return Term(name, role, freedom, squares, share, slope=slope, unavailable=reason)
    f = squares / freedom / (model.rest / model.freedom)
    p = float(f_distribution.sf(f, freedom, model.freedom))
    return Term(name, role, freedom, squares, share, f, p, slope=slope)


def _by_cycle(
    data: Blocks, factors: Levels, found: Sequence[Covariate]
) -> dict[tuple[str, str], Reals] | None:
    """Return each level's difference to the first, one value a cycle, by factor and level.

    Where every cycle holds every experiment, the model's coefficients are the means of those of
    its cycles, whose spread is right however unlike the experiments' own are. Null where cycles
    are few or not whole, or something else was fitted to all of them.
    """
    if len(data.cycles) < MIN_CYCLES or not np.isfinite(data.logs).all():
        return None
    if any(each.used for each in found):
        return None
    columns, names = [np.ones((len(data.experiments), 1))], [("", "")]
    for factor, values in factors.items():
        levels = list(dict.fromkeys(values))
        columns.append(_dummies(np.array([levels.index(value) for value in values])))
        names += [(factor, level) for level in levels[1:]]
    weights = np.linalg.pinv(np.hstack(columns))
    return dict(zip(names, weights @ data.logs.T, strict=True))


def _levels(model: _Model, by_cycle: dict[tuple[str, str], Reals] | None) -> Iterator[Level]:
    """Yield each level's ratio to the first, from the model of main effects.

    Its spread is that between cycles where there are enough; otherwise that of the model with
    interactions, because what these explain is no doubt.
    """
    from scipy.stats import t

    names = [name for name in model.groups if model.role.get(name) != "interaction"]
    _, _, inverse = model.fit(names)
    at = np.concatenate([np.arange(s.start, s.stop) for s in map(model.groups.get, names) if s])
    coefficients = inverse @ model.moment[at]
    identity = np.eye(len(at))
    gram = model.gram[np.ix_(at, at)]
    column_of = {int(column): place for place, column in enumerate(at)}
    mean_square = model.rest / model.freedom if model.freedom > 0 else np.nan
    for factor, levels in model.level_names.items():
        for number, level in enumerate(levels[1:]):
            column = column_of[model.groups[factor].start + number]
            estimable = np.allclose(gram @ inverse @ identity[column], identity[column], atol=1e-6)
            if not estimable:
                reason = "ratio: it cannot be told from other settings that change with it"
                yield Level(factor, level, levels[0], unavailable=reason)
                continue
            center = float(coefficients[column])
            error = float(np.sqrt(max(inverse[column, column], 0.0) * mean_square))
            freedom = model.freedom
            if by_cycle is not None:
                differences = by_cycle[factor, level]
                freedom = len(differences) - 1
                error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
            if not error > ROUNDING:
                reason = "interval: no repeats are left to judge it by"
                yield Level(factor, level, levels[0], float(np.exp(center)), unavailable=reason)
                continue
            quantile = t_quantile(freedom)
            low, high = np.exp([center - quantile * error, center + quantile * error])
            p = float(2 * t.sf(abs(center) / error, freedom))
            ratio = float(np.exp(center))
            yield Level(factor, level, levels[0], ratio, float(low), float(high), p)


def _dummies(codes: Any) -> Reals:
    """Return one column for each level but the first."""
    columns: Reals = (codes[:, None] == np.arange(1, int(codes.max()) + 1)).astype(np.float64)
    return columns


def _products(one: Reals, other: Reals) -> Reals:
    products: Reals = (one[:, :, None] * other[:, None, :]).reshape(len(one), -1)
    return products


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "not set" if value is None else str(value)
