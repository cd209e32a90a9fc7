"""What is said of sensors that may not have seen all of the time."""

from typing import Any

import pytest

from llenergymeasure.report.findings import CAVEAT_COLUMNS, interval_caveats


def run(bound_j: float | None, code: str = "undersampled") -> dict[str, Any]:
    values = ("completed", [code], 100.0, 0.1, bound_j)
    names = ("status", "validity", "energy_gross_j", "energy_u95_j", "energy_bound_j")
    served = ("offered_requests_per_s", "output_tokens_came", "requests_worked")
    alike = {**dict.fromkeys(served), "energy_method": 6, "kind": "measured"}
    return dict(zip(names, values, strict=True)) | alike


def without_bound(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "energy_bound_j"}


@pytest.mark.parametrize(
    ("runs", "parts"),
    [
        ([run(61.0)], ("In the one run nothing", "by up to ±61 %, which")),
        ([run(61.0), run(1.0)], ("In 1 of 2 runs", "±61 %")),
        ([run(61.0)] * 1200, ("In 1,200 of 1,200 runs", "±61 %")),
        ([run(None)], ("off by an amount that some records do not hold, which",)),
        ([without_bound(run(None)), run(30.0)], ("In 2 of 2", "±30 %, or an amount that")),
    ],
)
def test_how_far_off_a_load_in_step_may_be(runs: list[Any], parts: tuple[str, ...]) -> None:
    assert set(run(1.0)) == CAVEAT_COLUMNS
    (sentence,) = interval_caveats(runs)
    assert all(part in sentence for part in parts)
    assert "±0 %" not in sentence


@pytest.mark.parametrize("code", ["counter_unverified", "undersampled"])
def test_nothing_is_said_where_readings_of_all_of_the_time_bound_it(code: str) -> None:
    assert interval_caveats([run(0.7, code)]) == []
    assert interval_caveats([run(61.0, "throttled")]) == []
