"""How long calls on the simulated card take."""

from __future__ import annotations

import json

import pytest

from hardware_sim.conftest import run_code
from nvml_sim import sim

TIMED = """
import json, time
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
calls = {
    "counter": lambda: n.nvmlDeviceGetTotalEnergyConsumption(handle),
    "counter field": lambda: n.nvmlDeviceGetFieldValues(handle, [186, 83, 187]),
    "power": lambda: n.nvmlDeviceGetPowerUsage(handle),
    "power field": lambda: n.nvmlDeviceGetFieldValues(handle, [187, 185]),
    "other": lambda: n.nvmlDeviceGetTemperature(handle, 0),
    "other field": lambda: n.nvmlDeviceGetFieldValues(handle, [187]),
    "driver": lambda: n.nvmlSystemGetDriverVersion(),
}
took_ms = {}
for name, call in calls.items():
    took_ms[name] = 1e9
    for _ in range(5):
        before = time.monotonic_ns()
        call()
        took_ms[name] = min(took_ms[name], (time.monotonic_ns() - before) / 1e6)
print(json.dumps(took_ms))
"""
CALLS_MS = {"counter": 60, "power": 20, "other": 5}


@pytest.mark.parametrize("stepped", [False, True], ids=["real time", "a stepped clock"])
def test_each_kind_of_call_takes_its_time_where_time_goes_on(
    tmp_path, clock, stepped: bool
) -> None:
    path = sim.Trace([sim.Device(sensor=sim.Sensor(call_ms=CALLS_MS))]).write(tmp_path)
    result = run_code(TIMED, sim.environment(path, clock=clock if stepped else None))
    for name, took_ms in json.loads(result.stdout).items():
        least_ms = 0 if stepped else CALLS_MS.get(name.split()[0], 0)
        assert least_ms <= took_ms < least_ms + 15, result.stdout


def test_a_slow_call_answers_as_things_are_at_its_end_and_holds_no_one_up(tmp_path) -> None:
    """While one thread waits 150 ms for the counter, another reads power and ends the session."""
    code = """
import threading
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
answers = []
def read():
    try:
        answers.append(n.nvmlDeviceGetTotalEnergyConsumption(handle) >= 100_000)
    except n.NVMLError_Uninitialized:
        answers.append("uninitialised")
for ends in (False, True):
    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(20):
        n.nvmlDeviceGetPowerUsage(handle)
    answers.append(thread.is_alive())
    if ends:
        n.nvmlShutdown()
    thread.join()
print(answers)
"""
    sensor = sim.Sensor(call_ms={"counter": 150}, counter_update_ms=1)
    path = sim.Trace([sim.Device([(0, 1000)], sensor)]).write(tmp_path)
    result = run_code(code, sim.environment(path))
    assert result.stdout == "[True, True, True, 'uninitialised']\n", result.stderr
