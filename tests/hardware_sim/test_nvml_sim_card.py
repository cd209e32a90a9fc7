"""What the simulated card says of itself: identity, conditions, processes, failures."""

from __future__ import annotations

import pytest

from nvml_sim import sim
from nvml_sim.reader import NvmlError

INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND, GPU_IS_LOST = 2, 3, 6, 15
HOPPER, AMPERE = 9, 7


def code_of(reader, function: str, *arguments, device: int | None = 0) -> int:
    with pytest.raises(NvmlError) as raised:
        reader.call(function, *arguments, device=device)
    return raised.value.code


def test_an_empty_description_is_a_whole_card(open_reader, tmp_path) -> None:
    path = tmp_path / "trace.json"
    path.write_text('{"devices": [{}, {}]}')
    reader = open_reader(path)
    assert reader.call("nvmlDeviceGetCount", device=None) == 2
    assert reader.call("nvmlDeviceGetName") == "Simulated GPU"
    uuids = [reader.call("nvmlDeviceGetUUID", device=i) for i in (0, 1)]
    assert all(uuid.startswith("GPU-") for uuid in uuids)
    assert len(set(uuids)) == 2
    assert reader.call("nvmlDeviceGetArchitecture") == HOPPER
    assert reader.call("nvmlDeviceGetComputeRunningProcesses") == []
    assert reader.call("nvmlDeviceGetMigMode") == [0, 0]
    assert code_of(reader, "nvmlDeviceGetC2cModeInfoV") == NOT_SUPPORTED
    assert code_of(reader, "nvmlDeviceGetFanSpeed") == NOT_SUPPORTED
    assert code_of(reader, "nvmlDeviceGetHandleByIndex", 2, device=None) == INVALID_ARGUMENT


def test_a_machine_may_hold_no_card(open_reader) -> None:
    reader = open_reader(sim.Trace([]))
    assert reader.call("nvmlDeviceGetCount", device=None) == 0


def test_identity_is_the_trace_s(open_reader) -> None:
    keys = {
        "compute_capability": [8, 0],
        "pci": "00000000:3B:00.0",
        "vbios": "92.00.45.00.03",
        "serial": "1324221012345",
        "minor_number": 5,
        "ecc": False,
        "persistence_mode": False,
        "fan_percent": 35,
        "c2c": {"enabled": True, "module_extra_w": 80},
    }
    trace = sim.Trace(
        [sim.Device(name="NVIDIA A100-SXM4-80GB", uuid="GPU-a100", keys=keys)],
        {"driver_version": "550.54.15", "cuda_version": "12.4", "nvml_version": "12.550.54.15"},
    )
    reader = open_reader(trace)
    expected = {
        "nvmlDeviceGetName": "NVIDIA A100-SXM4-80GB",
        "nvmlDeviceGetUUID": "GPU-a100",
        "nvmlDeviceGetSerial": "1324221012345",
        "nvmlDeviceGetVbiosVersion": "92.00.45.00.03",
        "nvmlDeviceGetMinorNumber": 5,
        "nvmlDeviceGetIndex": 0,
        "nvmlDeviceGetArchitecture": AMPERE,
        "nvmlDeviceGetCudaComputeCapability": [8, 0],
        "nvmlDeviceGetEccMode": [0, 0],
        "nvmlDeviceGetPersistenceMode": 0,
        "nvmlDeviceGetFanSpeed": 35,
        "nvmlDeviceGetComputeMode": 0,
        "nvmlDeviceGetPerformanceState": 0,
        "nvmlDeviceGetPowerManagementMode": 1,
    }
    assert {name: reader.call(name) for name in expected} == expected
    assert reader.call("nvmlDeviceGetPciInfo")["busId"] == "00000000:3B:00.0"
    assert reader.call("nvmlDeviceGetC2cModeInfoV")["isC2cEnabled"] == 1
    gpu, module = reader.fields((186, 0), (186, 1))
    assert module["number"] - gpu["number"] == 80_000
    system = {
        "nvmlSystemGetDriverVersion": "550.54.15",
        "nvmlSystemGetNVMLVersion": "12.550.54.15",
        "nvmlSystemGetCudaDriverVersion": 12_040,
        "nvmlSystemGetCudaDriverVersion_v2": 12_040,
    }
    assert {name: reader.call(name, device=None) for name in system} == system


