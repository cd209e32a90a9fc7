"""Adding energies: only what is of one kind and does not overlap.

A measured joule and an estimated one, or a card's and that of the host it sits in, have no sum:
``EnergySum`` refuses it, so that no total can hold one by mistake.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from llenergymeasure.errors import MeterError
from llenergymeasure.results.record import Reading
from llenergymeasure.units import Kind, Scope

_PARTS: dict[Scope, frozenset[Scope]] = {
    "gpu": frozenset({"gpu"}),
    "cpu": frozenset({"cpu"}),
    "dram": frozenset({"dram"}),
    "module": frozenset({"gpu", "cpu", "dram", "module"}),
    "host": frozenset({"gpu", "cpu", "dram", "module", "host"}),
}
"""What each scope holds. A module is a superchip with GPU, CPU and memory."""


class NotAdditiveError(MeterError):
    """Two energies that have no sum: of different kind, or one (partly) within the other."""


def overlap(device: str, scope: Scope, other_device: str, other_scope: Scope) -> bool:
    """Return whether two readings may hold the same joule."""
    if scope == other_scope:
        return device == other_device or scope == "host"
    return bool(_PARTS[scope] & _PARTS[other_scope])


@dataclass(frozen=True)
class EnergySum:
    """Energies of one kind and of disjoint scopes, added up.

    Random effects are independent between devices and add in quadrature; the gains of the sensors
    are those of one make and may all be off the same way, so their bands add (GUM 5.2.2).

    Attributes:
        kind: measured or estimated.
        parts: device and scope of each energy in it.
        gross_j: the energy.
        idle_j: what the devices would have drawn at rest; null if any part's is not known.
        u95_j: half width of the 95 % interval; null if any part's is not known.
        u_sys_j: half width of the gain's band; null if any part's is not known.
    """

    kind: Kind
    parts: tuple[tuple[str, Scope], ...]
    gross_j: float
    idle_j: float | None
    u95_j: float | None
    u_sys_j: float | None

    @classmethod
    def of(cls, reading: Reading) -> "EnergySum":
        """Return the sum of one reading.

        Raises:
            NotAdditiveError: it has no energy.
        """
        if reading.gross_j is None:
            raise NotAdditiveError(f"{reading.device}: no energy to add: {reading.unavailable}")
        return cls(
            reading.kind,
            ((reading.device, reading.scope),),
            reading.gross_j,
            reading.idle_j,
            reading.u95_j,
            reading.u_sys_j,
        )

    @property
    def net_j(self) -> float | None:
        """Return the energy above rest."""
        return None if self.idle_j is None else self.gross_j - self.idle_j

    @property
    def scopes(self) -> list[Scope]:
        """Return what it covers, each scope once."""
        return list(dict.fromkeys(scope for _, scope in self.parts))

    def fits(self, other: "EnergySum") -> bool:
        """Return whether the two can be added."""
        return self.kind == other.kind and not any(
            overlap(*mine, *theirs) for mine in self.parts for theirs in other.parts
        )

    def __add__(self, other: "EnergySum") -> "EnergySum":
        """Add two sums.

        Raises:
            NotAdditiveError: they differ in kind or overlap.
        """
        if self.kind != other.kind:
            raise NotAdditiveError(f"{self.kind} and {other.kind} energy have no sum")
        if not self.fits(other):
            raise NotAdditiveError(
                f"{_names(self.parts)} and {_names(other.parts)} overlap: adding them would count "
                "energy twice"
            )
        return EnergySum(
            self.kind,
            self.parts + other.parts,
            self.gross_j + other.gross_j,
            _added(self.idle_j, other.idle_j),
            None
            if self.u95_j is None or other.u95_j is None
            else math.hypot(self.u95_j, other.u95_j),
            _added(self.u_sys_j, other.u_sys_j),
        )


def total(readings: Iterable[Reading]) -> EnergySum | None:
    """Add readings up; null if there are none.

    Raises:
        NotAdditiveError: they differ in kind, overlap, or lack an energy.
    """
    whole: EnergySum | None = None
    for reading in readings:
        one = EnergySum.of(reading)
        whole = one if whole is None else whole + one
    return whole


def _added(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _names(parts: tuple[tuple[str, Scope], ...]) -> str:
    return " + ".join(f"{scope} {device}" for device, scope in parts)
