"""Energy of prefill and of decode: from marks where an engine gives them, else by regression.

A batch that is longer in its input costs more in prefill, one longer in its output more in decode.
Over batches of different lengths the energy per token of each follows by weighted least squares,
with its error. Batches that are all alike cannot tell the two apart, and that is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.meter.account import Account
from llenergymeasure.meter.uncertainty import COVERAGE_FACTOR

_MIN_BATCHES = 4
_WORST_CONDITION = 30.0
"""Largest condition number of the scaled token counts (Belsley, Kuh and Welsch 1980: from 30 on
coefficients can no longer be told apart)."""


@dataclass(frozen=True)
class TokenEnergy:
    """Energy per token of prefill and decode.

    Attributes:
        method: ``marks`` or ``regression``.
        prefill_j: energy per input token.
        decode_j: energy per output token.
        prefill_u95_j, decode_u95_j: half widths of the 95 % intervals.
        correlation: of the two errors; null from marks.
        unexplained: root mean square of what the two leave of a batch's energy, relative; null
            from marks.
    """

    method: str
    prefill_j: float
    decode_j: float
    prefill_u95_j: float
    decode_u95_j: float
    correlation: float | None = None
    unexplained: float | None = None


@dataclass(frozen=True)
class NoSplit:
    """Why prefill and decode cannot be told apart."""

    reason: str


Span = tuple[int, int]


def split_by_marks(
    account: Account,
    prefills: Sequence[Span],
    decodes: Sequence[Span],
    input_tokens: int,
    output_tokens: int,
) -> TokenEnergy | NoSplit:
    """Return energy per token from marked stretches.

    Args:
        account: the run's energy.
        prefills: start and end of each prefill in CLOCK_MONOTONIC ns.
        decodes: of each decode.
        input_tokens: tokens put in by those prefills.
        output_tokens: tokens that came out of those decodes.
    """
    if not prefills or not decodes or input_tokens <= 0 or output_tokens <= 0:
        return NoSplit("prefill and decode were not marked")
    found = [_sum(account, spans) for spans in (prefills, decodes)]
    if found[0] is None or found[1] is None:
        return NoSplit("the recording does not cover the marks, or gives them no interval")
    (prefill_j, prefill_u), (decode_j, decode_u) = found[0], found[1]
    return TokenEnergy(
        "marks",
        prefill_j / input_tokens,
        decode_j / output_tokens,
        prefill_u / input_tokens,
        decode_u / output_tokens,
    )


def split_by_regression(
    energy_j: Sequence[float],
    u95_j: Sequence[float],
    input_tokens: Sequence[int],
    output_tokens: Sequence[int],
) -> TokenEnergy | NoSplit:
    """Return energy per token from batches of different lengths.

    Weighted least squares of ``energy = prefill·input + decode·output`` with weights ``1/u²``. If
    the batches scatter more than their own intervals explain, the errors grow by that factor
    (Birge 1932; GUM H.3 for the covariance).

    Args:
        energy_j: energy of each batch.
        u95_j: half width of its 95 % interval.
        input_tokens: tokens that went in.
        output_tokens: tokens that came out.
    """
    energy = np.asarray(energy_j, dtype=np.float64)
    if len(energy) < _MIN_BATCHES:
        return NoSplit(f"{len(energy)} batches; at least {_MIN_BATCHES} are needed")
    tokens = np.column_stack((input_tokens, output_tokens)).astype(np.float64)
    lengths = np.linalg.norm(tokens, axis=0)
    if np.any(lengths == 0):
        return NoSplit("no tokens went in, or none came out")
    if np.linalg.cond(tokens / lengths) > _WORST_CONDITION:
        return NoSplit("the batches are too alike in their share of input and output")
    floor_j = 1e-9 * float(np.max(np.abs(energy)))
    standard_j = np.maximum(np.asarray(u95_j, dtype=np.float64) / COVERAGE_FACTOR, floor_j)
    weighted = tokens / standard_j[:, None]
    covariance = np.linalg.inv(weighted.T @ weighted)
    prefill_j, decode_j = covariance @ weighted.T @ (energy / standard_j)
    left_j = energy - tokens @ np.array([prefill_j, decode_j])
    excess = float(np.sum((left_j / standard_j) ** 2)) / (len(energy) - 2)
    covariance *= max(1.0, excess)
    half = _student_95(len(energy) - 2) * np.sqrt(np.diag(covariance))
    return TokenEnergy(
        "regression",
        float(prefill_j),
        float(decode_j),
        float(half[0]),
        float(half[1]),
        float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])),
        float(np.sqrt(np.mean((left_j / energy) ** 2))),
    )


def _sum(account: Account, spans: Sequence[Span]) -> tuple[float, float] | None:
    sums = [account.stretch(*span) for span in spans]
    energies, halves = [], []
    for each in sums:
        if each is None or each.u95_j is None:
            return None
        energies.append(each.gross_j)
        halves.append(each.u95_j)
    # Every batch has the same course, so what the ends of a phase hide has the same sign in all.
    return float(np.sum(energies)), float(np.sum(halves))


def _student_95(freedom: int) -> float:
    """Return Student's t for 95 % two-sided, by Cornish and Fisher's expansion.

    Abramowitz and Stegun 26.7.5: within 0.1 % from 4 degrees of freedom on, 1 % at 3, 5 % at 2.
    """
    z = 1.959964
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))
