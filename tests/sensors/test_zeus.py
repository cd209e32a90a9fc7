"""Counters that are read through Zeus: they give energy, or a reason."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from llenergymeasure.config.calibration import Calibration
from llenergymeasure.energy.account import account
from llenergymeasure.energy.device import open_device
from llenergymeasure.energy.readings import choose_headline, missing_reading, open_sources
from llenergymeasure.machine.gpus.inventory import Selection
from llenergymeasure.recording.recorder import Recording
from llenergymeasure.recording.sampler import Reader
from llenergymeasure.recording.samples import Header, SampleRow, Samples, make_samples
from llenergymeasure.sensors.base import Channel, Follow, Sensor, SensorInfo, Value
from llenergymeasure.sensors.registry import OpenSensors
from llenergymeasure.sensors.zeus import ZeusSensor
from sensors.clock import Clock

See = Callable[[str, object], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of probing and of reading."""
    pytest.importorskip("zeus")
    clock = Clock()
    monkeypatch.setattr("llenergymeasure.sensors.zeus.time", clock)
    monkeypatch.setattr("llenergymeasure.recording.sampler.time", clock)
    return clock


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> See:
    """Has one of Zeus' functions find what it is given."""

    def found(name: str, what: object) -> None:
        monkeypatch.setattr(f"zeus.device.{name}", lambda: what)

    return found


class _Daemon:
    """Zeus' view of one CPU whose counter rises by itself, or does not."""

    def __init__(self, clock: Clock, watts: float) -> None:
        self.cpus = [SimpleNamespace(cpu_index=0)]
        self._clock, self._watts = clock, watts
        self.asked = 0

    def get_total_energy_consumption(self, _number: int) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(cpu_mj=5e6 + 1e3 * self._watts * (self._clock.now_s - 100.0))

    def supports_get_dram_energy_consumption(self, _number: int) -> bool:
        return False


class _Chip:
    """Zeus' view of a chip, which counts whole mJ and has counted some at 100 s."""

    def __init__(self, clock: Clock, counted_mj: int = 7, **milliwatts: float) -> None:
        self._clock, self._counted_mj = clock, counted_mj
        self._milliwatts = milliwatts

    def get_available_metrics(self) -> set[str]:
        return {f"{part}_mj" for part in self._milliwatts}

    def get_total_energy_consumption(self) -> SimpleNamespace:
        since_s = self._clock.now_s - 100.0
        return SimpleNamespace(
            **{
                f"{part}_mj": int(self._counted_mj + drawn_mw * since_s)
                for part, drawn_mw in self._milliwatts.items()
            }
        )


def _recorded(clock: Clock, sensor: Sensor, info: SensorInfo) -> Samples:
    """What half a second of a device's channel gives."""
    (channel,) = (c for c in sensor.channels() if c.device == info.device)
    rows: list[SampleRow] = []
    reader = Reader(channel, rows.append)
    for _ in range(5):
        reader.read()
        clock.sleep(0.1)
    reader.read(last=True)
    return make_samples(rows, Header(None, None, "host", 0, "2026-01-01T00:00:00+00:00", (info,)))


def _silent(sensor: Sensor) -> dict[tuple[str, str], str]:
    return {
        (info.device, info.scope): info.unavailable
        for info in sensor.describe()
        if info.unavailable is not None
    }


def test_a_counter_through_zeus_gives_energy(clock: Clock, see: See) -> None:
    see("cpu.get_cpus", _Daemon(clock, 100.0))
    sensor = ZeusSensor()
    (info,) = (info for info in sensor.describe() if info.device == "cpu:package-0")

    counter = open_device(_recorded(clock, sensor, info), info).counter

    assert counter is not None
    drawn_w = np.ptp(counter.knots.energy_j) / np.ptp(counter.knots.t_s)
    assert drawn_w == pytest.approx(100.0)


def test_a_counter_through_zeus_that_stands_still_is_unavailable(clock: Clock, see: See) -> None:
    see("cpu.get_cpus", _Daemon(clock, 0.0))
    sensor = ZeusSensor()
    assert not [c for c in sensor.channels() if c.device == "cpu:package-0"]
    assert _silent(sensor)["cpu:package-0", "cpu"] == "it stands still at 5000"


