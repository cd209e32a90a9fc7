"""Cards that the meter was not tuned to: real update periods and windows, any phase.

Update periods and windows are those of arXiv 2312.02741; H200 has no published ones and is given
those of H100. ``true`` counters count every joule, ``sum`` counters add up what the power sensor
shows, part-time as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from meter_adversary_loads import Trace
from meter_recording import T0_NS, CostlyClock, nanoseconds, record_channels

from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors import rapl
from llenergymeasure.sensors.base import Channel, Value
from nvml_sim import sim

COUNTER_PERIOD_S = 0.1
RAPL_SCALE = 0.4
"""Power of the CPU package over that of the card."""
_RAPL_UNIT_J = 2.0**-16
_RAPL_RANGE_UJ = 262_143_328_850


@dataclass(frozen=True)
class Model:
    """A kind of card.

    Attributes:
        name: as the tables name it.
        product: the name that NVML gives.
        kind: ``true`` or ``sum``.
        sensor: its instruments, without phases.
    """

    name: str
    product: str
    kind: str
    sensor: sim.Sensor

    def card(self, rng: np.random.Generator) -> "DrawnCard":
        """Return a card whose sensor and counter renew at random phases."""
        phase_ms = round(float(rng.uniform(0, self.sensor.update_ms)), 4)
        return DrawnCard(self, phase_ms, round(float(rng.uniform(0, 100)), 4))


@dataclass(frozen=True)
class DrawnCard:
    """A card with its phases."""

    model: Model
    phase_ms: float
    counter_phase_ms: float

    @property
    def uuid(self) -> str:
        """Return the card's UUID."""
        return f"GPU-{self.model.name.replace(' ', '-').replace('/', '-')}"

    def device(
        self, trace: Trace, limit_w: float, sensor: Mapping[str, Any] | None = None, **keys: Any
    ) -> sim.Device:
        """Return the simulated card under a load, with further settings."""
        defaults = {
            "phase_ms": self.phase_ms,
            "counter_phase_ms": self.counter_phase_ms,
            "counter_from": "samples" if self.model.kind == "sum" else "true",
        }
        return sim.Device(
            name=self.model.product,
            uuid=self.uuid,
            power_w=np.column_stack((trace.t_s, trace.power_w)).tolist(),
            sensor=replace(self.model.sensor, **{**defaults, **(sensor or {})}),
            keys={"power_limit_w": {"min": 100.0, "max": limit_w, "default": limit_w}, **keys},
        )

    def next_tick_s(self, moment_s: float) -> float:
        """Return when the counter steps next."""
        phase_s = self.counter_phase_ms / 1000
        step = np.floor((moment_s - phase_s) / COUNTER_PERIOD_S) + 1
        return float(phase_s + step * COUNTER_PERIOD_S)


_A100 = sim.Sensor(update_ms=101, window_ms=25)
_H100 = sim.Sensor(update_ms=100, window_ms=25, average_window_ms=1000)
_V100 = sim.Sensor(update_ms=20, window_ms=10)
_RTX = sim.Sensor(update_ms=100, window_ms=100, average_window_ms=1000)

MODELS = (
    Model("A100 true", "NVIDIA A100-SXM4-80GB", "true", _A100),
    Model("A100 sum", "NVIDIA A100-SXM4-80GB", "sum", _A100),
    Model("H100 true", "NVIDIA H100 80GB HBM3", "true", _H100),
    Model("H100 sum", "NVIDIA H100 80GB HBM3", "sum", _H100),
    Model("H200 true", "NVIDIA H200", "true", _H100),
    Model("H200 sum", "NVIDIA H200", "sum", _H100),
    Model("V100 true", "Tesla V100-SXM2-32GB", "true", _V100),
    Model("RTX 100/100 true", "NVIDIA GeForce RTX 3090", "true", _RTX),
    Model("RTX 100/100 sum", "NVIDIA GeForce RTX 3090", "sum", _RTX),
)
QUICK_MODELS = ("A100 sum", "H100 true", "H100 sum", "V100 true")


def model(name: str) -> Model:
    """Return a kind of card by its name."""
    return next(kind for kind in MODELS if kind.name == name)


class FakePowercap:
    """A powercap folder with one CPU package, renewed each millisecond of the stepped clock."""

    def __init__(self, root: Path, trace: Trace, clock: CostlyClock, phase_s: float) -> None:
        self.root = root
        self._package = root / "intel-rapl:0"
        self._package.mkdir(parents=True, exist_ok=True)
        self._clock, self._phase_s = clock, phase_s
        # The counter at each renewal, so that a read costs no integral.
        count = int(trace.t_s[-1] / 0.001) + 1
        steps_s = phase_s + 0.001 * np.arange(count, dtype=np.float64)
        energy_j = trace.up_to_j(steps_s)
        self._energy_uj = (np.floor(energy_j / _RAPL_UNIT_J) * _RAPL_UNIT_J * 1e6).astype(np.int64)
        (self._package / "name").write_text("package-0\n")
        (self._package / "max_energy_range_uj").write_text(f"{_RAPL_RANGE_UJ}\n")
        self.renew()

    def energy_j(self, moment_s: float) -> float:
        """Return what the counter shows at a moment."""
        return float(self._energy_uj[self._place(moment_s)]) * 1e-6

    def start_over(self, moment_s: float) -> None:
        """Have the counter begin again from 0 at a moment, as after a suspension."""
        index = self._place(moment_s)
        self._energy_uj[index:] -= self._energy_uj[index]

    def wrap(self, moment_s: float) -> None:
        """Have the counter reach the end of its range at a moment, and go on from 0."""
        start_uj = _RAPL_RANGE_UJ - self._energy_uj[self._place(moment_s)]
        self._energy_uj = (self._energy_uj + start_uj) % _RAPL_RANGE_UJ

    def record(self, begin_s: float, end_s: float) -> Samples:
        """Record the package with the project's own RAPL sensor."""
        self._clock.set(nanoseconds(begin_s))
        vars(rapl)["time"] = self._clock
        self.renew()
        sensor = rapl.RaplSensor(self.root, max_still_s=0)

        def renewed(channel: Channel) -> Channel:
            def read() -> Sequence[Value]:
                self.renew()
                return channel.read()

            return replace(channel, read=read)

        channels = [renewed(channel) for channel in sensor.channels()]
        return record_channels(channels, sensor.describe(), self._clock, end_s)

    def renew(self) -> None:
        """Write what the counter shows now."""
        energy_uj = self._energy_uj[self._place((self._clock.now_ns - T0_NS) / 1e9)]
        (self._package / "energy_uj").write_text(f"{int(energy_uj)}\n")

    def _place(self, moment_s: float) -> int:
        index = int((moment_s - self._phase_s) / 0.001)
        return min(max(index, 0), len(self._energy_uj) - 1)
