"""A run beside somebody else's on the same node is marked."""

import os
from pathlib import Path

import pytest

from nvml_sim import sim
from support.attempts import start

pytestmark = pytest.mark.slow


def test_a_neighbour_on_another_gpu_of_the_node_marks_the_run(tmp_path: Path) -> None:
    sim.library_or_skip()
    busy = {"processes": [{"pid": os.getpid()}]}
    cards = [sim.Device(uuid="GPU-ours"), sim.Device(uuid="GPU-theirs", keys=busy)]
    variables = sim.environment(sim.Trace(cards).write(tmp_path), base={})
    variables |= {"LLEM_RUNTIME_DIR": str(tmp_path / "runtime"), "CUDA_VISIBLE_DEVICES": "0"}
    attempt = start(tmp_path, variables=variables, window={"min_seconds": 2})
    assert attempt.process.wait(180) == 0
    result = attempt.result()
    assert "shared_node" in result["validity"]
    assert "other_process" not in result["validity"]
    # The card is simulated, so that no process of the run is on it.
    assert "other_gpu" in result["validity"]
    assert "GPU-theirs" in result["provenance"]["validity_details"]["shared_node"]
    assert [card["uuid"] for card in result["environment"]["gpus"]] == ["GPU-ours"]
