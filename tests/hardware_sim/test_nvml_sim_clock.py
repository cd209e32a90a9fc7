"""Time on the simulated card: one zero for all, a stepped clock, load as it comes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from nvml_sim import sim

READ_NOW = """
import json, sys, time, pynvml
pynvml.nvmlInit()
handle = pynvml.nvmlDeviceGetHandleByIndex(0)
before = time.monotonic_ns()
energy = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
after = time.monotonic_ns()
print(json.dumps([before, energy, after]))
"""


def between(device: sim.Device, t0_ns: int, reading: list[int]) -> bool:
    """Whether the energy read lies between the true counter just before and just after."""
    before_ns, energy_mj, after_ns = reading
    low = device.counter_mj(before_ns - t0_ns)
    high = device.counter_mj(after_ns - t0_ns)
    return low - 1 <= energy_mj <= high + 1  # a tie may be rounded either way


def test_processes_agree_on_time_zero(tmp_path: Path) -> None:
    device = sim.Device(power_w=[(0, 0), (1000, 1000)])
    t0_ns = time.monotonic_ns() - 400 * sim.NS_PER_S
    variables = sim.environment(sim.Trace([device]).write(tmp_path), t0_ns=t0_ns)
    readings = [json.loads(sim.run_python(READ_NOW, variables).stdout) for _ in range(2)]
    assert all(between(device, t0_ns, reading) for reading in readings)
    assert readings[0][1] > 79_000_000


def test_without_t0_time_begins_with_the_first_init_and_never_again(tmp_path: Path) -> None:
    code = """
import time, pynvml
energies = []
for _ in range(2):
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    energies.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    pynvml.nvmlShutdown()
    time.sleep(0.25)
print(energies[0], energies[1] >= 20_000)
"""
    variables = sim.environment(sim.Trace().write(tmp_path))
    del variables["NVML_SIM_T0"]
    assert sim.run_python(code, variables).stdout == "0 True\n"


def test_init_and_shutdown_are_counted(tmp_path: Path) -> None:
    code = """
import pynvml as n
n.nvmlInit()
n.nvmlInit()
n.nvmlShutdown()
handle = n.nvmlDeviceGetHandleByIndex(0)
print(n.nvmlDeviceGetPowerUsage(handle))
n.nvmlShutdown()
for call in (lambda: n.nvmlDeviceGetPowerUsage(handle), n.nvmlShutdown):
    try:
        call()
    except n.NVMLError_Uninitialized:
        print("uninitialised")
"""
    result = sim.run_python(code, sim.environment(sim.Trace().write(tmp_path)))
    assert result.stdout.split() == ["100000", "uninitialised", "uninitialised"], result.stderr


def test_a_stepped_clock_is_the_same_for_all_who_read_it(open_reader, clock) -> None:
    device = sim.Device(power_w=[(0, 100), (100, 200)])
    readers = open_reader(device), open_reader(device)
    assert [reader.energy_mj() for reader in readers] == [0, 0]
    clock.advance(10)
    assert [reader.energy_mj() for reader in readers] == [1_050_000] * 2
    clock.set(clock.now_ns - 5 * sim.NS_PER_S)
    assert [reader.energy_mj() for reader in readers] == [512_500] * 2


def test_many_threads_read_the_truth_at_once(tmp_path: Path) -> None:
    """Eight threads read and set; the counter never runs back, and no reading is torn."""
    code = """
import json, sys, threading, time, pynvml as n
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
faults, finished = [], []
def read(number):
    last = 0
    for i in range(3000):
        before = time.monotonic_ns()
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
    device = sim.Device(power_w=[(0, 250)])
    path = sim.Trace([device]).write(tmp_path)
    result = sim.run_python(code, sim.environment(path, state=tmp_path / "state"))
    assert json.loads(result.stdout) == [[], list(range(8))], result.stderr


def test_a_forked_child_reads_on(tmp_path: Path) -> None:
    code = """
import os, sys, threading, warnings, pynvml as n
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
    result = sim.run_python(code, sim.environment(sim.Trace().write(tmp_path)))
    assert result.stdout == "True\n", result.stderr


# --- load from a program -------------------------------------------------------------------------

LOADED = {"load_file": "load.csv", "idle_w": 80, "max_w": 480}


def write_load(folder: Path, lines: list[str]) -> None:
    with (folder / "load.csv").open("a") as file:
        file.write("".join(lines))


def test_power_follows_a_programs_load(open_reader, clock, tmp_path) -> None:
    reader = open_reader(sim.Device(keys=LOADED))
    start_ns = clock.now_ns
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (80_000, 80_000)  # no file yet: idle
    write_load(tmp_path, ["t_ns,load\n", f"{clock.now_ns},1\n"])
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (480_000, 560_000)
    coming = f"{start_ns + 3_200_000_000},0\n"
    write_load(tmp_path, [f"{start_ns + 2_500_000_000},0.25\n", coming[:7]])  # half a line waits
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (180_000, 80_000 + 720_000 + 90_000)
    write_load(tmp_path, [coming[7:]])
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (80_000, 890_000 + 36_000 + 64_000)


def test_a_late_line_is_made_good_in_the_sum_of_samples(open_reader, clock, tmp_path) -> None:
    samples = sim.Sensor(counter_from="samples", window_ms=30)
    reader = open_reader(sim.Device(sensor=samples, keys=LOADED))
    start_ns = clock.now_ns
    write_load(tmp_path, [f"{start_ns},1\n"])
    clock.advance(2)
    reader.energy_mj()
    write_load(tmp_path, [f"{start_ns + sim.NS_PER_S},0\n"])
    clock.advance(20)
    truth = sim.Device(power_w=[(0, 80), (0, 480), (1, 480), (1, 80)], sensor=samples)
    assert reader.energy_mj() == pytest.approx(truth.counter_mj(22 * sim.NS_PER_S), abs=1)


def test_a_late_line_never_turns_the_counter_back(open_reader, clock, tmp_path) -> None:
    reader = open_reader(sim.Device(keys=LOADED))
    write_load(tmp_path, [f"{clock.now_ns},1\n"])
    start_ns = clock.now_ns
    clock.advance(2)
    assert reader.energy_mj() == 960_000
    write_load(tmp_path, [f"{start_ns + sim.NS_PER_S},0\n"])
    assert reader.energy_mj() == 960_000
    clock.advance(10)
    assert reader.energy_mj() == 480_000 + 11 * 80_000


@pytest.mark.parametrize("line", ["nonsense\n", "5,2\n", "5,\n", "5;1\n", ",1\n", "5,nan\n"])
def test_an_unusable_load_line_is_named_once_and_passed_over(
    open_reader, clock, tmp_path, line
) -> None:
    write_load(tmp_path, [line, line, f"{clock.now_ns},0.5\n"])
    reader = open_reader(sim.Device(keys=LOADED))
    clock.advance(1)
    assert reader.power_mw() == 280_000
    reader.close()
    assert reader.stderr.count("is not t_ns,load") == 1


def test_load_is_capped_by_the_power_limit(open_reader, clock, tmp_path) -> None:
    reader = open_reader(sim.Device(keys=LOADED))
    write_load(tmp_path, [f"{clock.now_ns},1\n"])
    reader.call("nvmlDeviceSetPowerManagementLimit", 200_000)
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (200_000, 200_000)
