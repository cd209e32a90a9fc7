"""Orders of runs: each holds every run once, and balances what it says it balances."""

from collections import Counter
from itertools import pairwise
from operator import itemgetter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.execution import CycleOrder
from llenergymeasure.plan.orders import order_slots

ORDERS: tuple[CycleOrder, ...] = get_args(CycleOrder)
SLOTS = {"experiments": st.integers(1, 12), "cycles": st.integers(1, 12)}


def rows(experiments: int, cycles: int, order: CycleOrder, seed: str = "s") -> list[list[int]]:
    slots = list(order_slots(experiments, cycles, order, seed))
    return [[index for index, cycle in slots if cycle == wanted] for wanted in range(1, cycles + 1)]


@given(order=st.sampled_from(ORDERS), seed=st.text(max_size=5), **SLOTS)
def test_every_run_comes_once_and_cycle_after_cycle_but_in_sequential(
    experiments: int, cycles: int, order: CycleOrder, seed: str
) -> None:
    slots = list(order_slots(experiments, cycles, order, seed))
    expected = {(index, cycle) for index in range(experiments) for cycle in range(1, cycles + 1)}
    assert len(slots) == len(expected)
    assert set(slots) == expected
    if order != "sequential":
        assert slots == sorted(slots, key=itemgetter(1))


@pytest.mark.parametrize(
    ("order", "slots"),
    [
        ("sequential", [(0, 1), (0, 2), (1, 1), (1, 2)]),
        ("interleaved", [(0, 1), (1, 1), (0, 2), (1, 2)]),
    ],
)
def test_cycles_or_experiments_come_first(order: CycleOrder, slots: list[tuple[int, int]]) -> None:
    assert list(order_slots(2, 2, order, "")) == slots


def test_reverse_turns_every_second_cycle_around() -> None:
    assert rows(3, 3, "reverse") == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


@given(experiments=st.integers(1, 9), pairs=st.integers(1, 4))
def test_reverse_gives_all_the_same_mean_place(experiments: int, pairs: int) -> None:
    places = Counter[int]()
    for place, (index, _) in enumerate(order_slots(experiments, 2 * pairs, "reverse", "")):
        places[index] += place
    assert len(set(places.values())) == 1


def test_shuffle_is_the_same_every_time_and_on_every_version() -> None:
    assert rows(5, 2, "shuffled", "seed") == [[1, 0, 4, 2, 3], [2, 1, 4, 3, 0]]


@given(seed=st.text(max_size=5), **SLOTS)
def test_shuffle_depends_on_its_seed_alone(experiments: int, cycles: int, seed: str) -> None:
    once = rows(experiments, cycles, "shuffled", seed)
    assert once == rows(experiments, cycles, "shuffled", seed)
    assert once == rows(experiments, cycles + 1, "shuffled", seed)[:cycles]


def test_shuffled_cycles_differ_from_each_other_and_between_seeds() -> None:
    once = rows(20, 4, "shuffled", "a")
    assert len({tuple(row) for row in once}) == 4
    assert once != rows(20, 4, "shuffled", "b")


@pytest.mark.parametrize("experiments", range(1, 11))
def test_in_a_latin_square_places_and_neighbours_are_equally_often_each(experiments: int) -> None:
    cycles = experiments if experiments % 2 == 0 else 2 * experiments
    square = rows(experiments, cycles, "latin_square")
    places = Counter((index, place) for row in square for place, index in enumerate(row))
    assert len(places) == experiments**2
    pairs = Counter(pair for row in square for pair in pairwise(row))
    assert len(pairs) == experiments * (experiments - 1)
    assert {*places.values(), *pairs.values()} == {cycles // experiments}


@given(experiments=st.integers(2, 12), cycles=st.integers(1, 11))
def test_few_cycles_of_a_latin_square_never_repeat_a_place(experiments: int, cycles: int) -> None:
    cycles = min(cycles, experiments)
    square = rows(experiments, cycles, "latin_square")
    for place in range(experiments):
        assert len({row[place] for row in square}) == cycles
