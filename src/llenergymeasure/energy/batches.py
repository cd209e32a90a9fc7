"""The energy of each batch of the window."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from llenergymeasure.energy.account import Account
from llenergymeasure.energy.idle_margins import MARGINS
from llenergymeasure.units import NS_PER_S

_SIMULTANEOUS = 0.01
"""How far apart, in a batch's lengths, its requests' first tokens, or ends, are one moment."""


@dataclass(frozen=True)
class Batch:
    """One batch of the window. Times are CLOCK_MONOTONIC in ns.

    Attributes:
        start_ns, end_ns: from the first of its requests to the end of the last.
        first_token_ns: the earliest and the latest of its requests' first tokens; None if one of
            them has none.
        input_tokens, output_tokens, requests: what it holds.
        thinking_tokens: those of its output that were thought before the answers.
        lengths: tokens of each request's prompt and of its answer.
        steps_ns: when each token of its longest answer was there; empty if that is not known.
        first_end_ns: when the first of its requests ended; None if that is not known.
    """

    start_ns: int
    end_ns: int
    first_token_ns: tuple[int, int] | None
    input_tokens: int
    output_tokens: int
    requests: int
    thinking_tokens: int = 0
    lengths: tuple[tuple[int, int], ...] = ()
    steps_ns: tuple[int, ...] = ()
    first_end_ns: int | None = None

    @property
    def span_s(self) -> float:
        """Return how long it took."""
        return (self.end_ns - self.start_ns) / NS_PER_S

    @property
    def decoded_tokens(self) -> int:
        """Return its output tokens without the first of each request, which prefill gives."""
        return self.output_tokens - self.requests

    @property
    def prefill_end_ns(self) -> int | None:
        """Return when prefill was over; None if its requests were not at one in that."""
        if self.first_token_ns is None:
            return None
        first_ns, last_ns = self.first_token_ns
        at_once = self._is_one_moment(first_ns, last_ns)
        return last_ns if at_once and self.start_ns < last_ns < self.end_ns else None

    @property
    def has_like_requests(self) -> bool:
        """Return whether its requests had a token in the same steps.

        Of requests as long as each other, one that an engine preempted ends after the others.
        """
        ended_at_once = self._is_one_moment(self.first_end_ns or self.end_ns, self.end_ns)
        return len(set(self.lengths)) == 1 and ended_at_once

    def _is_one_moment(self, first_ns: int, last_ns: int) -> bool:
        return last_ns - first_ns <= _SIMULTANEOUS * (self.end_ns - self.start_ns)


@dataclass(frozen=True)
class PartEnergy:
    """The headline energy of a part of the window: a batch, or a request of one.

    Attributes:
        energy_j: None if it cannot be determined.
        u95_j: half width of its 95 % interval; None for an estimate.
        unavailable: why it is None.
    """

    energy_j: float | None = None
    u95_j: float | None = None
    unavailable: str | None = None


OVERLAP = "requests overlap in time: the sensor sees their sum alone"


def batch_energies(
    account: Account, batches: Sequence[Batch], late_s: float = 0.0
) -> list[PartEnergy]:
    """Return each batch's energy; what the sensor does not show is None with a reason.

    ``late_s`` is how much later than the account takes it to the counter was found to count.
    """
    if batches_overlap(batches):
        return [PartEnergy(unavailable=OVERLAP)] * len(batches)
    late_ns = round(late_s * NS_PER_S)
    starts_ns = sorted(batch.start_ns for batch in batches)
    ends_ns = sorted(batch.end_ns for batch in batches)
    energies = []
    for batch in batches:
        # Before the first and after the last nothing is known of a pause.
        before, after = bisect_right(ends_ns, batch.start_ns), bisect_left(starts_ns, batch.end_ns)
        pause_from_ns = ends_ns[before - 1] if before else batch.start_ns
        pause_to_ns = starts_ns[after] if after < len(batches) else batch.end_ns
        energies.append(_energy(account, batch, (pause_from_ns, pause_to_ns), late_ns))
    return energies


def _energy(account: Account, batch: Batch, pauses: tuple[int, int], late_ns: int) -> PartEnergy:
    if batch.span_s < account.resolution_s:
        reason = (
            f"{batch.span_s * 1000:.3g} ms are less than the {account.resolution_s * 1000:.3g} ms "
            "between two values of the sensor"
        )
        return PartEnergy(unavailable=reason)
    start_ns, end_ns = batch.start_ns + late_ns, batch.end_ns + late_ns
    # The pauses next to it are rest, however short.
    margins = (
        (MARGINS[0], pauses[0] + late_ns, start_ns),
        (MARGINS[1], end_ns, pauses[1] + late_ns),
    )
    energy_sum = account.stretch(start_ns, end_ns, margins)
    if energy_sum is None:
        return PartEnergy(unavailable="the recording does not cover it")
    return PartEnergy(energy_sum.gross_j, energy_sum.gross_u95_j)


def batches_overlap(batches: Sequence[Batch]) -> bool:
    """Return whether one of the batches begins before another one ends."""
    ordered = sorted(batches, key=lambda batch: batch.start_ns)
    return any(later.start_ns < earlier.end_ns for earlier, later in pairwise(ordered))
