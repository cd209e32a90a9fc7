"""What the simulated card says of itself and what callers may set, beyond what the program asks.

Identity, limits' bounds, permissions, processes and slices are what ``tests/machine`` asks it for.
"""

from __future__ import annotations

import pytest

from nvml_sim import sim
from nvml_sim.reader import NvmlError

INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND, GPU_IS_LOST, OPERATING_SYSTEM = 2, 3, 6, 15, 17
HOPPER, SM, SW_POWER_CAP = 9, 1, 0x4


def code_of(reader, function: str, *arguments, device: int | None = 0) -> int:
    with pytest.raises(NvmlError) as raised:
        reader.call(function, *arguments, device=device)
    return raised.value.code


def test_an_empty_description_is_a_whole_card_and_a_slice_says_less(open_reader, tmp_path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("card\n# no more is said of it\n\ncard\nmig true\n")
    reader = open_reader(path)
    assert reader.call("nvmlDeviceGetCount", device=None) == 2
    assert reader.call("nvmlDeviceGetName") == "Simulated GPU"
    assert len({reader.call("nvmlDeviceGetUUID", device=i) for i in (0, 1)}) == 2
    assert reader.call("nvmlDeviceGetArchitecture") == HOPPER
    assert reader.call("nvmlDeviceGetComputeRunningProcesses") == []
    assert [reader.call("nvmlDeviceGetMigMode", device=i) for i in (0, 1)] == [[0, 0], [1, 1]]
    assert reader.call("nvmlDeviceGetUtilizationRates") == {"gpu": 0, "memory": 0}
    assert code_of(reader, "nvmlDeviceGetC2cModeInfoV") == NOT_SUPPORTED
    assert code_of(reader, "nvmlDeviceGetHandleByIndex", 2, device=None) == INVALID_ARGUMENT
    assert code_of(reader, "nvmlDeviceGetUtilizationRates", device=1) == NOT_SUPPORTED
    assert open_reader(sim.Trace([])).call("nvmlDeviceGetCount", device=None) == 0


def test_processes_are_those_of_the_trace(open_reader) -> None:
    named = {"pid": 100, "used_memory_bytes": 5000, "name": "python serve.py"}
    reader = open_reader(sim.Device(keys={"processes": [named, {"pid": 200}]}))
    listed = reader.call("nvmlDeviceGetComputeRunningProcesses")
    assert [(p["pid"], p["usedGpuMemory"]) for p in listed] == [(100, 5000), (200, None)]
    assert reader.call("nvmlSystemGetProcessName", 100, device=None) == "python serve.py"
    assert code_of(reader, "nvmlSystemGetProcessName", 999, device=None) == NOT_FOUND


def test_conditions_follow_the_trace(open_reader, clock) -> None:
    gib = 2**30
    keys = {
        "temperature_c": [[0, 30], [10, 70]],
        "throttle": [[0, 0], [5, 0x20], [6, 0]],
        "memory": {"total_bytes": 80 * gib, "used_bytes": [[0, gib], [5, 10 * gib]]},
    }
    reader = open_reader(sim.Device(keys=keys))
    for at_s, celsius, reasons, used in ((0, 30, 0, 1), (5, 50, 0x20, 10), (60, 70, 0, 10)):
        clock.advance(at_s - (clock.now_ns / sim.NS_PER_S - 5))
        assert reader.call("nvmlDeviceGetTemperature", 0) == celsius
        assert reader.call("nvmlDeviceGetTemperatureV", 0) == celsius
        assert reader.call("nvmlDeviceGetCurrentClocksThrottleReasons") == reasons
        memory = reader.call("nvmlDeviceGetMemoryInfo")
        assert memory == {"total": 80 * gib, "used": used * gib, "free": (80 - used) * gib}


def test_a_card_is_lost_for_every_call_and_its_neighbour_is_not(open_reader, clock) -> None:
    failing = sim.Device(keys={"fail_after_s": 1.5})
    reader = open_reader(sim.Trace([failing, sim.Device()]))
    clock.advance(1.49)
    assert reader.power_mw() == 100_000
    clock.advance(0.01)
    calls = [
        ("nvmlDeviceGetPowerUsage",),
        ("nvmlDeviceGetFieldValues", [186]),
        ("nvmlDeviceGetUUID",),
        ("nvmlDeviceSetPowerManagementLimit", 200_000),
    ]
    assert {code_of(reader, *call) for call in calls} == {GPU_IS_LOST}
    assert code_of(reader, "nvmlDeviceGetHandleByIndex", 0, device=None) == GPU_IS_LOST
    assert reader.power_mw(1) == 100_000


def test_a_limit_caps_true_power_from_the_moment_it_is_set(open_reader, clock) -> None:
    """Power ramps from 0 to 400 W in 4 s; from 1 s on it may not pass 200 W: it does at 2 s."""
    reader = open_reader(
        sim.Device(power_w=[(0, 0), (4, 400)], keys={"power_limit_w": {"max": 500}})
    )
    clock.advance(1)
    for outside_mw in (99_999, 500_001):
        setting = "nvmlDeviceSetPowerManagementLimit", outside_mw
        assert code_of(reader, *setting) == INVALID_ARGUMENT
    reader.call("nvmlDeviceSetPowerManagementLimit", 200_000)
    clock.advance(0.5)
    assert reader.call("nvmlDeviceGetCurrentClocksEventReasons") == 0
    clock.advance(1.5)
    assert reader.call("nvmlDeviceGetCurrentClocksEventReasons") == SW_POWER_CAP
    assert reader.power_mw() == 200_000
    assert reader.energy_mj() == 200_000 + 200_000
    reader.call("nvmlDeviceSetPowerManagementLimit", 500_000)
    clock.advance(1)
    assert reader.energy_mj() == 400_000 + 350_000  # 300 to 400 W in the fourth second


@pytest.mark.parametrize(("keys", "power_w"), [({}, 1234.5), ({"power_limit_w.max": 350}, 350)])
def test_the_trace_s_own_limit_caps_from_the_start_and_without_it_none_does(
    open_reader, clock, keys: dict[str, float], power_w: float
) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 1234.5)], keys=keys))
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (power_w * 1000, power_w * 1000)


