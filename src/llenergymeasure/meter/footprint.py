"""What energy means outside: watt-hours per 1,000 requests, carbon, cost.

Grid factor, PUE and price are declared by whoever runs the study and stand beside the result:
nothing is looked up, and without them there is no figure.
"""

from dataclasses import dataclass

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import J_PER_WH

_J_PER_KWH = 1000 * J_PER_WH


@dataclass(frozen=True)
class Declared:
    """What was declared of the place that the energy was drawn at.

    Attributes:
        grid_gco2e_per_kwh: grams of CO2 equivalent emitted for a kWh from its grid.
        pue: power usage effectiveness: energy of the whole site over that of its computers
            (ISO/IEC 30134-2).
        price_per_kwh: what a kWh costs.
        source: where the figures are from.

    Raises:
        ConfigurationError: a figure that cannot be.
    """

    grid_gco2e_per_kwh: float | None = None
    pue: float = 1.0
    price_per_kwh: float | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if not 1.0 <= self.pue <= 10.0:
            problems.append(Problem("must be from 1 to 10", "carbon.pue", str(self.pue)))
        for key in ("grid_gco2e_per_kwh", "price_per_kwh"):
            value = getattr(self, key)
            if value is not None and not 0.0 <= value < float("inf"):
                problems.append(Problem("must be 0 or more", f"carbon.{key}", str(value)))
        if problems:
            raise ConfigurationError(problems)

    def site_kwh(self, energy_j: float) -> float:
        """Return the energy drawn by the site for an energy drawn by the computer, in kWh."""
        return energy_j * self.pue / _J_PER_KWH

    def carbon_gco2e(self, energy_j: float) -> float | None:
        """Return the emission in grams of CO2 equivalent; null without a grid factor."""
        if self.grid_gco2e_per_kwh is None:
            return None
        return self.site_kwh(energy_j) * self.grid_gco2e_per_kwh

    def cost(self, energy_j: float) -> float | None:
        """Return the cost in the currency of the price; null without one."""
        return None if self.price_per_kwh is None else self.site_kwh(energy_j) * self.price_per_kwh


def wh_per_1000_requests(per_request_j: float | None) -> float | None:
    """Return energy per 1,000 requests in Wh, the unit of AIEnergyScore; null if unknown."""
    return None if per_request_j is None else 1000 * per_request_j / J_PER_WH
