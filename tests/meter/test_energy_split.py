"""Prefill and decode told apart, and energy in other units."""

import numpy as np
import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.meter.account import account
from llenergymeasure.meter.footprint import Declared, wh_per_1000_requests
from llenergymeasure.meter.split import NoSplit, TokenEnergy, split_by_marks, split_by_regression
from support import energy_card as card


def batches(count: int, seed: int, spread_j: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    into, out = rng.integers(100, 4000, count), rng.integers(100, 4000, count)
    energy_j = 0.02 * into + 0.3 * out + rng.normal(0, spread_j, count)
    return energy_j, np.full(count, 1.96 * 5.0), into, out


def test_regression_finds_both_and_its_error_holds() -> None:
    inside = 0
    for seed in range(200):
        found = split_by_regression(*batches(20, seed, 5.0))
        assert isinstance(found, TokenEnergy)
        inside += abs(found.decode_j - 0.3) <= found.decode_u95_j
        inside += abs(found.prefill_j - 0.02) <= found.prefill_u95_j
    assert inside / 400 >= 0.93


def test_scatter_beyond_the_intervals_widens_the_error() -> None:
    calm, wild = (split_by_regression(*batches(20, 3, spread)) for spread in (5.0, 50.0))
    assert wild.decode_u95_j > 4 * calm.decode_u95_j


def test_batches_that_are_alike_cannot_be_split() -> None:
    same = split_by_regression([10.0] * 6, [0.1] * 6, [128] * 6, [64] * 6)
    assert isinstance(same, NoSplit)
    assert "alike" in same.reason
    few = split_by_regression([1.0, 2.0], [0.1, 0.1], [1, 2], [2, 1])
    assert isinstance(few, NoSplit)
    none = split_by_regression([1.0] * 5, [0.1] * 5, [0] * 5, [1, 2, 3, 4, 5])
    assert isinstance(none, NoSplit)


def test_marks_split_the_energy_as_it_was_drawn() -> None:
    power = card.Power([-10, 10, 14, 30, 34, 50], [60, 400, 200, 400, 200, 60])
    made = account(card.record(power), (card.ns(10), card.ns(50)))
    spans = [[(card.ns(a), card.ns(b)) for a, b in part] for part in (
        [(10, 14), (30, 34)], [(14, 30), (34, 50)],
    )]  # fmt: skip
    found = split_by_marks(made, *spans, input_tokens=1000, output_tokens=500)
    assert isinstance(found, TokenEnergy)
    assert found.prefill_j == pytest.approx(3200 / 1000, rel=0.01)
    assert found.decode_j == pytest.approx(6400 / 500, rel=0.01)
    assert found.prefill_u95_j > 0


def test_without_marks_there_is_no_split() -> None:
    made = account(card.record(card.constant(200.0)), (card.ns(10), card.ns(50)))
    assert isinstance(split_by_marks(made, [], [], 10, 10), NoSplit)
    outside = [(card.ns(100), card.ns(110))]
    assert isinstance(split_by_marks(made, outside, outside, 10, 10), NoSplit)


def test_energy_in_other_units() -> None:
    site = Declared(grid_gco2e_per_kwh=400.0, pue=1.5, price_per_kwh=0.2)
    assert site.carbon_gco2e(3.6e6) == pytest.approx(600.0)
    assert site.cost(3.6e6) == pytest.approx(0.3)
    assert wh_per_1000_requests(36.0) == pytest.approx(10.0)


def test_what_was_not_declared_is_not_made_up() -> None:
    assert Declared().carbon_gco2e(1.0) is None
    assert Declared().cost(1.0) is None
    assert wh_per_1000_requests(None) is None


@pytest.mark.parametrize(
    "figures", [{"pue": 0.5}, {"grid_gco2e_per_kwh": -1.0}, {"price_per_kwh": float("nan")}]
)
def test_an_impossible_figure_is_an_error(figures: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"carbon.{next(iter(figures))}"):
        Declared(**figures)
