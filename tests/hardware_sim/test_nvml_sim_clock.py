"""Time on the simulated card: one zero for all, threads and forks, load as it comes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hardware_sim.conftest import run_code
from nvml_sim import sim

READ_NOW = """
import json, time
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
before = time.monotonic_ns()
energy = n.nvmlDeviceGetTotalEnergyConsumption(handle)
print(json.dumps([before, energy, time.monotonic_ns()]))
"""


def test_processes_agree_on_time_zero(tmp_path: Path) -> None:
    device = sim.Device(power_w=[(0, 0), (1000, 1000)])
    t0_ns = time.monotonic_ns() - 400 * sim.NS_PER_S
    variables = sim.environment(sim.Trace([device]).write(tmp_path), t0_ns=t0_ns)
    for _ in range(2):
        before_ns, energy_mj, after_ns = json.loads(run_code(READ_NOW, variables).stdout)
        low_mj, high_mj = (device.counter_mj(at_ns - t0_ns) for at_ns in (before_ns, after_ns))
        assert low_mj - 1 <= energy_mj <= high_mj + 1  # a tie may be rounded either way
        assert energy_mj > 79_000_000


def test_without_t0_time_begins_with_the_first_init_and_inits_are_counted(tmp_path: Path) -> None:
    code = """
import time
def energy_mj():
    return n.nvmlDeviceGetTotalEnergyConsumption(handle)
n.nvmlInit()
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
print(energy_mj())
n.nvmlShutdown()
time.sleep(0.11)
print(energy_mj() >= 10_000)
n.nvmlShutdown()
for call in (energy_mj, n.nvmlShutdown):
    try:
        call()
    except n.NVMLError_Uninitialized:
        print("uninitialised")
n.nvmlInit()
print(energy_mj() >= 10_000)
"""
    variables = sim.environment(sim.Trace().write(tmp_path))
    del variables["NVML_SIM_T0"]
    expected = ["0", "True", "uninitialised", "uninitialised", "True"]
    assert run_code(code, variables).stdout.split() == expected


def test_many_threads_read_the_truth_at_once(tmp_path: Path) -> None:
    code = """
import json, threading
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
faults, finished = [], []
def read(number):
    last = 0
    for i in range(1000):
        energy = n.nvmlDeviceGetTotalEnergyConsumption(handle)
        power = n.nvmlDeviceGetFieldValues(handle, [186, 83])[0].value.uiVal
        if energy < last or power not in (250_000, 300_000):
            faults.append((energy, last, power))
        last = energy
        if number == 0 and i % 100 == 0:
            n.nvmlDeviceSetPowerManagementLimit(handle, 300_000 + i)
        if number == 1 and i % 50 == 0:
            n.nvmlInit()
            n.nvmlShutdown()
    finished.append(number)
threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(json.dumps([faults, sorted(finished)]))
"""
    path = sim.Trace([sim.Device(power_w=[(0, 250)])]).write(tmp_path)
    result = run_code(code, sim.environment(path, state=tmp_path / "state"))
    assert json.loads(result.stdout) == [[], list(range(8))], result.stderr


def test_a_forked_child_reads_on(tmp_path: Path) -> None:
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
done = threading.Event()
fields = (n.c_nvmlFieldValue_t * 20_000)()
for field in fields:
    field.fieldId = 83
get = n._nvmlGetFunctionPointer("nvmlDeviceGetFieldValues")
def busy():
    while not done.is_set():
        get(handle, len(fields), fields)  # long inside, so that forks fall into it
threading.Thread(target=busy, daemon=True).start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        os._exit(n.nvmlDeviceGetPowerUsage(handle) != 100_000)
    codes.append(os.waitpid(pid, 0)[1])
done.set()
print(codes == [0] * 20)
"""
    result = run_code(code, sim.environment(sim.Trace().write(tmp_path)))
    assert result.stdout == "True\n", result.stderr


# --- load from a program -------------------------------------------------------------------------

LOADED = {"load_file": "load.csv", "idle_w": 80, "max_w": 480}


def write_load(folder: Path, *lines: str) -> None:
    with (folder / "load.csv").open("a") as file:
        file.write("".join(lines))


def test_power_follows_a_programs_load_below_the_limit(open_reader, clock, tmp_path) -> None:
    reader = open_reader(sim.Device(keys=LOADED))
    start_ns = clock.now_ns
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (80_000, 80_000)  # no file yet: idle
    write_load(tmp_path, "t_ns,load\n", f"{clock.now_ns},1\n")
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (480_000, 560_000)
    coming = f"{start_ns + 3_200_000_000},0\n"
    write_load(tmp_path, f"{start_ns + 2_500_000_000},0.25\n", coming[:7])  # half a line waits
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (180_000, 80_000 + 720_000 + 90_000)
    write_load(tmp_path, coming[7:])
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (80_000, 890_000 + 36_000 + 64_000)
    reader.call("nvmlDeviceSetPowerManagementLimit", 200_000)
    write_load(tmp_path, f"{clock.now_ns},1\n")
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (200_000, 990_000 + 200_000)


@pytest.mark.parametrize("counter_from", ["true", "samples"])
def test_a_late_line_is_made_good_and_never_turns_the_counter_back(
    open_reader, clock, tmp_path, counter_from: str
) -> None:
    sensor = sim.Sensor(counter_from=counter_from)
    reader = open_reader(sim.Device(sensor=sensor, keys=LOADED))
    start_ns = clock.now_ns
    write_load(tmp_path, f"{start_ns},1\n")
    clock.advance(2)
    shown_mj = reader.energy_mj()
    write_load(tmp_path, f"{start_ns + sim.NS_PER_S},0\n")
    assert reader.energy_mj() == shown_mj > 900_000
    clock.advance(20)
    truth = sim.Device(power_w=[(0, 80), (0, 480), (1, 480), (1, 80)], sensor=sensor)
    assert reader.energy_mj() == pytest.approx(truth.counter_mj(22 * sim.NS_PER_S), abs=1)


def test_a_reset_turns_the_counter_back_under_a_programs_load_too(
    open_reader, clock, tmp_path
) -> None:
    sensor = sim.Sensor(counter_resets_s=[2.0], counter_wrap_mj=700_000)
    reader = open_reader(sim.Device(sensor=sensor, keys=LOADED))
    write_load(tmp_path, f"{clock.now_ns},1\n")
    readings = []
    for _ in range(5):
        readings.append(reader.energy_mj())
        clock.advance(1)
    assert readings == [0, 480_000, 0, 480_000, 260_000]


def test_an_unusable_load_line_is_named_once_and_passed_over(open_reader, clock, tmp_path) -> None:
    lines = ["nonsense\n", "5,2\n", "5,\n", "5;1\n", ",1\n", "5,nan\n"]
    write_load(tmp_path, *lines, f"{clock.now_ns},0.5\n")
    reader = open_reader(sim.Device(keys=LOADED))
    clock.advance(1)
    assert reader.power_mw() == 280_000
    reader.close()
    assert reader.stderr.count("is not t_ns,load") == 1
