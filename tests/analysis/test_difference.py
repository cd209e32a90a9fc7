"""Two values of one figure: what is a difference, and what is the arithmetic's own."""

from pathlib import Path

import pytest

from llenergymeasure.analysis.recompute import differences

RECORD = Path("result.json")


@pytest.mark.parametrize(
    ("off", "differs"), [(0.0, False), (1e-12, False), (1e-8, True), (0.1, True)]
)
def test_a_figure_that_is_off_by_more_than_rounding_is_named(off: float, differs: bool) -> None:
    recorded = {"energy": {"readings": [{"gross_j": 1.0}, {"gross_j": 2.0}]}}
    fresh = {"energy": {"readings": [{"gross_j": 1.0}, {"gross_j": 2.0 * (1 + off)}]}}
    found = [each.figure for each in differences(RECORD, recorded, fresh)]
    assert found == ["energy.readings[1].gross_j"] * differs


@pytest.mark.parametrize(
    ("recorded", "fresh"), [(1.0, None), (None, 0.0), ("a", "b"), ([1], [1, 2]), ({"a": 1}, {})]
)
def test_what_only_one_of_the_two_has_is_a_difference(recorded: object, fresh: object) -> None:
    assert len(list(differences(RECORD, recorded, fresh))) == 1
