"""A run that holds a power limit, and whose supervisor alone is killed."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from machine.conftest import LIMITED, UUID, read_back
from nvml_sim import sim
from support.studies import SERVED, start_llem, wait_for, write_study

pytestmark = pytest.mark.slow


@pytest.fixture
def limited(tmp_path: Path) -> dict[str, str]:
    """What a workflow needs to see a card whose limits can be set."""
    sim.library_or_skip()
    trace = sim.Trace([sim.Device(keys=LIMITED)]).write(tmp_path)
    runtime = {"LLEM_RUNTIME_DIR": str(tmp_path / "runtime")}
    return sim.environment(trace, state=tmp_path / "state") | runtime


def outcome_in(folder: Path) -> dict[str, Any]:
    outcomes = [json.loads(path.read_text()) for path in folder.glob("results/**/outcome.json")]
    return outcomes[0] if outcomes else {}


def test_a_limit_that_is_lifted_within_the_window_disqualifies(
    tmp_path: Path, limited: dict[str, str]
) -> None:
    study = write_study(
        tmp_path, **SERVED, gpu={"power_limit_w": 250}, window={"min_seconds": 4}, n=400
    )
    with start_llem(tmp_path, "run", str(study), **limited) as workflow:
        wait_for(lambda: outcome_in(tmp_path).get("phase") == "measure")
        time.sleep(1.5)
        with (tmp_path / "state").open("a") as state:
            state.write(f"{time.monotonic_ns()} {UUID} power_limit_mw 400000 0\n")
        assert workflow.wait(120) == 1  # it disqualifies every run
    (result,) = tmp_path.glob("results/**/result.json")
    details = json.loads(result.read_text())["provenance"]["validity_details"]
    assert details["limit_lifted"] == f"{UUID}: 400 W in place of 250 W"


def test_the_workflows_end_puts_the_limit_back(tmp_path: Path, limited: dict[str, str]) -> None:
    study = write_study(tmp_path, **SERVED, gpu={"power_limit_w": 250}, window={"min_seconds": 60})
    with start_llem(tmp_path, "run", str(study), **limited) as workflow:
        wait_for(lambda: outcome_in(tmp_path).get("phase") == "measure")
        outcome = outcome_in(tmp_path)
        assert outcome["status"] == "running"
        assert read_back(limited, UUID)[0] == 250
        (limits,) = tmp_path.glob("results/**/limits.json")
        assert json.loads(limits.read_text())["restored"] is None
        os.kill(outcome["pid"], signal.SIGKILL)
        assert workflow.wait(60) == 1
    assert read_back(limited, UUID)[0] == 400
    assert not list((tmp_path / "runtime").glob("limits-*"))
