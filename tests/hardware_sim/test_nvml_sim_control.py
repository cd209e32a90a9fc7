"""What callers may set on the simulated card, who sees it, and what it does to power."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nvml_sim import sim
from nvml_sim.reader import NvmlError

INVALID_ARGUMENT, NO_PERMISSION, OPERATING_SYSTEM = 2, 4, 17
GRAPHICS, SM, MEMORY = 0, 1, 2
SW_POWER_CAP = 0x4
LIMITED = {"power_limit_w": {"default": 400, "min": 100, "max": 500}}


def set_limit(reader, watts: float) -> None:
    reader.call("nvmlDeviceSetPowerManagementLimit", round(watts * 1000))


def limit_w(reader) -> float:
    return reader.call("nvmlDeviceGetPowerManagementLimit") / 1000


def test_power_limit_and_its_bounds(open_reader) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 50)], keys=LIMITED))
    assert limit_w(reader) == 400
    assert reader.call("nvmlDeviceGetEnforcedPowerLimit") == 400_000
    assert reader.call("nvmlDeviceGetPowerManagementDefaultLimit") == 400_000
    assert reader.call("nvmlDeviceGetPowerManagementLimitConstraints") == [100_000, 500_000]
    for watts in (99.999, 500.001):
        with pytest.raises(NvmlError) as raised:
            set_limit(reader, watts)
        assert raised.value.code == INVALID_ARGUMENT
    set_limit(reader, 500)
    assert limit_w(reader) == 500


def test_the_default_is_the_maximum(open_reader) -> None:
    reader = open_reader(sim.Device(keys={"power_limit_w": {"max": 350}}))
    assert limit_w(reader) == 350
    assert reader.call("nvmlDeviceGetPowerManagementLimitConstraints") == [100_000, 350_000]


def test_without_the_key_no_limit_bites(open_reader, clock) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 1234.5)]))
    clock.advance(1)
    assert reader.power_mw() == 1_234_500
    assert limit_w(reader) >= 1234.5


def test_a_limit_caps_true_power_from_the_moment_it_is_set(open_reader, clock) -> None:
    """Power ramps from 0 to 400 W in 4 s; from 1 s on it may not pass 200 W: it does at 2 s."""
    reader = open_reader(
        sim.Device(power_w=[(0, 0), (4, 400)], keys={"power_limit_w": {"max": 500}})
    )
    clock.advance(1)
    set_limit(reader, 200)
    clock.advance(0.5)
    assert reader.call("nvmlDeviceGetCurrentClocksEventReasons") == 0
    clock.advance(1.5)
    assert reader.call("nvmlDeviceGetCurrentClocksEventReasons") == SW_POWER_CAP
    assert reader.power_mw() == 200_000
    assert reader.energy_mj() == 200_000 + 200_000
    set_limit(reader, 500)
    clock.advance(1)
    assert reader.energy_mj() == 400_000 + 350_000  # 300 to 400 W in the fourth second


def test_the_trace_s_own_limit_caps_from_the_start(open_reader, clock) -> None:
    reader = open_reader(sim.Device(power_w=[(0, 600)], keys={"power_limit_w": {"max": 350}}))
    clock.advance(1)
    assert (reader.power_mw(), reader.energy_mj()) == (350_000, 350_000)


def test_settings_are_shared_and_outlive_their_process(open_reader, clock, tmp_path) -> None:
    device = sim.Device(power_w=[(0, 450)], uuid="GPU-shared", keys={"power_limit_w": {"max": 500}})
    other = sim.Device(power_w=[(0, 450)])
    trace = sim.Trace([other, device])
    t0 = clock.now_ns
    first, second = (open_reader(trace, state=tmp_path / "state", t0_ns=t0) for _ in range(2))
    assert second.call("nvmlDeviceGetPowerManagementLimit", device=1) == 500_000
    clock.advance(1)
    first.call("nvmlDeviceSetPowerManagementLimit", 300_000, device=1)
    first.call("nvmlDeviceSetGpuLockedClocks", 600, 900, device=1)
    clock.advance(1)
    first.close()
    third = open_reader(trace, state=tmp_path / "state", t0_ns=t0)
    for reader in (second, third):
        assert reader.call("nvmlDeviceGetPowerManagementLimit", device=1) == 300_000
        assert reader.call("nvmlDeviceGetClockInfo", SM, device=1) == 900
        assert reader.energy_mj(1) == 450_000 + 300_000
        assert reader.energy_mj(0) == 900_000
        assert reader.call("nvmlDeviceGetClockInfo", SM, device=0) == 1980


def test_settings_of_one_process_stay_its_own_without_a_state_file(open_reader) -> None:
    device = sim.Device(keys=LIMITED)
    first, second = open_reader(device), open_reader(device)
    set_limit(first, 200)
    assert (limit_w(first), limit_w(second)) == (200, 400)


def test_many_processes_may_set_at_once(tmp_path: Path) -> None:
    code = """
