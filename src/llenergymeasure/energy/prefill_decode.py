"""Energy of prefill and of decode: what an energy counter's steps show with the phases' marks.

A counter steps about ten times a second, and each step's energy is that of the phases that the time
since the last one holds: so many seconds of prefill, of decode, and of neither. Over all steps of a
window the power of each follows by least squares (Lang and Rünger, Euro-Par 2013, combine readings
of repeated executions in the same spirit), also where a phase is shorter than a step. Decode may
draw more or less as answers grow; prefill is taken to draw the same in all batches. A request's
first output token counts to prefill. What a model thinks comes before what it answers: of each
decode the first part of the time, as large as its part of the tokens, with what decode draws then.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llenergymeasure.energy.batches import OVERLAP, Batch, batches_overlap
from llenergymeasure.energy.channel import Channel
from llenergymeasure.energy.knots import Floats, Knots
from llenergymeasure.units import COVERAGE_FACTOR

_MIN_STEPS = 12
_MAX_CONDITION = 30.0
"""Largest condition number of the scaled times (Belsley, Kuh and Welsch 1980: from 30 on
coefficients can no longer be separated)."""

_LAGS_S = np.arange(0.0, 0.105, 0.005)
"""Lags of a counter that are tried: the one that leaves least unexplained is taken, and refined."""
_FINEST_LAG_S = 0.0005

POOR_FIT = 0.1
"""A split that leaves more than this share of the steps' energy (rms) unexplained is doubtful."""


@dataclass(frozen=True)
class TokenEnergy:
    """Energy per token of prefill and decode.

    Attributes:
        prefill_j: energy per input token.
        decode_j: energy per output token.
        prefill_u95_j, decode_u95_j: half widths of the 95 % intervals.
        correlation: of the two errors.
        unexplained: root mean square of what the phases leave of a step's energy, relative.
        thinking_j, answer_j: decode's energy of the window, that of thought and that of answers.
        thinking_u95_j, answer_u95_j: half widths of their 95 % intervals.
        powers_w: of prefill and of decode in W, and what decode's grows by in W/s, about the middle
            of a decode of mean length, shape (3,).
        powers_covariance: of their errors, shape (3, 3).
        lag_s: how much later than its knots say the counter counts, by the steps themselves.
    """

    prefill_j: float
    decode_j: float
    prefill_u95_j: float
    decode_u95_j: float
    correlation: float
    unexplained: float
    thinking_j: float = 0.0
    answer_j: float = 0.0
    thinking_u95_j: float = 0.0
    answer_u95_j: float = 0.0
    powers_w: Floats = field(default_factory=lambda: np.zeros(3))
    powers_covariance: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    lag_s: float = 0.0


@dataclass(frozen=True)
class NoSplit:
    """Why prefill and decode cannot be separated."""

    reason: str


Spans = Sequence[tuple[float, float]]


def split_energy(channels: Sequence[Channel], batches: Sequence[Batch]) -> TokenEnergy | NoSplit:
    """Return energy per token of prefill and decode."""
    ordered = sorted(batches, key=lambda batch: batch.start_ns)
    if batches_overlap(batches):
        return NoSplit(OVERLAP)
    splits = [(batch, end) for batch in ordered if (end := batch.prefill_end_ns) is not None]
    if not splits or len(splits) < len(ordered):
        return NoSplit("not every batch has one moment at which its prefill was over")
    input_tokens = sum(batch.input_tokens for batch in ordered)
    decoded_tokens = sum(batch.decoded_tokens for batch in ordered)
    if input_tokens <= 0 or decoded_tokens <= 0:
        return NoSplit("no tokens went in, or none came out after the first")
    natures = [channel.nature for channel in channels if channel.name == "counter"]
    if not channels or "sum" in natures or len(natures) < len(channels):
        return NoSplit("it takes an energy counter that sees all of the time")
    # A first token is prefill's, also one of thought.
    thinking = sum(max(0, batch.thinking_tokens - batch.requests) for batch in ordered)
    fits = []
    for channel in channels:
        fit = _fit(channel.knots, splits, thinking / decoded_tokens)
        if isinstance(fit, NoSplit):
            return fit
        fits.append(fit)
    powers_w = np.sum([fit.energy_j[4:] for fit in fits], axis=0)
    all_covariance = np.sum([fit.covariance for fit in fits], axis=0)
    covariance = all_covariance[:4, :4]
    per_token = np.array([1 / input_tokens, 1 / decoded_tokens, 1.0, 1.0])
    energy_j = np.sum([fit.energy_j[:4] for fit in fits], axis=0) * per_token
    if min(energy_j[:2]) <= 0:
        return NoSplit("by the counter's steps one of the two would have used less than nothing")
    u95_j = COVERAGE_FACTOR * np.sqrt(np.diag(covariance)) * per_token
    return TokenEnergy(
        float(energy_j[0]),
        float(energy_j[1]),
        float(u95_j[0]),
        float(u95_j[1]),
        float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])),
        max(fit.unexplained for fit in fits),
        float(energy_j[2]),
        float(energy_j[3]),
        float(u95_j[2]),
        float(u95_j[3]),
        powers_w=powers_w,
        powers_covariance=all_covariance[4:, 4:],
        lag_s=float(np.median([fit.lag_s for fit in fits])),
    )


@dataclass(frozen=True)
class _Fit:
    """What steps show: energies of prefill, decode, its thought and its answers in J.

    After them stand the powers that these follow from. With the covariance of all, the share of
    the steps' energy that is left unexplained, and the counter's lag.
    """

    energy_j: Floats
    covariance: Floats
    unexplained: float
    lag_s: float = 0.0


