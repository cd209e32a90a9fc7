"""The real Zeus measures the simulated card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvml_sim import sim

pytest.importorskip("zeus")

MEASURE = """
import json, time
from zeus.monitor import ZeusMonitor
monitor = ZeusMonitor(approx_instant_energy=False)
start = time.monotonic_ns()
monitor.begin_window("all", sync_execution=False)
time.sleep(1.2)
measured = monitor.end_window("all", sync_execution=False)
print(json.dumps([start, time.monotonic_ns(), {str(k): v for k, v in measured.gpu_energy.items()}]))
"""

CONTROL = """
from zeus.device import get_gpus
gpus = get_gpus()
gpus.set_power_management_limit(0, 250_000)
gpus.set_gpu_locked_clocks(0, 600, 900)
print(gpus.get_power_management_limit(0), gpus.get_gpu_temperature(0), gpus.get_name(0))
print(gpus.get_instant_power_usage(0), gpus.get_average_power_usage(0))
print(gpus.get_supported_graphics_clocks(0, gpus.get_supported_memory_clocks(0)[0])[0])
gpus.reset_power_management_limit(0)
print(gpus.get_power_management_limit(0))
"""


def test_zeus_reads_the_counter_of_each_card(tmp_path: Path) -> None:
    """Its window may be off by one counter step at either end, and by no more."""
    devices = [
        sim.Device(power_w=[(0, 100), (1000, 1100)]),
        sim.Device(power_w=[(0, 300)], sensor=sim.Sensor(counter_update_ms=20)),
    ]
    variables = sim.environment(sim.Trace(devices).write(tmp_path))
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    result = sim.run_python(MEASURE, variables)
    assert result.returncode == 0, result.stderr
    start_ns, end_ns, energy_j = json.loads(result.stdout.splitlines()[-1])
    t0_ns = int(variables["NVML_SIM_T0"])
    for index, device in enumerate(devices):
        a, b = ((ns - t0_ns) / sim.NS_PER_S for ns in (start_ns, end_ns))
        step_s = device.sensor.counter_update_ms / 1000
        shortest = device.true_energy_j(a, b) - 2 * step_s * 350 - 350 * ((b - a) - 1.2)
        longest = device.true_energy_j(a, b) + 2 * step_s * 350
        assert shortest <= energy_j[str(index)] <= longest


def test_zeus_controls_the_card(tmp_path: Path) -> None:
    device = sim.Device(
        name="NVIDIA H200",
        power_w=[(0, 600)],
        keys={"power_limit_w": {"max": 700}, "temperature_c": 45},
    )
    variables = sim.environment(sim.Trace([device]).write(tmp_path))
    variables.pop("CUDA_VISIBLE_DEVICES", None)
    result = sim.run_python(CONTROL, variables)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "250000 45 NVIDIA H200"
    assert all(250_000 <= int(power) <= 600_000 for power in lines[1].split())
    assert lines[2:] == ["1980", "700000"]
