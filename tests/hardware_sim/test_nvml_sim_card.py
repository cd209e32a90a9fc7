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
    path = tmp_path / "trace.txt"
    path.write_text("card\n# no more is said of it\n\ncard\n")
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
    assert code_of(reader, "nvmlDeviceGetHandleByIndex", 2, device=None) == INVALID_ARGUMENT


def test_a_machine_may_hold_no_card(open_reader) -> None:
    reader = open_reader(sim.Trace([]))
    assert reader.call("nvmlDeviceGetCount", device=None) == 0


def test_identity_is_the_trace_s(open_reader) -> None:
    keys = {
        "compute_capability": [8, 0],
        "pci": "00000000:3B:00.0",
        "vbios": "92.00.45.00.03",
        "ecc": {"current": False},
        "persistence_mode": False,
        "c2c": {"enabled": True},
    }
    trace = sim.Trace(
        [sim.Device(name="NVIDIA A100-SXM4-80GB", uuid="GPU-a100", keys=keys)],
        {"driver_version": "550.54.15", "cuda_version": "12.4"},
    )
    reader = open_reader(trace)
    expected = {
        "nvmlDeviceGetName": "NVIDIA A100-SXM4-80GB",
        "nvmlDeviceGetUUID": "GPU-a100",
        "nvmlDeviceGetVbiosVersion": "92.00.45.00.03",
        "nvmlDeviceGetArchitecture": AMPERE,
        "nvmlDeviceGetCudaComputeCapability": [8, 0],
        "nvmlDeviceGetEccMode": [0, 1],
        "nvmlDeviceGetPersistenceMode": 0,
    }
    assert {name: reader.call(name) for name in expected} == expected
    assert reader.call("nvmlDeviceGetPciInfo")["busId"] == "00000000:3B:00.0"
    assert reader.call("nvmlDeviceGetC2cModeInfoV")["isC2cEnabled"] == 1
    gpu, module = reader.fields((186, 0), (186, 1))
    assert module["number"] == gpu["number"]
    system = {
        "nvmlSystemGetDriverVersion": "550.54.15",
        "nvmlSystemGetCudaDriverVersion_v2": 12_040,
    }
    assert {name: reader.call(name, device=None) for name in system} == system


def test_a_card_is_found_by_its_uuid_and_by_that_of_a_part(tmp_path) -> None:
    """nvidia-ml-py hands out opaque handles, so the answer is looked at in one process."""
    code = """
import pynvml as n
n.nvmlInit()
print(n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID("GPU-b")))
part = n.nvmlDeviceGetHandleByUUID("MIG-x")
print(n.nvmlDeviceGetUUID(n.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)))
for call, error in (
    (lambda: n.nvmlDeviceGetHandleByUUID("GPU-c"), n.NVMLError_NotFound),
    (lambda: n.nvmlDeviceGetPowerUsage(part), n.NVMLError_NotSupported),
):
    try:
        call()
    except error:
        print("refused")
"""
    parted = sim.Device(uuid="GPU-b", keys={"mig": True, "mig_uuids": ["MIG-w", "MIG-x"]})
    path = sim.Trace([sim.Device(uuid="GPU-a"), parted]).write(tmp_path)
    result = sim.run_python(code, sim.environment(path))
    assert result.stdout.split() == ["GPU-b", "GPU-b", "refused", "refused"], result.stderr


def test_conditions_follow_the_trace(open_reader, clock) -> None:
    gib = 2**30
    keys = {
        "temperature_c": [[0, 30], [10, 70]],
        "throttle": [[0, 0], [5, 0x20], [6, 0]],
        "memory": {"total_bytes": 80 * gib, "used_bytes": [[0, gib], [5, 10 * gib]]},
    }
    reader = open_reader(sim.Device(keys=keys))
    assert reader.call("nvmlDeviceGetTemperature", 0) == 30
    assert reader.call("nvmlDeviceGetUtilizationRates") == {"gpu": 0, "memory": 0}
    assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == 0
    clock.advance(5)
    assert reader.call("nvmlDeviceGetTemperature", 0) == 50
    assert reader.call("nvmlDeviceGetTemperatureV", 0) == 50
    assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == 0x20
    assert reader.call("nvmlDeviceGetCurrentClocksEventReasons") == 0x20
    memory = reader.call("nvmlDeviceGetMemoryInfo")
    assert memory == {"total": 80 * gib, "used": 10 * gib, "free": 70 * gib}
    clock.advance(60)
    assert reader.call("nvmlDeviceGetTemperature", 0) == 70
    assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == 0


def test_processes_are_those_of_the_trace(open_reader) -> None:
    processes = [
        {"pid": 100, "used_memory_bytes": 5000, "name": "python serve.py"},
        {"pid": 200},
        {"pid": 300, "type": "graphics"},
    ]
    reader = open_reader(sim.Device(keys={"processes": processes}))
    listed = reader.call("nvmlDeviceGetComputeRunningProcesses")
    assert [(p["pid"], p["usedGpuMemory"]) for p in listed] == [(100, 5000), (200, None)]
    (drawing,) = reader.call("nvmlDeviceGetGraphicsRunningProcesses")
    assert drawing["pid"] == 300
    assert reader.call("nvmlSystemGetProcessName", 100, device=None) == "python serve.py"
    assert code_of(reader, "nvmlSystemGetProcessName", 999, device=None) == NOT_FOUND


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
    names = ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetComputeRunningProcesses", 186]
    reader = open_reader(sim.Device(keys={"not_supported": names}))
    assert code_of(reader, "nvmlDeviceGetPowerUsage") == NOT_SUPPORTED
    assert code_of(reader, "nvmlDeviceGetComputeRunningProcesses") == NOT_SUPPORTED
    assert [value["nvmlReturn"] for value in reader.fields(186, 185)] == [3, 0]


def test_a_card_in_slices_does_not_say_how_busy_it_is(open_reader) -> None:
    reader = open_reader(sim.Device(keys={"mig": True}))
    assert reader.call("nvmlDeviceGetMigMode") == [1, 1]
    assert reader.power_mw() == 100_000
    assert code_of(reader, "nvmlDeviceGetUtilizationRates") == NOT_SUPPORTED