def _fit(knots: Knots, splits: Sequence[tuple[Batch, int]], thinking: float) -> _Fit | NoSplit:
    seconds = knots.seconds
    prefills = [(seconds(batch.start_ns), seconds(end_ns)) for batch, end_ns in splits]
    decodes = [(seconds(end_ns), seconds(batch.end_ns)) for batch, end_ns in splits]
    # Steps within the work, also of a late counter: what is drawn outside is not what is between.
    first = int(np.searchsorted(knots.t_s, prefills[0][0] + float(_LAGS_S[-1])))
    last = int(np.searchsorted(knots.t_s, decodes[-1][1], side="right"))
    t_s, energy_j = knots.t_s[first:last], knots.energy_j[first:last]
    if len(t_s) - 1 < _MIN_STEPS:
        return NoSplit(f"the window holds {max(len(t_s) - 1, 0)} steps; {_MIN_STEPS} are needed")

    def fit_at(lag_s: float) -> _Fit | NoSplit:
        fit = _least_squares(t_s - lag_s, energy_j, prefills, decodes, thinking)
        return fit if isinstance(fit, NoSplit) else replace(fit, lag_s=lag_s)

    lags_s = _LAGS_S
    while True:
        fits = [fit_at(float(lag_s)) for lag_s in lags_s]
        separable = [fit for fit in fits if isinstance(fit, _Fit)]
        if not separable:
            return fits[0]
        best = min(separable, key=lambda fit: fit.unexplained)
        step_s = float(lags_s[1] - lags_s[0])
        if step_s < _FINEST_LAG_S:
            break
        lags_s = best.lag_s + step_s * np.linspace(-1, 1, 11)
    # What the lag that was found may be off, and the moments of the steps all together.
    early, late = fit_at(best.lag_s - _FINEST_LAG_S), fit_at(best.lag_s + _FINEST_LAG_S)
    if isinstance(early, NoSplit) or isinstance(late, NoSplit):
        return best
    by_lag_w = (late.energy_j - early.energy_j) / (2 * _FINEST_LAG_S)
    off_s = _FINEST_LAG_S / 2 + float(np.mean(knots.t_half_width_s[first:last])) / math.sqrt(3)
    covariance = best.covariance + np.outer(by_lag_w, by_lag_w) * off_s**2
    return replace(best, covariance=covariance)


def _least_squares(
    t_s: Floats, energy_j: Floats, prefills: Spans, decodes: Spans, thinking: float
) -> _Fit | NoSplit:
    prefill_s, decode_s = _seconds_within(t_s, prefills), _seconds_within(t_s, decodes)
    growth_s2 = _growth_within(t_s, decodes)
    rise_j, span_s = np.diff(energy_j), np.diff(t_s)
    rest_s = span_s - prefill_s - decode_s
    columns = [prefill_s, decode_s]
    # Of the whole window, whose first and last moments the steps within it leave out.
    window_s = np.array([prefills[0][0], decodes[-1][1]])
    decode_window_s = _seconds_within(window_s, decodes)[0]
    all_s2 = _growth_within(window_s, decodes)[0]
    thinking_s2 = _growth_within(window_s, decodes, thinking)[0]
    totals = [
        np.array([_seconds_within(window_s, prefills)[0], 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        np.array([0.0, *decode_window_s * np.array([1, thinking, 1 - thinking]), 0.0, 1.0, 0.0]),
    ]
    growth_total = np.array([0, all_s2, thinking_s2, all_s2 - thinking_s2, 0.0, 0.0, 1.0])
    for column, column_total in ((growth_s2, growth_total), (rest_s, np.zeros(7))):
        # A term that hardly varies cannot be distinguished from the others, and says nothing.
        if np.linalg.norm(column) > 1e-3 * np.linalg.norm(decode_s):
            columns.append(column)
            totals.append(column_total)
    design = np.column_stack(columns)
    scale = np.linalg.norm(design, axis=0)
    if not scale.all() or np.linalg.cond(design / scale) > _MAX_CONDITION:
        return NoSplit("the phases fall on the counter's steps too evenly to be separated")
    inverse = np.linalg.inv(design.T @ design)
    powers = inverse @ design.T @ rise_j
    residual_j = rise_j - design @ powers
    degrees_of_freedom = len(rise_j) - design.shape[1]
    variance = float(residual_j @ residual_j) / degrees_of_freedom
    to_energy = np.array(totals).T
    return _Fit(
        to_energy @ powers,
        to_energy @ (inverse * variance) @ to_energy.T,
        math.sqrt(variance) / float(np.mean(rise_j)),
    )


def _seconds_within(
    t_s: Floats,
    spans: Spans,
    accumulated: Callable[[Floats], Floats] = lambda length_s: length_s,
    share: float = 1.0,
) -> Floats:
    """Return how many seconds of the spans lie between each two moments, or what grows with them.

    Args:
        t_s: the moments.
        spans: in order of time.
        accumulated: what a span holds after so many seconds of it.
        share: of each span so large a first part is taken.
    """
    starts, ends = np.array(spans).T
    lengths_s = share * (ends - starts)
    sums = np.concatenate(([0.0], np.cumsum(accumulated(lengths_s))))
    span = np.maximum(np.searchsorted(starts, t_s, side="right") - 1, 0)
    inside_s = np.clip(t_s - starts[span], 0.0, lengths_s[span])
    return np.diff(sums[span] + accumulated(inside_s))


def _growth_within(t_s: Floats, spans: Spans, share: float = 1.0) -> Floats:
    """Return the integral of the time since a span's start, less its mean, between moments."""
    middle_s = float(np.mean([end_s - start_s for start_s, end_s in spans])) / 2

    def accumulated(length_s: Floats) -> Floats:
        return np.asarray(length_s**2 / 2 - middle_s * length_s)

    return _seconds_within(t_s, spans, accumulated, share)
