"""What a study declares of the place its energy is drawn at: grid, PUE, price, hardware."""

import importlib.util
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from llenergymeasure.config.section import RunSection

_GRID_TABLE = Path("data", "private_infra", "global_energy_mix.json")
"""Where CodeCarbon keeps its table of countries' grids, inside its package."""


class CarbonConfig(RunSection):
    """Carbon and cost of the energy. None of it is part of an experiment's id."""

    grid_gco2e_per_kwh: float | None = Field(
        default=None,
        ge=0,
        le=5000,
        description="Grams of CO2 equivalent emitted for a kWh from the grid.",
        examples=[344.0],
    )
    country: str | None = Field(
        default=None,
        pattern="^[A-Z]{3}$",
        description="In place of grid_gco2e_per_kwh: a country's three letters (ISO 3166), for "
        "the yearly mean of its grid that CodeCarbon ships.",
        examples=["DEU"],
    )
    pue: float = Field(
        default=1.0,
        ge=1,
        le=10,
        description="Power usage effectiveness: energy of the site over that of its computers.",
        examples=[1.2],
    )
    embodied_kgco2e: float | None = Field(
        default=None,
        ge=0,
        le=1e6,
        description="Kilograms of CO2 equivalent emitted in making all the hardware that a run "
        "holds for itself, over its life: for SCI scores (llem export --format sci).",
        examples=[1500],
    )
    lifetime_years: float | None = Field(
        default=None, gt=0, le=50, description="How many years that hardware serves.", examples=[4]
    )
    price_per_kwh: float | None = Field(
        default=None, ge=0, le=1000, description="What a kWh costs.", examples=[0.25]
    )
    currency: str | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="Currency of the price.",
        examples=["EUR"],
    )
    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=1000,
        description="Where these figures are from, for whoever reads the result.",
        examples=["grid operator, 2024; PUE of our site, 2024"],
    )

    def _contradictions(self) -> Iterator[str]:
        if self.grid_gco2e_per_kwh is not None and self.country is not None:
            yield "give grid_gco2e_per_kwh or country, and only one of them"
        if self.grid_gco2e_per_kwh is None and self.country is None and self.price_per_kwh is None:
            yield "give grid_gco2e_per_kwh, country or price_per_kwh"
        if self.price_per_kwh is not None and self.currency is None:
            yield "price_per_kwh needs its currency"
        if (self.embodied_kgco2e is None) != (self.lifetime_years is None):
            yield "embodied_kgco2e and lifetime_years need each other"

    @field_validator("country")
    @classmethod
    def _check_country(cls, country: str | None) -> str | None:
        if country is not None:
            country_grid(country)
        return country

    def for_run(self) -> dict[str, Any]:
        """Return the figures that results are computed with, a country's grid looked up."""
        figures = self.model_dump(exclude_none=True, exclude={"country"})
        if self.country is None:
            return figures
        grid, source = country_grid(self.country)
        sources = [source, *([self.source] if self.source else [])]
        return {**figures, "grid_gco2e_per_kwh": grid, "source": "; ".join(sources)}


@lru_cache
def country_grid(country: str) -> tuple[float, str]:
    """Return a country's gCO2e per kWh from the table that CodeCarbon ships, and its source.

    CodeCarbon is not imported for that: it takes seconds.

    Raises:
        ValueError: CodeCarbon is not installed, or does not know the country.
    """
    package = importlib.util.find_spec("codecarbon")
    if package is None or package.origin is None:
        raise ValueError(
            "country is looked up in codecarbon, which is not installed here: "
            "pip install codecarbon, or give grid_gco2e_per_kwh"
        )
    try:
        table = json.loads((Path(package.origin).parent / _GRID_TABLE).read_text())
        entry = table.get(country)
        if entry is not None:
            grid = float(entry["carbon_intensity"])
            return grid, f"{entry['country_name']}, mean of {entry['year']}, by codecarbon"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"codecarbon's table of grids cannot be read ({error}); give grid_gco2e_per_kwh"
        ) from error
    raise ValueError(f"codecarbon knows no grid of {country}; give grid_gco2e_per_kwh")