def test_settings_are_shared_and_outlive_their_process(open_reader, clock, tmp_path) -> None:
    device = sim.Device(power_w=[(0, 450)], uuid="GPU-shared", keys={"power_limit_w": {"max": 500}})
    trace = sim.Trace([sim.Device(power_w=[(0, 450)]), device])
    shared = {"state": tmp_path / "state", "t0_ns": clock.now_ns}
    (tmp_path / "state").write_text("no setting\n")
    first, second = (open_reader(trace, **shared) for _ in range(2))
    clock.advance(1)
    first.call("nvmlDeviceSetPowerManagementLimit", 300_000, device=1)
    first.call("nvmlDeviceSetGpuLockedClocks", 600, 900, device=1)
    clock.advance(1)
    first.close()
    assert "is not a setting" in first.stderr
    for reader in (second, open_reader(trace, **shared)):
        assert reader.call("nvmlDeviceGetPowerManagementLimit", device=1) == 300_000
        assert [reader.call("nvmlDeviceGetClockInfo", SM, device=n) for n in (0, 1)] == [1980, 900]
        assert [reader.energy_mj(n) for n in (0, 1)] == [900_000, 450_000 + 300_000]


def test_a_state_file_that_cannot_be_written_is_an_error(open_reader, tmp_path) -> None:
    reader = open_reader(sim.Device(), state=tmp_path / "absent" / "state")
    setting = "nvmlDeviceSetPowerManagementLimit", 200_000
    assert code_of(reader, *setting) == OPERATING_SYSTEM
    assert reader.call("nvmlDeviceGetPowerManagementLimit") == 700_000


def test_clocks_follow_the_trace_and_a_lock_raises_and_lowers_them(open_reader, clock) -> None:
    clocks = {"sm_mhz": [[0, 1980], [1, 345]], "max": 1980}
    reader = open_reader(sim.Device(keys={"clocks": clocks}))
    shown_mhz = []
    for locked_mhz in ((600, 1200), None):
        if locked_mhz:
            reader.call("nvmlDeviceSetGpuLockedClocks", *locked_mhz)
        else:
            reader.call("nvmlDeviceResetGpuLockedClocks")
        for moment_s in (5, 6):
            clock.set(moment_s * sim.NS_PER_S)
            shown_mhz.append(reader.call("nvmlDeviceGetClockInfo", SM))
    assert shown_mhz == [1200, 600, 1980, 345]
    assert code_of(reader, "nvmlDeviceSetGpuLockedClocks", 3000, 4000) == INVALID_ARGUMENT