def test_a_card_is_found_by_uuid_and_address_too(tmp_path) -> None:
    """nvidia-ml-py hands out opaque handles, so the answer is looked at in one process."""
    code = """
import pynvml as n
n.nvmlInit()
by_uuid = n.nvmlDeviceGetHandleByUUID(b"GPU-b")
by_address = n.nvmlDeviceGetHandleByPciBusId(b"0000:02:00.0")
print(n.nvmlDeviceGetIndex(by_uuid), n.nvmlDeviceGetIndex(by_address))
try:
    n.nvmlDeviceGetHandleByUUID(b"GPU-c")
except n.NVMLError_NotFound:
    print("not found")
"""
    path = sim.Trace([sim.Device(uuid="GPU-a"), sim.Device(uuid="GPU-b")]).write(tmp_path)
    done = sim.run_python(code, sim.environment(path))
    assert done.stdout.split("\n") == ["1 1", "not found", ""], done.stderr


def test_conditions_follow_the_trace(open_reader, clock) -> None:
    gib = 2**30
    keys = {
        "temperature_c": [[0, 30], [10, 70]],
        "memory_temperature_c": 55,
        "throttle": [[0, 0], [5, 0x20], [6, 0]],
        "memory": {"total_bytes": 80 * gib, "used_bytes": [[0, gib], [5, 10 * gib]]},
        "utilization": {"gpu": [[0, 0], [5, 98]], "memory": 40},
    }
    reader = open_reader(sim.Device(keys=keys))
    assert reader.call("nvmlDeviceGetTemperature", 0) == 30
    assert reader.call("nvmlDeviceGetUtilizationRates") == {"gpu": 0, "memory": 40}
    assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == 0
    clock.advance(5)
    assert reader.call("nvmlDeviceGetTemperature", 0) == 50
    assert reader.call("nvmlDeviceGetTemperatureV", 0) == 50
    assert reader.call("nvmlDeviceGetUtilizationRates") == {"gpu": 98, "memory": 40}
    assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == 0x20
    assert reader.call("nvmlDeviceGetCurrentClocksEventReasons") == 0x20
    memory = reader.call("nvmlDeviceGetMemoryInfo")
    assert memory == {"total": 80 * gib, "used": 10 * gib, "free": 70 * gib}
    second = reader.call("nvmlDeviceGetMemoryInfo", 0x02000028)
    assert (second["total"], second["used"]) == (80 * gib, 10 * gib)
    assert reader.fields(82)[0]["number"] == 55
    clock.advance(60)
    assert reader.call("nvmlDeviceGetTemperature", 0) == 70
    assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == 0


def test_processes_come_and_go(open_reader, clock) -> None:
    processes = [
        {"pid": 100, "used_memory_bytes": 5000, "name": "python serve.py"},
        {"pid": 200, "from_s": 2, "until_s": 4},
        {"pid": 300, "type": "graphics"},
    ]
    reader = open_reader(sim.Device(keys={"processes": processes}))

    def pids(kind: str, version: str = "") -> list[int]:
        name = f"nvmlDeviceGet{kind}RunningProcesses{version}"
        return [process["pid"] for process in reader.call(name)]

    assert (pids("Compute"), pids("Graphics")) == ([100], [300])
    assert pids("Compute", "_v2") == [100]
    clock.advance(2)
    listed = reader.call("nvmlDeviceGetComputeRunningProcesses")
    assert [(p["pid"], p["usedGpuMemory"]) for p in listed] == [(100, 5000), (200, None)]
    assert reader.call("nvmlSystemGetProcessName", 100, device=None) == "python serve.py"
    assert code_of(reader, "nvmlSystemGetProcessName", 999, device=None) == NOT_FOUND
    clock.advance(2)
    assert pids("Compute") == [100]


