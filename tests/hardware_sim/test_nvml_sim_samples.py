"""The driver's own short record of power (nvmlDeviceGetSamples), and the sensors of real cards."""

from __future__ import annotations

import pytest

from nvml_sim import sim
from nvml_sim.reader import NvmlError

NOT_SUPPORTED, NOT_FOUND = 3, 6
POWER_AVERAGE, POWER_INSTANT = 185, 186
POWER_SAMPLES, GPU_UTILIZATION_SAMPLES = 0, 1
RAMP = ((0.0, 100.0), (2.0, 500.0), (2.0, 50.0), (3.0, 50.0), (3.5, 350.25))


def samples(reader, since_us: int = 0) -> list[tuple[int, int]]:
    kind, listed = reader.call("nvmlDeviceGetSamples", POWER_SAMPLES, since_us)
    assert kind == 1  # unsigned int
    return [(sample["timeStamp"], sample["sampleValue"]["uiVal"]) for sample in listed]


def refused(reader, *arguments: int) -> int:
    with pytest.raises(NvmlError) as raised:
        reader.call("nvmlDeviceGetSamples", *arguments)
    return raised.value.code


@pytest.mark.parametrize("elapsed_ms", [0, 19, 500, 2_005, 3_333, 90_000])
@pytest.mark.parametrize("sensor", [sim.Sensor(samples_ms=20), sim.Sensor(samples_ms=7, gain=1.1)])
def test_samples_are_the_exact_means(open_reader, clock, sensor, elapsed_ms) -> None:
    device = sim.Device(RAMP, sensor)
    reader = open_reader(device)
    clock.advance(elapsed_ms / 1000)
    shown, true = samples(reader), device.recent_samples(elapsed_ms * 1_000_000)
    assert len(shown) == len(true) == 120
    for (at_us, shown_mw), (end_ns, true_mw) in zip(shown, true, strict=True):
        assert shown_mw == pytest.approx(true_mw, abs=1)
        assert (at_us - shown[-1][0]) * 1000 == pytest.approx(end_ns - true[-1][0], abs=1000)


def test_samples_are_stamped_as_fields_are(open_reader, clock) -> None:
    sensor = sim.Sensor(samples_ms=20, update_ms=20)
    reader = open_reader(sim.Device(RAMP, sensor))
    clock.advance(1.019)
    (field,) = reader.fields(POWER_INSTANT)
    assert samples(reader)[-1][0] == field["timestamp"]


def test_only_what_is_newer_than_the_last_seen_is_given(open_reader, clock) -> None:
    reader = open_reader(sim.Device(RAMP, sim.Sensor(samples_ms=20)))
    clock.advance(1)
    first = samples(reader)
    assert refused(reader, POWER_SAMPLES, first[-1][0]) == NOT_FOUND
    clock.advance(0.06)
    newer = samples(reader, first[-1][0])
    assert len(newer) == 3
    assert samples(reader) == [*first[3:], *newer]


def test_with_little_room_the_oldest_come_first(tmp_path) -> None:
    code = """
import ctypes, pynvml as n
n.nvmlInit()
handle = n.nvmlDeviceGetHandleByIndex(0)
lib = ctypes.CDLL("libnvidia-ml.so.1")
kind, since, last = ctypes.c_uint(), ctypes.c_ulonglong(0), None
for room in (0, 2, 3):
    count, out = ctypes.c_uint(room), (n.c_nvmlSample_t * 4)()
    code = lib.nvmlDeviceGetSamples(handle, 0, since, ctypes.byref(kind), ctypes.byref(count), out)
    stamps = [s.timeStamp for s in out if s.timeStamp]
    print(code, count.value, [b - a for a, b in zip(stamps, stamps[1:])], stamps[:1] != [last])
    if stamps:
        since, last = ctypes.c_ulonglong(stamps[-1]), stamps[-1]
"""
    path = sim.Trace([sim.Device(sensor=sim.Sensor(samples_ms=1000))]).write(tmp_path)
    done = sim.run_python(code, sim.environment(path))
    assert done.stdout.splitlines() == [
        "2 0 [] True",
        "0 2 [1000000] True",
        "0 3 [1000000, 1000000] True",
    ], done.stderr


def test_without_the_key_and_for_other_samples_they_are_not_supported(open_reader) -> None:
    reader = open_reader(sim.Device())
    assert refused(reader, POWER_SAMPLES, 0) == NOT_SUPPORTED
    reader = open_reader(sim.Device(sensor=sim.Sensor(samples_ms=20)))
    assert refused(reader, GPU_UTILIZATION_SAMPLES, 0) == NOT_SUPPORTED


@pytest.mark.parametrize("name", sim.PRESETS)
def test_the_sensors_of_real_cards_read_exactly(open_reader, clock, name) -> None:
    device = sim.Device(RAMP, sim.PRESETS[name])
    reader = open_reader(device)
    start_ns = clock.now_ns
    for elapsed_ns in range(0, 4 * sim.NS_PER_S, 97_000_000):
        clock.set(start_ns + elapsed_ns)
        average, instant = (v["number"] for v in reader.fields(POWER_AVERAGE, POWER_INSTANT))
        assert instant == pytest.approx(device.shown_power_mw(elapsed_ns), abs=1)
        long = device.shown_power_mw(elapsed_ns, device.sensor.average_window_ms)
        assert average == pytest.approx(long, abs=1)
        assert reader.energy_mj() == pytest.approx(device.counter_mj(elapsed_ns), abs=1)
    reader.close()
    assert reader.stderr == ""
