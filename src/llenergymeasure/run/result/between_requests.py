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
from llenergymeasure.energy.window import COVERAGE_FACTOR, LAG_ALLOWANCE_S, without
from llenergymeasure.results.serving import Gaps
from llenergymeasure.run.result.offered_load import InFlight
from llenergymeasure.units import NS_PER_S

Span = tuple[int, int]

UNAVAILABLE = "the sensors show too little of the gaps: too few are long enough"
FEWEST = 4
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
    waiting = InFlight.of(starts, ends)
    idle = _gaps(flight, waiting, window)
    held = [span for span in idle if waiting.at(span[0])]
    held_ns = sum(high - low for low, high in held)
    kept = sum(waiting.mean(*span) * (span[1] - span[0]) for span in held)
    insides = {span: _inside(account, span) for span in idle}
    energy_j, u95_j = _drawn(insides, idle)
    held_j, held_u95_j = _drawn(insides, held)
    return Gaps(
        duration_s=sum(high - low for low, high in idle) / NS_PER_S,
        energy_j=energy_j,
        u95_j=u95_j,
        waiting_duration_s=held_ns / NS_PER_S,
        waiting_energy_j=held_j,
        waiting_u95_j=held_u95_j,
        waiting_conversations_mean=kept / held_ns if held_ns else None,
        pause_mean_s=_mean_pause_s(
            (ends - starts) / NS_PER_S, np.array([end is not None for _, end in pauses])
        ),
        unavailable=None if None not in (energy_j, held_j) else UNAVAILABLE,
    )


def _pauses(rows: Sequence[Mapping[str, Any]], turns: int) -> list[tuple[int, int | None]]:
    """Return from when to when conversations waited between an answer and their next turn.

    The end is None where the next turn was not sent before the traffic ended; none follows a
    failure.
    """
    sent = {(row["conversation"], row["turn"]): row["planned_monotonic_ns"] for row in rows}
    found = []
    for row in rows:
        answered_ns, following = row["end_monotonic_ns"], row["turn"] + 1
        last = following >= (row.get("turns") or turns)
        if answered_ns is None or row["failure"] is not None or last:
            continue
        found.append((answered_ns, sent.get((row["conversation"], following))))
    return found


def _mean_pause_s(lengths_s: Floats, over: NDArray[np.bool_]) -> float | None:
    """Return the mean length of pauses of which some were cut; None where none was over.

    The longer a pause, the more likely it is cut: the mean of those that were over alone, and that
    of all as they are, are too short. This is the area below the share of pauses that last longer
    than a time (Kaplan and Meier 1958, J. Am. Stat. Assoc. 53, 457-481).
    """
    if not over.any():
        return None
    order = np.lexsort((~over, lengths_s))  # among equal lengths, finished pauses come first
    at_risk = np.arange(len(order), 0, -1)
    lasting = np.cumprod(1 - over[order] / at_risk)
    return float(np.diff(lengths_s[order], prepend=0.0) @ np.append(1.0, lasting[:-1]))


def _gaps(flight: InFlight, waiting: InFlight, window: Span) -> list[Span]:
    """Return stretches without a request under way, cut where a conversation waits or none does.

    Adjacent stretches of the same kind are merged.
    """
    changes = np.unique(np.concatenate((window, flight.at_ns, waiting.at_ns)))
    inside = changes[(changes >= window[0]) & (changes <= window[1])]
    found: list[Span] = []
    for low, high in pairwise(inside.tolist()):
        if flight.at(low):
            continue
        goes_on = found and found[-1][1] == low
        if goes_on and bool(waiting.at(found[-1][0])) == bool(waiting.at(low)):
            low = found.pop()[0]
        found.append((low, high))
    return found


def _inside(account: Account, span: Span) -> tuple[float, float, float, int] | None:
    """Return what a gap draws as far from its ends as a sensor's value may reach; None if short.

    In J, with the half widths of its random and its shared part, and its length in ns.
    """
    edge_ns = round(account.resolution_s * NS_PER_S)
    low, high = span[0] + round(LAG_ALLOWANCE_S * NS_PER_S) + edge_ns, span[1] - edge_ns
    part = account.stretch(low, high) if high - low >= max(edge_ns, 1) else None
    if part is None or part.gross_u95_j is None:
        return None
    shared_j = part.shared_u95_j or 0.0
    return part.gross_j, without(part.gross_u95_j, shared_j), shared_j, high - low


def _drawn(
    insides: Mapping[Span, tuple[float, float, float, int] | None], spans: Sequence[Span]
) -> tuple[float | None, float | None]:
    """Return the energy of several gaps together and the half width of its 95 % interval.

    At its ends a gap shares a sensor's value with the work. So its power is that of its inside, as
    far from the ends as a value may reach, over all of the gap; the power of gaps that are too
    short to have an inside is the others' mean, as unsure as theirs differ.
    """
    if not spans:
        return 0.0, 0.0
    shown, shared, short_ns = [], 0.0, []
    for low, high in spans:
        inside = insides[low, high]
        if inside is None:
            short_ns.append(high - low)
        else:
            energy_j, random_j, shared_j, length_ns = inside
            shown.append((energy_j, random_j, length_ns, high - low))
            shared += shared_j * (high - low) / length_ns
    if not shown or (short_ns and len(shown) < FEWEST):
        return None, None
    inside_j, randoms_j, inside_ns, whole_ns = np.array(shown, dtype=np.float64).T
    energy_j = float(np.sum(inside_j * whole_ns / inside_ns))
    # Chance adds in quadrature, what all gaps share adds up.
    u95_j = math.hypot(*(randoms_j * whole_ns / inside_ns), shared)
    mean = float(inside_j.sum() / inside_ns.sum())
    scatter = float(np.std(inside_j / inside_ns, ddof=1)) if short_ns else 0.0
    # Short gaps may all differ from the others in the same direction.
    return energy_j + mean * sum(short_ns), u95_j + COVERAGE_FACTOR * scatter * sum(short_ns)
