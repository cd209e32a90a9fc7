"""Components to one interval, and calibrations read strictly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.meter.uncertainty import Component, expanded


def test_one_bounded_effect_is_never_wider_than_its_bound() -> None:
    assert expanded([Component.bounded("end", 2.0)]) == pytest.approx(2.0)


def test_effects_add_in_quadrature() -> None:
    parts = [Component("one", 3.0), Component("other", 4.0)]
    assert expanded(parts) == pytest.approx(1.96 * 5.0)


def test_nothing_unsure_is_no_interval() -> None:
    assert expanded([]) == 0.0


limits = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=4)


@given(limits, st.lists(st.floats(0.0, 3.0), max_size=2))
def test_more_effects_never_narrow_the_interval(limits_j: list[float], free_j: list[float]) -> None:
    parts = [Component.bounded("b", limit) for limit in limits_j]
    parts += [Component("f", standard) for standard in free_j]
    assert expanded(parts) <= expanded([*parts, Component("more", 1.0)]) + 1e-12
    assert expanded(parts[:-1]) <= expanded(parts) + 1e-12


@pytest.mark.parametrize("limits_j", [(1.0,), (1.0, 1.0), (1.0, 0.3), (1.0, 1.0, 1.0), (2.0, 0.1)])
def test_uniform_errors_are_covered(limits_j: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    errors = sum(rng.uniform(-limit, limit, 100_000) for limit in limits_j)
    half = expanded(Component.bounded("b", limit) for limit in limits_j)
    assert np.mean(np.abs(errors) <= half) >= 0.95
