"""Counters that are read through Zeus: they give energy, or a reason."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from llenergymeasure.energy.device import open_device
from llenergymeasure.recording.sampler import Reader
from llenergymeasure.recording.samples import Header, Row, make_samples
from llenergymeasure.sensors.zeus import ZeusSensor


class _Daemon:
    """Zeus' view of one CPU whose counter rises by itself, or does not."""

    def __init__(self, watts: float) -> None:
        self.cpus = [SimpleNamespace(cpu_index=0)]
        self._watts = watts

    def get_total_energy_consumption(self, _number: int) -> SimpleNamespace:
        return SimpleNamespace(cpu_mj=5e6 + 1e3 * self._watts * time.monotonic())

    def supports_get_dram_energy_consumption(self, _number: int) -> bool:
        return False


def test_a_counter_through_zeus_gives_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = pytest.importorskip("zeus.device.cpu")
    monkeypatch.setattr(cpu, "get_cpus", lambda: _Daemon(100.0))
    sensor = ZeusSensor()
    (info,) = (info for info in sensor.describe() if info.device == "cpu:package-0")
    (channel,) = (c for c in sensor.channels() if c.device == info.device)
    rows: list[Row] = []
    reader = Reader(channel, rows.append)
    for _ in range(5):
        reader.read()
        time.sleep(0.1)
    header = Header(None, None, "host", 0, "2026-01-01T00:00:00+00:00", (info,))
    counter = open_device(make_samples(rows, header), info).counter
    assert counter is not None
    drawn_w = np.ptp(counter.knots.energy_j) / np.ptp(counter.knots.t_s)
    assert 50 < drawn_w < 200  # a busy machine reads late


def test_a_counter_through_zeus_that_stands_still_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = pytest.importorskip("zeus.device.cpu")
    monkeypatch.setattr(cpu, "get_cpus", lambda: _Daemon(0.0))
    sensor = ZeusSensor()
    assert not [c for c in sensor.channels() if c.device == "cpu:package-0"]
    assert "it stands still at 5000" in str([info.unavailable for info in sensor.describe()])
