"""Adding energies: only what is of one kind and does not overlap.

A measured joule and an estimated one, or a card's and that of the host it sits in, have no sum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from llenergymeasure.energy.window import quadrature_difference
from llenergymeasure.errors import MeterError
from llenergymeasure.results.energy import Reading
from llenergymeasure.units import Kind, Scope

_PARTS: dict[Scope, frozenset[Scope]] = {
    "gpu": frozenset({"gpu"}),
    "cpu": frozenset({"cpu"}),
    "dram": frozenset({"dram"}),
    "module": frozenset({"gpu", "cpu", "dram", "module"}),
    "host": frozenset({"gpu", "cpu", "dram", "module", "host"}),
    "node": frozenset({"gpu", "cpu", "dram", "module", "host", "node"}),
}
"""What each scope holds. A module is a superchip with GPU, CPU and memory."""


class NotAdditiveError(MeterError):
    """Energies that have no sum: of different kind, or one (partly) within another."""


def overlap(device: str, scope: Scope, other_device: str, other_scope: Scope) -> bool:
    """Return whether two readings may hold the same joule."""
    if scope == other_scope:
        return device == other_device or scope in ("host", "node")
    return bool(_PARTS[scope] & _PARTS[other_scope])


@dataclass(frozen=True)
class EnergySum:
    """Energies of one kind and of disjoint scopes, added up.

    The ends of a window are unsure by chance on each device and add in quadrature. What repeats
    share, how far the rest within the window may be off, the bounds, and the gains of sensors of
    one make may all be off the same way on cards that do the same work: they add (GUM 5.2.2).

    Attributes:
        kind: measured or estimated.
        gross_j: the energy.
        net_j: above rest; None if any part's rest is not known.
        gross_u95_j, net_u95_j: half widths of the 95 % intervals; None if any part's is not known.
        shared_u95_j: of the gross interval, what repeats share.
        bound_j: what no load within the power range exceeds.
        u_sys_j: half width of the gain's band.
    """

    kind: Kind
    gross_j: float
    net_j: float | None
    gross_u95_j: float | None
    net_u95_j: float | None
    shared_u95_j: float | None
    bound_j: float | None
    u_sys_j: float | None


def total(readings: Sequence[Reading]) -> EnergySum | None:
    """Add readings up; None if there are none, or one of them has no energy.

    Raises:
        NotAdditiveError: they differ in kind, or overlap.
    """
    if not readings or any(reading.gross_j is None for reading in readings):
        return None
    kinds = {reading.kind for reading in readings}
    if len(kinds) > 1:
        raise NotAdditiveError("measured and estimated energy have no sum")
    for first, second in combinations(readings, 2):
        if overlap(first.device, first.scope, second.device, second.scope):
            raise NotAdditiveError(
                f"{first.scope} {first.device} and {second.scope} {second.device} overlap: adding "
                "them would count energy twice"
            )
    gross_u95_j = net_u95_j = None
    if all(reading.gross_u95_j is not None for reading in readings):
        shared_j = [reading.shared_u95_j or 0.0 for reading in readings]
        random_j = [
            quadrature_difference(reading.gross_u95_j or 0.0, part_j)
            for reading, part_j in zip(readings, shared_j, strict=True)
        ]
        gross_u95_j = math.hypot(*random_j, math.fsum(shared_j))
    if gross_u95_j is not None and all(reading.net_u95_j is not None for reading in readings):
        # Of a net half width, what is not from the gross one is from the rest taken off.
        rests_j = [
            quadrature_difference(part.net_u95_j or 0.0, part.gross_u95_j or 0.0)
            for part in readings
        ]
        net_u95_j = math.hypot(gross_u95_j, math.fsum(rests_j))
    return EnergySum(
        readings[0].kind,
        math.fsum(reading.gross_j or 0.0 for reading in readings),
        _sum([reading.net_j for reading in readings]),
        gross_u95_j,
        net_u95_j,
        _sum([reading.shared_u95_j for reading in readings]),
        _sum([reading.bound_j for reading in readings]),
        _sum([reading.u_sys_j for reading in readings]),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return math.fsum(present) if len(present) == len(values) else None
