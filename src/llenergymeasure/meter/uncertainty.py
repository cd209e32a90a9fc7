"""From single effects to one interval, by the rules of the GUM (JCGM 100:2008).

Each effect that makes an energy uncertain is a component with a standard uncertainty; many are
bounded besides, such as the unknown part of an update period. Components are independent: their
standard uncertainties add in quadrature (GUM 5.1.2), and the half width of the 95 % interval is
1.96 times the sum, but never more than the bounds added up. The sensor's gain is no component:
repeats do not shrink it, so it stands apart as the band ``u_sys_j``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

COVERAGE_FACTOR = 1.96
"""Half width of the central 95 % of a normal distribution in standard deviations (GUM G.1.3)."""


@dataclass(frozen=True)
class Component:
    """One effect that makes an energy uncertain.

    Attributes:
        name: the effect in a word or two.
        standard_j: its standard uncertainty.
        limit_j: the largest error it can make; null if it has no bound.
    """

    name: str
    standard_j: float
    limit_j: float | None = None

    @classmethod
    def bounded(cls, name: str, limit_j: float) -> "Component":
        """Return an effect known to lie within ±limit and no more (GUM 4.3.7: limit/√3)."""
        return cls(name, limit_j / math.sqrt(3), limit_j)


def expanded(components: Iterable[Component]) -> float:
    """Return the half width of the 95 % interval of the components together, in joules."""
    parts = list(components)
    whole = COVERAGE_FACTOR * math.sqrt(sum(part.standard_j**2 for part in parts))
    free = math.sqrt(sum(part.standard_j**2 for part in parts if part.limit_j is None))
    bounds = sum(part.limit_j for part in parts if part.limit_j is not None)
    return min(whole, bounds + COVERAGE_FACTOR * free)