def test_a_call_through_zeus_that_takes_long_is_made_apart_from_the_fast_ones(
    clock: Clock, see: See, tmp_path: Path
) -> None:
    daemon = _Daemon(clock, 100.0)
    see("cpu.get_cpus", daemon)
    zeus = ZeusSensor(())
    assert {channel.pace.speed for channel in zeus.channels()} == {"slow"}
    card_asked: list[None] = []

    def read_card() -> list[Value]:
        card_asked.append(None)
        return [Value("energy_counter_j", 1.0)]

    card = Channel("card", "nvml", ("energy_counter_j",), read_card, Follow(fine_s=0.005))
    opened = OpenSensors([zeus, Sensor([], [card])], Selection((), "none"))
    recording = Recording(opened, tmp_path / "samples.arrows")
    reads = []
    for loop in recording.loops:
        daemon.asked, before = 0, len(card_asked)
        loop.prime()
        reads.append((daemon.asked, len(card_asked) - before))
    recording.end()

    assert sorted(reads) == [(0, 1), (1, 0)]


def test_a_part_of_a_chip_that_draws_next_to_nothing_is_there_at_every_probing(
    clock: Clock, see: See
) -> None:
    chip = _Chip(clock, cpu_total=500, dram=100, gpu=2)
    see("soc.get_soc", chip)

    values = []
    for at_s in (100.0, 100.4, 101.0):  # its next mJ is due at 100.5 s
        clock.now_s = at_s
        values.append([channel.device for channel in ZeusSensor(cpus=False).channels()])

    assert values == [["cpu", "dram", "gpu"]] * 3


def test_a_part_of_a_chip_that_has_counted_nothing_has_a_reason_next_to_the_others(
    clock: Clock, see: See
) -> None:
    chip = _Chip(clock, counted_mj=0, cpu_total=500, gpu=0)
    see("soc.get_soc", chip)
    sensor = ZeusSensor(cpus=False)

    assert [channel.device for channel in sensor.channels()] == ["cpu"]
    assert _silent(sensor) == {("gpu", "gpu"): "it stands still at 0"}


def test_a_part_of_a_chip_that_counts_nothing_in_a_recording_has_no_energy_and_a_reason(
    clock: Clock, see: See
) -> None:
    see("soc.get_soc", _Chip(clock, gpu=0))
    sensor = ZeusSensor(cpus=False)
    (info,) = sensor.describe()
    samples = _recorded(clock, sensor, info)

    device = open_device(samples, info)
    assert (device.counter, device.power) == (None, None)
    reason = missing_reading(samples, info).unavailable
    assert reason == "it gave no energy, energy_counter_j was 0.007 all along"


def test_a_module_whose_gpu_has_counted_nothing_is_the_headline(clock: Clock, see: See) -> None:
    chip = _Chip(clock, counted_mj=0, gpu_energy=0, total_energy=5000)
    see("soc.get_soc", chip)
    sensor = ZeusSensor(cpus=False)
    window = (clock.monotonic_ns(), clock.monotonic_ns() + 400_000_000)
    gpu, module = sorted(sensor.describe(), key=lambda info: info.device)
    samples = _recorded(clock, sensor, module)

    sources, _ = open_sources(samples, module, window, (), Calibration({}), None)
    chosen, why = choose_headline(sources, [missing_reading(samples, gpu)], window, None)

    assert [source.info.device for source in chosen] == ["module"]
    assert why is None


class _AmdGpus:
    """Zeus' view of AMD's GPUs, each of which shows the energy of the card that it is of."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.gpus = [SimpleNamespace(gpu_index=i, handle=i) for i in range(count)]
        self._clock = clock

    def get_name(self, _number: int) -> str:
        return "AMD Instinct MI300X"

    def supports_get_total_energy_consumption(self, _number: int) -> bool:
        return True

    def get_total_energy_consumption(self, _number: int) -> float:
        return 1e6 + 136e3 * (self._clock.now_s - 100.0)


@pytest.mark.parametrize(
    ("partition", "is_slice"), [("CPX", True), ("QPX", True), ("SPX", False), (None, False)]
)
def test_a_part_of_an_amd_card_has_the_energy_of_all_of_it_and_a_code(
    clock: Clock,
    see: See,
    monkeypatch: pytest.MonkeyPatch,
    partition: str | None,
    is_slice: bool,
) -> None:
    def compute_partition(_handle: object) -> str:
        if partition is None:
            raise RuntimeError("AMDSMI_STATUS_NOT_SUPPORTED")
        return partition

    amdsmi = SimpleNamespace(amdsmi_get_gpu_compute_partition=compute_partition)
    monkeypatch.setitem(sys.modules, "amdsmi", amdsmi)  # type: ignore[arg-type]
    see("get_gpus", _AmdGpus(clock, 8 if is_slice else 1))
    sensor = ZeusSensor(cpus=False)
    info, began_ns = sensor.describe()[0], clock.monotonic_ns()
    samples = _recorded(clock, sensor, info)

    result = account(samples, (began_ns + 120_000_000, began_ns + 380_000_000))

    assert result.headline[0].gross_j is not None
    assert ("mig_slice" in result.validity) == is_slice
