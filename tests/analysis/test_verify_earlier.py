"""An energy of an earlier method is held against today's as far as the two methods differ."""

from pathlib import Path

import pytest

from llenergymeasure.analysis.recompute import _earlier_method
from llenergymeasure.results.energy import Energy, Reading
from llenergymeasure.results.layout import RunFolder


def energy(power_j: float, u95_j: float, headline: str) -> Energy:
    """An RTX 3090 of 1000 J by its counter."""
    values = {"counter": (1000.0, 1.0), "power": (power_j, u95_j)}
    readings = [
        Reading(
            device="GPU-1",
            sensor="nvml",
            kind="measured",
            scope="gpu",
            channel=channel,
            headline=channel == headline,
            gross_j=gross_j,
            gross_u95_j=half_j,
        )
        for channel, (gross_j, half_j) in values.items()
    ]
    gross_j, half_j = values[headline]
    return Energy(kind="measured", source="nvml", readings=readings, gross_j=gross_j, u95_j=half_j)


@pytest.mark.parametrize("headline", ["counter", "power"])
def test_power_readings_of_before_method_6_may_differ_beyond_their_intervals(headline: str) -> None:
    old, new = energy(999.09, 1.53, headline), energy(1016.53, 2.49, headline)
    assert list(_earlier_method(RunFolder(Path("run")), old, new)) == []
    false = energy(1100.0, 1.53, headline)
    found = {each.figure for each in _earlier_method(RunFolder(Path("run")), false, new)}
    shown = {"energy.readings[1].gross_j"} | ({"energy.gross_j"} if headline == "power" else set())
    assert found == shown
