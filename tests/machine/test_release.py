"""Whether a run's cards gave their memory back, asked of the simulated driver."""

import json
import subprocess
import time
from typing import Any

from llenergymeasure.machine.gpus import memory_release
from llenergymeasure.machine.gpus.memory_release import (
    SLACK_BYTES,
    unreleased_lines,
    wait_for_release_in_child,
)
from machine.conftest import UUID, run_json
from nvml_sim import sim

GB = 10**9

ASK = """
import json, sys
from llenergymeasure.machine.gpus.memory_release import wait_for_release_in_child
print(json.dumps(wait_for_release_in_child(json.loads(sys.argv[1]), float(sys.argv[2]))))
"""


def ask(environment: dict[str, str], before: int, limit_s: float = 20.0) -> dict[str, Any]:
    words = (json.dumps({UUID: before}), str(limit_s))
    report: dict[str, Any] = run_json(ASK, environment, *words, module=memory_release.__name__)
    return report


def card(used: Any, **keys: Any) -> sim.Device:
    return sim.Device(keys={"memory": {"total_bytes": 80 * GB, "used_bytes": used}, **keys})


def test_memory_that_is_back_is_told_at_once(simulated: Any) -> None:
    (card_report,) = ask(simulated(card(GB + SLACK_BYTES // 2)), GB).values()
    assert card_report["released"] is True
    assert card_report["waited_s"] < 5
    assert unreleased_lines({UUID: card_report}) == []


def test_memory_that_comes_back_late_is_waited_for(simulated: Any) -> None:
    environment = simulated(card([[0.0, 30 * GB], [2.0, GB]]))
    environment["NVML_SIM_T0"] = str(time.monotonic_ns())
    (card_report,) = ask(environment, GB).values()
    assert card_report["released"] is True
    assert card_report["after_bytes"] == GB


def test_memory_that_stays_is_told_with_who_has_it(simulated: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        environment = simulated(card(30 * GB, processes=[{"pid": other.pid}]))
        report = ask(environment, GB, 0.5)
        other.kill()
    assert report[UUID]["released"] is False
    assert report[UUID]["processes"] == [other.pid]
    (line,) = unreleased_lines(report)
    assert "29.0 GB more in use than before the run" in line
    assert str(other.pid) in line


def test_a_card_that_does_not_answer_is_not_known(simulated: Any) -> None:
    (card_report,) = ask(simulated(card(GB, fail_after_s=-1)), GB).values()
    assert (card_report["released"], card_report["after_bytes"]) == (None, None)
    assert unreleased_lines({UUID: card_report}) == []


def test_without_cards_nothing_is_asked() -> None:
    assert wait_for_release_in_child({}) is None
