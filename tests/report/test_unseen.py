"""What no interval includes: time that a sensor may not have seen, and what versions count."""

from typing import Any

import pytest

from llenergymeasure.report.findings import CAVEAT_COLUMNS, interval_caveats


def run(bound_j: float | None = None, *codes: str, **changes: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(CAVEAT_COLUMNS),
        "status": "completed",
        "kind": "measured",
        "energy_method": 6,
        "validity": [*codes],
        "energy_gross_j": 100.0,
        "energy_u95_j": 0.1,
        "energy_bound_j": bound_j,
        **changes,
    }


def unseen(bound_j: float | None) -> dict[str, Any]:
    return run(bound_j, "undersampled")


def without_bound(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "energy_bound_j"}


@pytest.mark.parametrize(
    ("runs", "parts"),
    [
        ([unseen(61.0)], ("In the one run nothing", "by up to ±61 %, which")),
        ([unseen(61.0), unseen(1.0)], ("In 1 of 2 runs", "±61 %")),
        ([unseen(61.0)] * 1200, ("In 1,200 of 1,200 runs", "±61 %")),
        ([unseen(None)], ("off by an amount that some records do not hold, which",)),
        ([without_bound(unseen(None)), unseen(30.0)], ("In 2 of 2", "±30 %, or an amount that")),
    ],
)
def test_how_far_off_a_load_in_step_may_be(runs: list[Any], parts: tuple[str, ...]) -> None:
    assert set(run()) == CAVEAT_COLUMNS
    (sentence,) = interval_caveats(runs)
    assert all(part in sentence for part in parts)
    assert "±0 %" not in sentence


@pytest.mark.parametrize("code", ["counter_unverified", "undersampled"])
def test_nothing_is_said_where_readings_of_all_of_the_time_bound_it(code: str) -> None:
    assert interval_caveats([run(0.7, code)]) == []
    assert interval_caveats([run(61.0, "throttled")]) == []


@pytest.mark.parametrize(
    ("came", "worked", "expected"),
    [
        ((None, None), (None, None), []),
        ((None, None), (19.5, 20), []),
        ((195, 200), (19.5, 20), []),
        ((None, 200), (19.5, 20), ["1 of 2 runs"]),
        ((None, 200), (None, 20), ["1 of 2 runs"]),
        ((None, None), (None, 20), ["1 of 2 runs"]),
        ((None, None, 200), (None, 20, 20), ["2 of 3 runs"]),
    ],
)
def test_tokens_and_requests_that_two_versions_count_otherwise_are_named(
    came: tuple[int | None, ...], worked: tuple[float | None, ...], expected: list[str]
) -> None:
    rows = [
        run(offered_requests_per_s=2.0, output_tokens_came=tokens, requests_worked=requests)
        for tokens, requests in zip(came, worked, strict=True)
    ]
    sentences = interval_caveats(rows)
    assert [sentence.partition(" under traffic")[0] for sentence in sentences] == expected
