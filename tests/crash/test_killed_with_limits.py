"""A run that holds a power limit, and whose supervisor alone is killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from machine.conftest import LIMITED, UUID, read_back
from nvml_sim import sim
from support.studies import start_llem, wait_for, write_study

pytestmark = pytest.mark.slow


def test_the_workflows_end_puts_the_limit_back(tmp_path: Path) -> None:
    sim.library_or_skip()
    trace = sim.Trace([sim.Device(keys=LIMITED)]).write(tmp_path)
    runtime = {"LLEM_RUNTIME_DIR": str(tmp_path / "runtime")}
    variables = sim.environment(trace, state=tmp_path / "state") | runtime
    study = write_study(tmp_path, gpu={"power_limit_w": 250}, window={"min_seconds": 60})

    def outcome() -> dict[str, Any]:
        found = [json.loads(path.read_text()) for path in tmp_path.glob("results/**/outcome.json")]
        return found[0] if found else {}

    with start_llem(tmp_path, "run", str(study), **variables) as workflow:
        wait_for(lambda: outcome().get("phase") == "measure")
        assert outcome()["status"] == "running"
        assert read_back(variables, UUID)[0] == 250
        (limits,) = tmp_path.glob("results/**/limits.json")
        assert json.loads(limits.read_text())["restored"] is None
        os.kill(outcome()["pid"], signal.SIGKILL)
        assert workflow.wait(60) == 1
    assert read_back(variables, UUID)[0] == 400
    assert not list((tmp_path / "runtime").glob("limits-*"))
