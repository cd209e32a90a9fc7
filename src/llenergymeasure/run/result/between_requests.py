"""What a server draws while no request is under way, as between the turns of an agent.

While a conversation waits for a tool or a person, its cache stays and the server keeps its memory
and clocks. If other requests are answered meanwhile, this costs no extra time: only energy drawn
while no request is under way is counted here, and separately the part of it in which a conversation
waits.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.energy.account import Account
from llenergymeasure.energy.knots import Floats
from llenergymeasure.energy.window import LAG_ALLOWANCE_S, quadrature_difference
from llenergymeasure.results.serving import Gaps
from llenergymeasure.run.result.offered_load import InFlight
from llenergymeasure.units import COVERAGE_FACTOR, NS_PER_S

Span = tuple[int, int]

UNAVAILABLE = "the sensors show too little of the gaps: too few are long enough"
MIN_MEASURED_GAPS = 4
"""The fewest gaps with an inside from which the power of shorter gaps is estimated."""


def gap_energy(
    rows: Sequence[Mapping[str, Any]],
    flight: InFlight,
    window: Span,
    account: Account,
    turns: int = 1,
) -> Gaps:
    """Return what the server drew while no request was under way.

    Args:
        rows: the requests of the run.
        flight: those under way.
        window: start and end in CLOCK_MONOTONIC ns.
        account: the energy of any stretch.
        turns: of a whole conversation, for rows that do not say.
    """
    pauses = _pauses(rows, turns)
    # A turn that was not sent before the traffic ended counts as waiting until the window's end.
    spans = [(start, max(start, window[1]) if end is None else end) for start, end in pauses]
    starts, ends = np.array(spans, dtype=np.int64).reshape(-1, 2).T
    waiting = InFlight.from_intervals(starts, ends)
    gaps = _gaps(flight, waiting, window)
    waiting_gaps = [span for span in gaps if waiting.at(span[0])]
    waiting_ns = sum(high - low for low, high in waiting_gaps)
    conversation_ns = sum(waiting.mean(*span) * (span[1] - span[0]) for span in waiting_gaps)
    inner_energies = {span: _inner_energy(account, span) for span in gaps}
    energy_j, u95_j = _total_energy(inner_energies, gaps)
    waiting_j, waiting_u95_j = _total_energy(inner_energies, waiting_gaps)
    return Gaps(
        duration_s=sum(high - low for low, high in gaps) / NS_PER_S,
        energy_j=energy_j,
        u95_j=u95_j,
        waiting_duration_s=waiting_ns / NS_PER_S,
        waiting_energy_j=waiting_j,
        waiting_u95_j=waiting_u95_j,
        waiting_conversations_mean=conversation_ns / waiting_ns if waiting_ns else None,
        pause_mean_s=_mean_pause_s(
            (ends - starts) / NS_PER_S, np.array([end is not None for _, end in pauses])
        ),
        unavailable=UNAVAILABLE if None in (energy_j, waiting_j) else None,
    )


def _pauses(rows: Sequence[Mapping[str, Any]], turns: int) -> list[tuple[int, int | None]]:
    """Return from when to when conversations waited between an answer and their next turn.

    The end is None where the next turn was not sent before the traffic ended; none follows a
    failure.
    """
    sent = {(row["conversation"], row["turn"]): row["planned_monotonic_ns"] for row in rows}
    pauses = []
    for row in rows:
        answered_ns, next_turn = row["end_monotonic_ns"], row["turn"] + 1
        is_last = next_turn >= (row.get("turns") or turns)
        if answered_ns is None or row["failure"] is not None or is_last:
            continue
        pauses.append((answered_ns, sent.get((row["conversation"], next_turn))))
    return pauses


def _mean_pause_s(lengths_s: Floats, finished: NDArray[np.bool_]) -> float | None:
    """Return the mean length of pauses of which some were cut; None where none was over.

    The longer a pause, the more likely it is cut: the mean of those that were over alone, and that
    of all as they are, are too short. This is the area below the share of pauses that last longer
    than a time (Kaplan and Meier 1958, J. Am. Stat. Assoc. 53, 457-481).
    """
    if not finished.any():
        return None
    order = np.lexsort((~finished, lengths_s))  # among equal lengths, finished pauses come first
    at_risk = np.arange(len(order), 0, -1)
    survival = np.cumprod(1 - finished[order] / at_risk)
    return float(np.diff(lengths_s[order], prepend=0.0) @ np.append(1.0, survival[:-1]))


def _gaps(flight: InFlight, waiting: InFlight, window: Span) -> list[Span]:
    """Return stretches without a request under way, cut where a conversation waits or none does.

    Adjacent stretches of the same kind are merged.
    """
    changes = np.unique(np.concatenate((window, flight.at_ns, waiting.at_ns)))
    inside = changes[(changes >= window[0]) & (changes <= window[1])]
    gaps: list[Span] = []
    for low, high in pairwise(inside.tolist()):
        if flight.at(low):
            continue
        touches_last = gaps and gaps[-1][1] == low
        if touches_last and bool(waiting.at(gaps[-1][0])) == bool(waiting.at(low)):
            low = gaps.pop()[0]
        gaps.append((low, high))
    return gaps


def _inner_energy(account: Account, span: Span) -> tuple[float, float, float, int] | None:
    """Return what a gap draws as far from its ends as a sensor's value may reach; None if short.

    In J, with the half widths of its random and its shared part, and its length in ns.
    """
    edge_ns = round(account.resolution_s * NS_PER_S)
    low, high = span[0] + round(LAG_ALLOWANCE_S * NS_PER_S) + edge_ns, span[1] - edge_ns
    part = account.stretch(low, high) if high - low >= max(edge_ns, 1) else None
    if part is None or part.gross_u95_j is None:
        return None
    shared_j = part.shared_u95_j or 0.0
    return part.gross_j, quadrature_difference(part.gross_u95_j, shared_j), shared_j, high - low


def _total_energy(
    inner_energies: Mapping[Span, tuple[float, float, float, int] | None], spans: Sequence[Span]
) -> tuple[float | None, float | None]:
    """Return the energy of several gaps together and the half width of its 95 % interval.

    At its ends a gap shares a sensor's value with the work. So its power is that of its inside, as
    far from the ends as a value may reach, over all of the gap; the power of gaps that are too
    short to have an inside is the others' mean, as unsure as theirs differ.
    """
    if not spans:
        return 0.0, 0.0
    measured, shared_u95_j, short_ns = [], 0.0, []
    for low, high in spans:
        inner = inner_energies[low, high]
        if inner is None:
            short_ns.append(high - low)
        else:
            energy_j, random_j, shared_j, length_ns = inner
            measured.append((energy_j, random_j, length_ns, high - low))
            shared_u95_j += shared_j * (high - low) / length_ns
    if not measured or (short_ns and len(measured) < MIN_MEASURED_GAPS):
        return None, None
    inner_j, randoms_j, inner_ns, gaps_ns = np.array(measured, dtype=np.float64).T
    energy_j = float(np.sum(inner_j * gaps_ns / inner_ns))
    # Chance adds in quadrature, what all gaps share adds up.
    u95_j = math.hypot(*(randoms_j * gaps_ns / inner_ns), shared_u95_j)
    mean = float(inner_j.sum() / inner_ns.sum())
    scatter = float(np.std(inner_j / inner_ns, ddof=1)) if short_ns else 0.0
    # Short gaps may all differ from the others in the same direction.
    return energy_j + mean * sum(short_ns), u95_j + COVERAGE_FACTOR * scatter * sum(short_ns)
