"""What energy means outside: watt-hours per 1,000 requests, carbon, cost.

Grid factor, PUE and price are declared by whoever runs the study and shown next to the result:
without them there is no figure.
"""

from dataclasses import dataclass

from llenergymeasure.results.energy import Energy, Footprint
from llenergymeasure.units import J_PER_WH

_J_PER_KWH = 1000 * J_PER_WH


@dataclass(frozen=True)
class SiteFactors:
    """What was declared of the place that the energy was drawn at.

    Attributes:
        grid_gco2e_per_kwh: grams of CO2 equivalent emitted for a kWh from its grid.
        pue: power usage effectiveness: energy of the whole site over that of its computers
            (ISO/IEC 30134-2).
        price_per_kwh: what a kWh costs.
        currency: of the price.
        embodied_kgco2e: emitted in making the hardware, over its lifetime_years; exports use it.
        source: where the figures are from.
    """

    grid_gco2e_per_kwh: float | None = None
    pue: float = 1.0
    price_per_kwh: float | None = None
    currency: str | None = None
    embodied_kgco2e: float | None = None
    lifetime_years: float | None = None
    source: str | None = None

    def site_kwh(self, energy_j: float) -> float:
        """Return the energy drawn by the site for an energy drawn by the computer, in kWh."""
        return energy_j * self.pue / _J_PER_KWH

    def carbon_gco2e(self, energy_j: float | None) -> float | None:
        """Return the emission in grams of CO2 equivalent; None without a grid factor."""
        return self._per_kwh(self.grid_gco2e_per_kwh, energy_j)

    def cost(self, energy_j: float | None) -> float | None:
        """Return the cost in the currency of the price; None without one."""
        return self._per_kwh(self.price_per_kwh, energy_j)

    def _per_kwh(self, factor: float | None, energy_j: float | None) -> float | None:
        return None if factor is None or energy_j is None else self.site_kwh(energy_j) * factor


def footprint(energy: Energy, declared: SiteFactors) -> Footprint | None:
    """Return what a window's headline energy meant at a place; None if there is no energy."""
    if energy.gross_j is None:
        return None
    thousand_j = None if energy.per_request_j is None else 1000 * energy.per_request_j
    return Footprint(
        energy_site_kwh=declared.site_kwh(energy.gross_j),
        pue=declared.pue,
        grid_gco2e_per_kwh=declared.grid_gco2e_per_kwh,
        carbon_gco2e=declared.carbon_gco2e(energy.gross_j),
        carbon_per_1000_requests_gco2e=declared.carbon_gco2e(thousand_j),
        price_per_kwh=declared.price_per_kwh,
        currency=declared.currency,
        cost=declared.cost(energy.gross_j),
        cost_per_1000_requests=declared.cost(thousand_j),
        source=declared.source,
    )


def per_1000_requests_wh(per_request_j: float | None) -> float | None:
    """Return energy per 1,000 requests in Wh, the unit of AIEnergyScore; None if unknown."""
    return None if per_request_j is None else 1000 * per_request_j / J_PER_WH