import pynvml as n
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
for i in range(100):
    n.nvmlDeviceSetPowerManagementLimit(handle, 200_000 + i)
"""
    variables = sim.environment(
        sim.Trace([sim.Device(uuid="GPU-x")]).write(tmp_path), state=tmp_path / "state"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], env=variables) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    lines = [line.split() for line in (tmp_path / "state").read_text().splitlines()]
    assert sorted(int(line[3]) for line in lines) == sorted(list(range(200_000, 200_100)) * 3)
    assert {(len(line), line[1], line[2]) for line in lines} == {(5, "GPU-x", "power_limit_mw")}


def test_an_unusable_line_in_the_state_file_is_named_and_passed_over(open_reader, tmp_path) -> None:
    state = tmp_path / "state"
    state.write_text("nonsense\n17 GPU-x power_limit_mw 200000 0\n17 GPU-x power_limit_mw 3")
    reader = open_reader(sim.Device(uuid="GPU-x", keys=LIMITED), state=state)
    assert limit_w(reader) == 200
    reader.close()
    assert 'line "nonsense" is not a setting' in reader.stderr


def test_a_state_file_that_cannot_be_written_is_an_error(open_reader, tmp_path) -> None:
    reader = open_reader(sim.Device(keys=LIMITED), state=tmp_path / "absent" / "state")
    with pytest.raises(NvmlError) as raised:
        set_limit(reader, 200)
    assert raised.value.code == OPERATING_SYSTEM
    assert limit_w(reader) == 400


def test_permission_may_be_withheld(open_reader) -> None:
    permission = {"set_power_limit": False, "set_clocks": False}
    reader = open_reader(sim.Device(keys={"permission": permission}))
    for function, *arguments in (
        ("nvmlDeviceSetPowerManagementLimit", 200_000),
        ("nvmlDeviceSetGpuLockedClocks", 600, 900),
        ("nvmlDeviceResetGpuLockedClocks",),
    ):
        with pytest.raises(NvmlError) as raised:
            reader.call(function, *arguments)
        assert raised.value.code == NO_PERMISSION


def test_clocks_follow_the_trace_and_their_locks(open_reader, clock) -> None:
    clocks = {"sm_mhz": [[0, 1980], [1, 345]], "max": 1980, "min": 210}
    reader = open_reader(sim.Device(keys={"clocks": clocks}))

    def now() -> list[int]:
        return [reader.call("nvmlDeviceGetClockInfo", domain) for domain in (GRAPHICS, SM, MEMORY)]

    assert now() == [1980, 1980, 2619]
    assert reader.call("nvmlDeviceGetMaxClockInfo", SM) == 1980
    reader.call("nvmlDeviceSetGpuLockedClocks", 600, 1200)
    assert now() == [1200, 1200, 2619]
    clock.advance(1)
    assert now() == [600, 600, 2619]
    reader.call("nvmlDeviceResetGpuLockedClocks")
    assert now() == [345, 345, 2619]
    with pytest.raises(NvmlError) as raised:
        reader.call("nvmlDeviceSetGpuLockedClocks", 3000, 4000)
    assert raised.value.code == INVALID_ARGUMENT


def test_supported_clocks_and_application_clocks(open_reader, tmp_path) -> None:
    state = tmp_path / "state"
    clocks = {"max": 1980, "min": 1900}
    reader = open_reader(sim.Device(uuid="GPU-x", keys={"clocks": clocks}), state=state)
    assert reader.call("nvmlDeviceGetSupportedMemoryClocks") == [2619]
    supported = reader.call("nvmlDeviceGetSupportedGraphicsClocks", 2619)
    assert supported == [1980, 1965, 1950, 1935, 1920, 1905]
    state.write_text("17 GPU-x application_clocks_mhz 2619 1905\n")
    assert reader.call("nvmlDeviceGetApplicationsClock", SM) == 1905
    assert reader.call("nvmlDeviceGetDefaultApplicationsClock", SM) == 1980
    assert reader.call("nvmlDeviceGetClockInfo", SM) == 1905
