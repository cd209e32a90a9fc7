"""Energy of one request of a batch: its part of every step of the engine that it had a token in.

A batch that is answered as one has one step of prefill and then one a token. Prefill's energy is
shared by the tokens of the prompts, that of a later step evenly among the requests that got a token
in it, and what is drawn between batches in proportion to them: so the parts of all requests add up
to the window's energy. How much each step took is what the powers of prefill and decode say (see
:mod:`llenergymeasure.energy.prefill_decode`), as a share of the batch's energy, which was measured.
"""

import math
from collections.abc import Sequence

import numpy as np

from llenergymeasure.energy.batches import Batch, PartEnergy
from llenergymeasure.energy.knots import Floats
from llenergymeasure.energy.prefill_decode import NoSplit, TokenEnergy
from llenergymeasure.units import COVERAGE_FACTOR, NS_PER_S

STEPS_UNKNOWN = "the engine does not say in which steps a request had its tokens"


def request_energies(
    window_j: float | None,
    batches: Sequence[Batch],
    energies: Sequence[PartEnergy],
    split: TokenEnergy | NoSplit | None,
) -> tuple[tuple[PartEnergy, ...], ...]:
    """Return the energy of each request of each batch."""
    middle_s = float(np.mean([_decode_s(batch) for batch in batches])) / 2 if batches else 0.0
    known_j = [energy.energy_j for energy in energies if energy.energy_j is not None]
    # Where a batch has no energy, what was drawn between batches is not known either.
    scale = 1.0
    if window_j is not None and len(known_j) == len(batches) > 0:
        scale = window_j / sum(known_j)
    return tuple(
        tuple(_batch_energies(batch, energy, split, middle_s, scale))
        for batch, energy in zip(batches, energies, strict=True)
    )


def _batch_energies(
    batch: Batch,
    energy: PartEnergy,
    split: TokenEnergy | NoSplit | None,
    middle_s: float,
    scale: float,
) -> list[PartEnergy]:
    count = batch.requests
    if energy.energy_j is None:
        return [PartEnergy(unavailable=energy.unavailable)] * count
    if count > 1 and batch.prefill_end_ns is None:
        return [PartEnergy(unavailable=STEPS_UNKNOWN)] * count
    if batch.has_like_requests:  # whatever each step took
        shares, errors = np.full(count, 1 / count), np.zeros(count)
    elif len(batch.steps_ns) != max(out for _, out in batch.lengths):
        return [PartEnergy(unavailable=STEPS_UNKNOWN)] * count
    elif isinstance(split, TokenEnergy):
        shares, errors = _shares(batch, split, middle_s)
    else:
        reason = "prefill and decode cannot be separated" if split is None else split.reason
        return [PartEnergy(unavailable=reason)] * count
    energy_j = scale * energy.energy_j
    if energy.u95_j is None:
        return [PartEnergy(energy_j * share) for share in shares.tolist()]
    # What is not in any batch is shared by convention, and as unsure as it is much.
    batch_u95_j = math.hypot(scale * energy.u95_j, (scale - 1) * energy.energy_j)
    return [
        PartEnergy(energy_j * share, math.hypot(batch_u95_j * share, energy_j * error))
        for share, error in zip(shares.tolist(), errors.tolist(), strict=True)
    ]


def _shares(batch: Batch, split: TokenEnergy, middle_s: float) -> tuple[Floats, Floats]:
    """Return each request's share of a batch's energy, and the half width of its 95 % interval."""
    prompts, answers = np.array(batch.lengths).T
    decoded = np.maximum(answers - 1, 0)
    step_s = _steps_s(batch)
    part = 1 / (decoded > np.arange(len(step_s))[:, None]).sum(axis=1)
    # The energy of each step by the three powers, prefill's first: shape (steps + 1, 3).
    step_terms = np.zeros((len(step_s) + 1, 3))
    step_terms[0, 0] = (batch.end_ns - batch.start_ns) / NS_PER_S - _decode_s(batch)
    step_terms[1:, 1] = step_s
    step_terms[1:, 2] = step_s * (np.cumsum(step_s) - step_s / 2 - middle_s)
    batch_j = float(step_terms.sum(axis=0) @ split.powers_w)

    def request_terms(exponent: int) -> Floats:
        """Return the sum over a request's steps of energy times part: shape (requests, 3)."""
        first = (prompts / prompts.sum())[:, None] ** exponent * step_terms[0]
        later = np.cumsum(part[:, None] ** exponent * step_terms[1:], axis=0)
        return np.asarray(first + np.vstack((np.zeros(3), later))[decoded])

    terms = request_terms(1)
    shares = terms @ split.powers_w / batch_j
    slope = (terms - shares[:, None] * step_terms.sum(axis=0)) / batch_j
    by_powers = np.einsum("ij,jk,ik->i", slope, split.powers_covariance, slope)
    # Steps that are off by so much, root mean square, move a share by no more than this (Cauchy
    # and Schwarz): by nothing where the request has the same part of every step.
    spread = np.maximum(request_terms(2) @ split.powers_w / batch_j - shares**2, 0.0)
    return shares, COVERAGE_FACTOR * np.sqrt(by_powers + split.unexplained**2 * spread)


def _steps_s(batch: Batch) -> Floats:
    """Return how long each of a batch's steps took after prefill.

    Their ends are stamped before the device is through with them, but for the first token: the
    first step takes as long as the second, and all together the time that there was.
    """
    seconds = np.diff(np.array(batch.steps_ns, dtype=np.float64)) / NS_PER_S
    if len(seconds) > 1:
        seconds[0] = seconds[1]
    return np.asarray(seconds * _decode_s(batch) / seconds.sum())


def _decode_s(batch: Batch) -> float:
    end_ns = batch.prefill_end_ns
    return 0.0 if end_ns is None else (batch.end_ns - end_ns) / NS_PER_S
