"""Main effects and two-way interactions of the swept settings.

Analysis of variance on the logarithm of a quantity, with the cycles as blocks. Each term is tested
against the model of all main effects and two-way interactions, with what stands above it left out
("type II": Langsrud 2003, Stat. Comput. 13, 163-167), so that unequal numbers of runs do not favour
the first factor. Effects on a logarithm are ratios: a setting that saves 10 % everywhere has no
interaction. Experiments without data are no part of it: a level of which nothing is known has no
effect to report, and is never the reference.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, compress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.blocks import Blocks, Reals
from llenergymeasure.analysis.comparison import holm
from llenergymeasure.analysis.statistics import ROUNDING, t_quantile

MAX_COLUMNS = 400
"""Columns of the model beyond which interactions, and then the whole table, are left out."""

RANK_TOLERANCE = 1e-9

MIN_CYCLES = 5
"""From so many cycles on, a level's interval rests on the spread between them."""

Levels: TypeAlias = Mapping[str, Sequence[Any]]
"""Of each factor, its value in each experiment."""

NO_DATA = "no data: no run in the means has this quantity"


@dataclass(frozen=True)
class Term:
    """How much of the variation one term explains.

    Attributes:
        term: ``backend``, ``backend x precision``, ``cycle`` or ``residual``.
        role: ``main``, ``interaction``, ``block`` or ``residual``.
        degrees_of_freedom: that it takes.
        sum_of_squares: of the logarithm, that it explains beyond the others.
        share: that over the total variation between all runs; null for the residual of none.
        f: its mean square over the residual's.
        p: p value of no effect.
        p_holm: the same, corrected for all main effects and interactions of the quantity.
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
    unavailable: str | None = None


@dataclass(frozen=True)
class Level:
    """What one level of a factor does, the others being equal.

    Attributes:
        factor: the setting.
        level: its value, as text.
        reference: the value compared with, the first in the study that has data.
        ratio: of geometric means, over all settings of the others and all cycles.
        ci95_low: lower end of the 95 % t interval.
        ci95_high: upper end.
        p: two-sided p value of no difference.
        p_holm: the same, corrected for all levels of the quantity.
        unavailable: what cannot be told, and why.
    """

    factor: str
    level: str
    reference: str
    ratio: float | None = None
    ci95_low: float | None = None
    ci95_high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    unavailable: str | None = None


def effects(data: Blocks, factors: Levels) -> tuple[list[Term], list[Level]]:
    """Return the table of terms, and every level of every factor against its first with data.

    Args:
        data: one quantity of the study's runs.
        factors: the settings that vary, each with a value for each experiment of ``data``.
    """
    present = np.isfinite(data.logs)
    known = [bool(column.any()) for column in present.T]
    if not any(known):
        return [], []
    logs = data.logs[present.any(axis=1)][:, known]
    named = [_factor(name, values, known) for name, values in factors.items()]
    named = [each for each in named if len(each.levels) + len(each.empty) > 1]
    varying = {each.name: each for each in named if len(each.levels) > 1}
    terms = [
        Term(each.name, "main", unavailable="only one of its values has data")
        for each in named
        if each.name not in varying
    ]
    width = sum(len(each.levels) - 1 for each in varying.values()) + len(logs)
    if width > MAX_COLUMNS:
        reason = f"the settings have {width} levels together; up to {MAX_COLUMNS} are analysed"
        return [*terms, *(Term(name, "main", unavailable=reason) for name in varying)], []
    levels = [
        Level(each.name, level, each.levels[0], unavailable=NO_DATA)
        for each in named
        for level in each.empty
    ]
    if varying:
        model = _Model(logs, varying)
        terms += _terms(model)
        levels = [*_levels(model, varying, _by_cycle(logs, varying)), *levels]
    corrected = holm(np.array([np.nan if each.p is None else each.p for each in levels]))
    return terms, [
        replace(each, p_holm=None if np.isnan(p_holm) else float(p_holm))
        for each, p_holm in zip(levels, corrected, strict=True)
    ]


@dataclass(frozen=True)
class _Factor:
    """A setting of the experiments with data.

    Attributes:
        name: of the setting.
        levels: its values that have data, in the order of the study.
        empty: its values that have none.
        codes: of each experiment with data, which of ``levels`` it has.
    """

    name: str
    levels: tuple[str, ...]
    empty: tuple[str, ...]
    codes: NDArray[np.intp]


def _factor(name: str, values: Sequence[Any], known: Sequence[bool]) -> _Factor:
    # A run that failed may not tell all of its settings: there, None is no level.
    told = [
        _text(value) for value, has in zip(values, known, strict=True) if has or value is not None
    ]
    observed = [_text(value) for value in compress(values, known)]
    seen = set(observed)
    levels = [level for level in dict.fromkeys(told) if level in seen]
    empty = [level for level in dict.fromkeys(told) if level not in seen]
    code_of = {level: code for code, level in enumerate(levels)}
    codes = np.array([code_of[value] for value in observed], np.intp)
    return _Factor(name, tuple(levels), tuple(empty), codes)


class _Model:
    """The design as columns in groups, and its normal equations."""

    def __init__(self, logs: Reals, factors: Mapping[str, _Factor]) -> None:
        rows, columns = np.nonzero(np.isfinite(logs))
        y = logs[rows, columns]
        self.n = len(y)
        parts: dict[str, Reals] = {"mean": np.ones((self.n, 1))}
        self.role: dict[str, str] = {}
        if len(set(rows)) > 1:
            parts["cycle"] = _dummies(np.unique(rows, return_inverse=True)[1])
            self.role["cycle"] = "block"
        for name, factor in factors.items():
            parts[name] = _dummies(factor.codes[columns])
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


def _terms(model: _Model) -> list[Term]:
    terms = [_term(model, name) for name in model.role]
    terms += [
        Term(name, "interaction", unavailable=f"more than {MAX_COLUMNS} columns would be needed")
        for name in model.left_out
    ]
    p_values = [np.nan if term.p is None or term.role == "block" else term.p for term in terms]
    terms = [
        replace(term, p_holm=None if np.isnan(p_holm) else float(p_holm))
        for term, p_holm in zip(terms, holm(np.array(p_values)), strict=True)
    ]
    share = model.rest / model.total if model.total > 0 else None
    return [*terms, Term("residual", "residual", model.freedom, model.rest, share)]


def _term(model: _Model, name: str) -> Term:
    from scipy.stats import f as f_distribution

    full, reduced = model.without(name)
    full_rest, full_rank, _ = model.fit(full)
    reduced_rest, reduced_rank, _ = model.fit(reduced)
    freedom = full_rank - reduced_rank
    role = model.role[name]
    if freedom == 0:
        reason = "it cannot be told from other settings that change with it"
        return Term(name, role, 0, unavailable=reason)
    squares = max(reduced_rest - full_rest, 0.0)
    share = squares / model.total if model.total > 0 else None
    if model.freedom < 1:
        reason = "no repeats are left to judge it by; more cycles would do"
        return Term(name, role, freedom, squares, share, unavailable=reason)
    if model.rest <= 1e-12 * model.total:
        reason = "the runs do not differ beyond the settings at all"
        return Term(name, role, freedom, squares, share, unavailable=reason)
    f = squares / freedom / (model.rest / model.freedom)
    p = float(f_distribution.sf(f, freedom, model.freedom))
    return Term(name, role, freedom, squares, share, f, p)


def _by_cycle(logs: Reals, factors: Mapping[str, _Factor]) -> dict[tuple[str, str], Reals] | None:
    """Return each level's difference to the first, one value a cycle, by factor and level.

    Where every cycle holds every experiment, the model's coefficients are the means of those of
    its cycles, whose spread is right however unlike the experiments' own are. None where cycles
    are few or not whole.
    """
    if len(logs) < MIN_CYCLES or not np.isfinite(logs).all():
        return None
    columns, names = [np.ones((logs.shape[1], 1))], [("", "")]
    for name, factor in factors.items():
        columns.append(_dummies(factor.codes))
        names += [(name, level) for level in factor.levels[1:]]
    weights = np.linalg.pinv(np.hstack(columns))
    return dict(zip(names, weights @ logs.T, strict=True))


def _levels(
    model: _Model,
    factors: Mapping[str, _Factor],
    by_cycle: Mapping[tuple[str, str], Reals] | None,
) -> Iterator[Level]:
    """Yield each level's ratio to the first, from the model of main effects.

    Its spread is that between cycles where there are enough; otherwise that of the model with
    interactions, because what these explain is no residual.
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
    for name, factor in factors.items():
        reference, *others = factor.levels
        for number, level in enumerate(others):
            column = column_of[model.groups[name].start + number]
            estimable = np.allclose(gram @ inverse @ identity[column], identity[column], atol=1e-6)
            if not estimable:
                reason = "ratio: it cannot be told from other settings that change with it"
                yield Level(name, level, reference, unavailable=reason)
                continue
            center = float(coefficients[column])
            error = float(np.sqrt(max(inverse[column, column], 0.0) * mean_square))
            freedom = model.freedom
            if by_cycle is not None:
                differences = by_cycle[name, level]
                freedom = len(differences) - 1
                error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
            ratio = float(np.exp(center))
            if not error > ROUNDING:
                reason = "interval: no repeats are left to judge it by"
                yield Level(name, level, reference, ratio, unavailable=reason)
                continue
            quantile = t_quantile(freedom)
            low, high = np.exp([center - quantile * error, center + quantile * error])
            p = float(2 * t.sf(abs(center) / error, freedom))
            yield Level(name, level, reference, ratio, float(low), float(high), p)


def _dummies(codes: NDArray[np.intp]) -> Reals:
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
