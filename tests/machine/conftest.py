"""A simulated card for processes under test: real nvidia-ml-py, real files, real signals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nvml_sim import sim
from support.forks import run_forked

UUID = "GPU-51b0cafe-0000-4000-8000-000000000000"
LIMITED = {
    "power_limit_w": {"default": 400, "min": 100, "max": 500},
    "clocks": {"sm_mhz": 1980, "max": 1980, "min": 210},
}


@pytest.fixture
def simulated(
    tmp_path: Path,
    library: Path,  # noqa: ARG001 - builds it
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, str]]:
    """Makes a machine with the cards given; returns its environment.

    The variables are set for this process too, so that children of it see the cards. What is set
    on a card is kept in a file, so that all processes see it.
    """
    runtime = tmp_path / "runtime"
    monkeypatch.setenv("LLEM_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def machine(*devices: sim.Device, **keys: object) -> dict[str, str]:
        trace = sim.Trace(devices or [sim.Device(keys=LIMITED)], keys).write(tmp_path)
        variables = sim.environment(trace, state=tmp_path / "state")
        for name, value in variables.items():
            if name.startswith("NVML_SIM") or name == "LD_LIBRARY_PATH":
                monkeypatch.setenv(name, value)
        return {**variables, "LLEM_RUNTIME_DIR": str(runtime)}

    return machine


def run_json(
    code: str, environment: dict[str, str], *arguments: str, module: str = "pynvml"
) -> Any:
    """Return what code prints as JSON in a process of its own that sees the cards."""
    result = run_forked(code, environment, *arguments, modules=(module,))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


CARD = """
import json, sys, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByUUID(sys.argv[1])
"""


def read_back(environment: dict[str, str], uuid: str = UUID) -> tuple[float, int]:
    """Return a card's power limit in W and SM clock in MHz as another process reads them."""
    code = (
        "limit = pynvml.nvmlDeviceGetPowerManagementLimit(card) / 1000\n"
        "print(json.dumps([limit, pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM)]))\n"
    )
    limit, clock = run_json(CARD + code, environment, uuid)
    return limit, clock


def set_limit(environment: dict[str, str], limit_w: float) -> None:
    """Set a card's power limit as somebody else does."""
    code = "print(pynvml.nvmlDeviceSetPowerManagementLimit(card, int(sys.argv[2])) or 0)\n"
    run_json(CARD + code, environment, UUID, str(round(limit_w * 1000)))