def test_graphics_processes_are_listed_by_every_version_also_on_a_slice(tmp_path) -> None:
    processes = [
        {"pid": 1, "used_memory_bytes": 10},
        {"pid": 2, "type": "graphics", "used_memory_bytes": 20, "gpu_instance_id": 3},
        {"pid": 3, "type": "graphics"},
    ]
    mig = {"enabled": True, "devices": [{"gpu_instance_id": 3}]}
    path = sim.Trace([sim.Device(keys={"processes": processes, "mig": mig})]).write(tmp_path)
    code = """
import ctypes, pynvml as n
n.nvmlInit()
card = n.nvmlDeviceGetHandleByIndex(0)
slice = n.nvmlDeviceGetMigDeviceHandleByIndex(card, 0)
for handle in (card, slice):
    for version in ("", "_v2", "_v3"):
        graphics = getattr(n, "nvmlDeviceGetGraphicsRunningProcesses" + version)(handle)
        print([(p.pid, p.usedGpuMemory) for p in graphics])
class Old(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)]
lib = ctypes.CDLL("libnvidia-ml.so.1")
for name in ("Graphics", "Compute"):
    for room in (4, 1, 0):
        count, out = ctypes.c_uint(room), (Old * 4)()
        function = getattr(lib, f"nvmlDeviceGet{name}RunningProcesses")
        code = function(card, ctypes.byref(count), out if room else None)
        print(code, count.value, [(p.pid, p.used if p.used < 99 else None) for p in out if p.pid])
"""
    done = sim.run_python(code, sim.environment(path))
    whole, part = "[(2, 20), (3, None)]", "[(2, 20)]"
    assert done.stdout.splitlines() == [
        *[whole] * 3,
        *[part] * 3,
        f"0 2 {whole}",
        f"7 2 {part}",
        "7 2 []",
        "0 1 [(1, 10)]",
        "0 1 [(1, 10)]",
        "7 1 []",
    ], done.stderr


def test_a_card_is_lost_for_every_call_and_its_neighbour_is_not(open_reader, clock) -> None:
    failing = sim.Device(keys={"fail_after_s": 1.5})
    reader = open_reader(sim.Trace([failing, sim.Device()]))
    clock.advance(1.49)
    assert reader.power_mw() == 100_000
    clock.advance(0.01)
    calls = [
        ("nvmlDeviceGetPowerUsage",),
        ("nvmlDeviceGetTotalEnergyConsumption",),
        ("nvmlDeviceGetFieldValues", [186]),
        ("nvmlDeviceGetUUID",),
        ("nvmlDeviceGetTemperature", 0),
        ("nvmlDeviceGetComputeRunningProcesses",),
        ("nvmlDeviceSetPowerManagementLimit", 200_000),
    ]
    assert {code_of(reader, *call) for call in calls} == {GPU_IS_LOST}
    assert code_of(reader, "nvmlDeviceGetHandleByIndex", 0, device=None) == GPU_IS_LOST
    assert reader.power_mw(1) == 100_000
    assert reader.call("nvmlDeviceGetCount", device=None) == 2


def test_single_functions_and_fields_may_be_unsupported(open_reader) -> None:
    keys = {"not_supported": ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo", 186]}
    reader = open_reader(sim.Device(keys=keys))
    assert code_of(reader, "nvmlDeviceGetPowerUsage") == NOT_SUPPORTED
    assert code_of(reader, "nvmlDeviceGetMemoryInfo") == NOT_SUPPORTED
    assert code_of(reader, "nvmlDeviceGetMemoryInfo", 0x02000028) == NOT_SUPPORTED
    assert [value["nvmlReturn"] for value in reader.fields(186, 185)] == [3, 0]


def test_mig_has_handles_but_no_power_of_its_own(tmp_path) -> None:
    mig = {"enabled": True, "devices": [{"uuid": "MIG-x", "gpu_instance_id": 3}, {}]}
    processes = [{"pid": 7, "gpu_instance_id": 3, "compute_instance_id": 0}]
    path = sim.Trace([sim.Device(keys={"mig": mig, "processes": processes})]).write(tmp_path)
    code = """
import pynvml as n
n.nvmlInit()
card = n.nvmlDeviceGetHandleByIndex(0)
print(n.nvmlDeviceGetMigMode(card), n.nvmlDeviceGetMaxMigDeviceCount(card))
part = n.nvmlDeviceGetMigDeviceHandleByIndex(card, 0)
print(n.nvmlDeviceGetUUID(part), n.nvmlDeviceIsMigDeviceHandle(part).value)
pids = [p.pid for p in n.nvmlDeviceGetComputeRunningProcesses(part)]
print(n.nvmlDeviceGetGpuInstanceId(part), pids)
print(n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID(b"MIG-x")))
parent = n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)
print(n.nvmlDeviceGetIndex(parent), n.nvmlDeviceGetPowerUsage(parent))
for name, handle in (("PowerUsage", part), ("UtilizationRates", card)):
    try:
        getattr(n, "nvmlDeviceGet" + name)(handle)
    except n.NVMLError_NotSupported:
        print("not supported")
"""
    done = sim.run_python(code, sim.environment(path))
    assert done.stdout.splitlines() == [
        "[1, 1] 7",
        "MIG-x 1",
        "3 [7]",
        "MIG-x",
        "0 100000",
        "not supported",
        "not supported",
    ], done.stderr
