"""How long calls on the simulated card take."""

from __future__ import annotations

import json
from pathlib import Path

from nvml_sim import sim

TIMED = """
import json, time, pynvml as n
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


def timed_ms(folder: Path, sensor: sim.Sensor, clock=None) -> dict[str, float]:
    path = sim.Trace([sim.Device(sensor=sensor)]).write(folder)
    result = sim.run_python(TIMED, sim.environment(path, clock=clock))
    assert result.returncode == 0, result.stderr
    times_ms: dict[str, float] = json.loads(result.stdout)
    return times_ms


def test_each_kind_of_call_takes_its_time(tmp_path) -> None:
    times_ms = timed_ms(tmp_path, sim.Sensor(call_ms=CALLS_MS))
    for name, ms in times_ms.items():
        minimum_ms = CALLS_MS.get(name.split()[0], 0)
        assert minimum_ms <= ms < minimum_ms + 15, times_ms


def test_calls_take_no_time_of_their_own_else(tmp_path, clock) -> None:
    assert max(timed_ms(tmp_path, sim.Sensor()).values()) < 3
    assert max(timed_ms(tmp_path, sim.Sensor(call_ms=CALLS_MS), clock).values()) < 3


def test_a_slow_call_answers_as_things_are_at_its_end_and_holds_no_one_up(tmp_path) -> None:
    """While one thread waits 300 ms for the counter, another reads power again and again."""
    code = """
import threading, time, pynvml as n
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
answers = []
def read():
    answers.append(n.nvmlDeviceGetTotalEnergyConsumption(handle))
thread = threading.Thread(target=read)
thread.start()
count = 0
while thread.is_alive():
    n.nvmlDeviceGetPowerUsage(handle)
    count += 1
n.nvmlShutdown()
print(count > 20, answers[0] >= 250_000)
"""
    sensor = sim.Sensor(call_ms={"counter": 300}, counter_update_ms=1)
    path = sim.Trace([sim.Device([(0, 1000)], sensor)]).write(tmp_path)
    result = sim.run_python(code, sim.environment(path))
    assert result.stdout == "True True\n", result.stderr


def test_a_call_that_waits_past_the_end_of_the_session_says_so(tmp_path) -> None:
    code = """
import threading, time, pynvml as n
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
def end():
    time.sleep(0.05)
    n.nvmlShutdown()
threading.Thread(target=end).start()
try:
    n.nvmlDeviceGetTotalEnergyConsumption(handle)
except n.NVMLError_Uninitialized:
    print("uninitialised")
"""
    path = sim.Trace([sim.Device(sensor=sim.Sensor(call_ms={"counter": 400}))]).write(tmp_path)
    result = sim.run_python(code, sim.environment(path))
    assert result.stdout == "uninitialised\n", result.stderr
