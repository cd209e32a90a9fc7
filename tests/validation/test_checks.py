"""The checks of a card: each says *not ok* where it must, and *inconclusive* where it cannot."""

import inspect
from typing import Any

import numpy as np
import pytest
from gpu_stages import checks
from gpu_stages.sensor import Ticks

RUN = {
    "j_per_token": 0.5,
    "tokens_per_s": 1000.0,
    "power_w": 500.0,
    "window_s": 20.0,
    "counter_w": 500.2,
    "validity": [],
    "released": [True],
}
WINDOW = {
    "seconds": 5.0,
    "meter_w": 500.0,
    "meter_u95_w": 2.0,
    "zeus_w": 497.0,
    "most_w": 600.0,
    "validity": {},
    "meter_s": 5.0,
    "channels": {"counter": {"j": 2500.0, "u95_j": 10.0}, "power": {"j": 2510.0, "u95_j": 20.0}},
}
PLAIN = (95.0, 100.0, 105.0)


def grid(off_ms: float, blind_ms: float = 4.0) -> Ticks:
    return Ticks(0.1, np.arange(3.0), np.arange(3.0), (-off_ms, off_ms), (-1.0, 1.0), blind_ms)


def run(**other: Any) -> dict[str, Any]:
    return {**RUN, **other}


def window(**other: Any) -> dict[str, Any]:
    return {**WINDOW, **other}


def integrated(j: float | None, u95_j: float) -> dict[str, Any]:
    return window(channels={**WINDOW["channels"], "power": {"j": j, "u95_j": u95_j}})


OK = [
    (checks.stage_ended, ("raw", {"exit": 0, "took_s": 3.0})),
    (checks.llem_exit, ("first", "first", {"exit": 0})),
    (checks.llem_exit, ("faults", "refused", {"exit": 1})),
    (checks.identity, ("x", run())),
    (checks.identity, ("x", run(tokens_per_s=1009.0))),
    (checks.within_limit, ("x", 699.0, 700.0)),
    (checks.recomputed, ("x", run())),
    (checks.recomputed, ("x", run(power_w=503.0, counter_unsure_s=0.05))),
    (checks.no_mismatch, ("x", ["throttled"])),
    (checks.given_back, ("x", [True])),
    (checks.channels_agree, ("x", window())),
    (checks.zeus_agrees, ("x", window())),
    (checks.meter_cost, ([1.0, 1.001, 0.999, 1.0],)),
    (checks.regular, (grid(4.0),)),
    (checks.period_found, ("counter", 100.0, PLAIN)),
    (checks.stranger_refused, ("GPU 0 is in use by python3 (pid 1)",)),
    (checks.took_turns, ({"one": (10.0, 11.0), "two": (15.0, 16.0)},)),
]
NOT_OK = [
    (checks.stage_ended, ("raw", {"exit": "over its limit", "took_s": 120.0})),
    (checks.stage_ended, ("raw", {"exit": 0, "error": "KeyError: 1"})),
    (checks.llem_exit, ("first", "first", {"exit": 1})),
    (checks.llem_exit, ("first", "first", {"exit": 1}, [["computes_on_cpu"], ["throttled"]])),
    (checks.llem_exit, ("first", "first", {"exit": 2}, [["computes_on_cpu"]])),
    (checks.llem_exit, ("faults", "refused", {"exit": 0})),
    (checks.llem_exit, ("faults", "refused", {"exit": "over its limit"})),
    (checks.identity, ("x", run(tokens_per_s=1015.0))),
    (checks.identity, ("x", run(j_per_token=0.4))),
    (checks.within_limit, ("x", 720.0, 700.0)),
    (checks.recomputed, ("x", run(power_w=503.0))),
    (checks.no_mismatch, ("x", {"channel_mismatch": "they differ"})),
    (checks.given_back, ("x", [True, False])),
    (checks.given_back, ("x", [None])),
    (checks.channels_agree, ("x", integrated(2540.0, 20.0))),
    (checks.zeus_agrees, ("x", window(zeus_w=485.0))),
    (checks.meter_cost, ([0.95, 0.951, 0.949, 0.95],)),
    (checks.regular, (grid(30.0),)),
    (checks.period_found, ("instant", 120.0, PLAIN)),
    (checks.period_found, ("instant", None, PLAIN)),
    (checks.stranger_refused, (None,)),
    (checks.stranger_refused, ("vLLM did not start",)),
    (checks.took_turns, ({"one": (10.0, 12.0), "two": (11.0, 13.0)},)),
    (checks.took_turns, ({"one": (10.0, 12.0)},)),
]
INCONCLUSIVE = [
    (checks.llem_exit, ("first", "first", {"exit": 1}, [["computes_on_cpu"]])),
    (checks.identity, ("x", run(window_s=1.0))),
    (checks.within_limit, ("x", 699.0, None)),
    (checks.recomputed, ("x", run(counter_w=None))),
    (checks.given_back, ("x", [])),
    (checks.channels_agree, ("x", integrated(2510.0, 400.0))),
    (checks.channels_agree, ("x", integrated(None, 1.0))),
    (checks.zeus_agrees, ("x", window(seconds=0.5))),
    (checks.zeus_agrees, ("x", window(meter_w=None))),
    (checks.meter_cost, ([0.8, 1.2, 1.0, 1.0],)),
    (checks.meter_cost, ([1.0, 1.0],)),
    (checks.regular, (None,)),
    (checks.regular, (grid(13.5, blind_ms=30.0),)),
    (checks.period_found, ("counter", 100.0, None)),
]


VERDICTS = [
    (verdict, check, given)
    for verdict, rows in (("ok", OK), ("not ok", NOT_OK), ("inconclusive", INCONCLUSIVE))
    for check, given in rows
]


@pytest.mark.parametrize(("verdict", "check", "given"), VERDICTS)
def test_a_check_says_what_holds_and_where_it_could_not_know(
    verdict: str, check: Any, given: tuple[Any, ...]
) -> None:
    assert check(*given).verdict == verdict


def test_every_check_is_tried_both_ways() -> None:
    every = {
        function
        for _, function in inspect.getmembers(checks, inspect.isfunction)
        if function.__annotations__.get("return") is checks.Check and function.__name__[0] != "_"
    }
    assert {check for check, _ in OK} == every
    assert {check for check, _ in NOT_OK} == every


def test_a_run_without_energy_is_not_ok() -> None:
    (only,) = checks.run_checks("x", run(power_w=None), 700.0)
    assert only.verdict == "not ok"
