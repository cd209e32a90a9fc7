"""How the channels of a card's sensor behave: published, or found by a probe and kept.

Nothing is learned from ordinary runs: what is known of a card is in the table below, in the file
that ``llem sensors --characterise`` has written for this card and driver, or it is seen in the
recording at hand (``energy.characterise``). A record says which.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from llenergymeasure.files import write_text
from llenergymeasure.sensors.base import Quantity, SensorInfo
from llenergymeasure.workload.cache import cache_folder

FORMAT_VERSION = 2

CounterNature = Literal["independent", "sum", "unverified"]
"""What an energy counter counts.

- ``independent``: energy that the power readings do not see, shown against the readings that it
  could have been made from;
- ``sum``: the sum of those readings, shown likewise: it sees no more than they do;
- ``unverified``: neither has been shown.
"""

POWER_QUANTITIES: tuple[Quantity, ...] = ("power_instant_w", "power_usage_w", "power_average_w")


@dataclass(frozen=True)
class PowerBehaviour:
    """How a power channel averages.

    Attributes:
        quantity: which channel.
        update_period_s: how often a reading is renewed; None if not known.
        window_s: the time each reading is a mean over; None if not known.
        source: ``found`` by a probe, ``published`` for the card, or ``documented`` by its maker.
    """

    quantity: Quantity
    update_period_s: float | None
    window_s: float | None
    source: str

    @property
    def share_seen(self) -> float | None:
        """Return the share of the time that the readings see, at most 1; None if not known."""
        if self.update_period_s is None or self.window_s is None:
            return None
        share = self.window_s / self.update_period_s
        # The two are found to some percent each: a window of one period sees all.
        return 1.0 if share > 0.9 else share


@dataclass(frozen=True)
class Behaviour:
    """How one sensor's channels on one device behave.

    Attributes:
        counter: what the energy counter counts.
        counter_period_s: how often it steps; None if there is none, or it is not known.
        counter_lag_s: how long after the energy was drawn it is counted; None if not known.
        power: the power channels of which something is known.
    """

    counter: CounterNature = "unverified"
    counter_period_s: float | None = None
    counter_lag_s: float | None = None
    power: tuple[PowerBehaviour, ...] = ()

    def channel(self, quantity: Quantity) -> PowerBehaviour | None:
        """Return what is known of a power channel, if anything."""
        return next((power for power in self.power if power.quantity == quantity), None)

    @property
    def is_informative(self) -> bool:
        """Return whether more is known than periods, which any recording shows."""
        return self.counter != "unverified" or any(
            power.window_s is not None and power.source == "found" for power in self.power
        )


PUBLISHED: dict[str, tuple[float, float, float]] = {
    "A100": (0.1, 0.025, 0.025),
    "H100": (0.1, 0.025, 1.0),
    "V100": (0.02, 0.01, 0.01),
    "RTX 3090": (0.1, 0.1, 1.0),
}
"""Update period and windows, of instant power and of the others, in s, by part of the card's name:
arXiv 2312.02741, tables of the GPU_Power_Benchmark data."""

DOCUMENTED_AVERAGE_S = 1.0
"""NVML's reference on NVML_FI_DEV_POWER_AVERAGE and nvmlDeviceGetPowerUsage: a mean over 1 s on
Ampere and later except GA100, the one card of that kind with an entry in ``PUBLISHED``."""


def published_behaviour(name: str, quantity: Quantity) -> PowerBehaviour | None:
    """Return what is published of a card's power channel, if anything."""
    for model, (period_s, instant_s, average_s) in PUBLISHED.items():
        if model in name:
            window_s = instant_s if quantity == "power_instant_w" else average_s
            return PowerBehaviour(quantity, period_s, window_s, "published")
    if quantity == "power_average_w":
        return PowerBehaviour(quantity, None, DOCUMENTED_AVERAGE_S, "documented")
    return None


def with_published(behaviour: Behaviour, info: SensorInfo) -> Behaviour:
    """Return how channels behave, filled in with what is published where no window was found."""
    powers = []
    for quantity in POWER_QUANTITIES:
        if quantity not in info.quantities:
            continue
        power, entry = behaviour.channel(quantity), published_behaviour(info.name, quantity)
        if power is None or (power.window_s is None and entry is not None):
            power = entry
        if power is not None:
            powers.append(power)
    return replace(behaviour, power=tuple(powers))


@dataclass(frozen=True)
class Characterisation:
    """What a probe has found of one card under one driver.

    Attributes:
        device: the card's UUID.
        name: the card in words.
        sensor: which sensor's channels.
        driver: version of the driver it holds for.
        behaviour: how the channels behave.
        found_at: when, UTC in ISO 8601.
    """

    device: str
    name: str
    sensor: str
    driver: str | None
    behaviour: Behaviour
    found_at: str

    @classmethod
    def now(cls, info: SensorInfo, behaviour: Behaviour) -> "Characterisation":
        """Return what has just been found of a card."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(info.device, info.name, info.sensor, info.driver, behaviour, at)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Characterisation":
        """Build it from plain values.

        Raises:
            KeyError, TypeError, ValueError: they are not what ``asdict`` gives.
        """
        values = {key: value for key, value in content.items() if key != "format_version"}
        behaviour = dict(values.pop("behaviour"))
        power = tuple(PowerBehaviour(**item) for item in behaviour.pop("power"))
        return cls(behaviour=Behaviour(**behaviour, power=power), **values)


Behaviours = Mapping[tuple[str, str], Behaviour]
"""How channels behave, by sensor and device, where a probe has found it."""


def store_folder() -> Path:
    """Return where this user's probes are kept, a file a card."""
    return cache_folder() / "sensors"


def load_characterised(infos: Iterable[SensorInfo]) -> dict[tuple[str, str], Characterisation]:
    """Return what probes have found of these cards under their present drivers."""
    characterised = {}
    for info in infos:
        stored = None if info.unavailable is not None else _read(_path(info.sensor, info.device))
        if stored is not None and stored.driver == info.driver:
            characterised[info.sensor, info.device] = stored
    return characterised


def save_characterised(probed: Characterisation) -> bool:
    """Keep what a probe found; return whether the place could be written to."""
    document = {"format_version": FORMAT_VERSION, **asdict(probed)}
    try:
        write_text(_path(probed.sensor, probed.device), json.dumps(document, indent=1) + "\n")
    except OSError:
        return False
    return True


PRECISION = 0.02
"""Relative half width that a window is expected to reach, unless a study asks for another."""

SHORTEST_PERIODS = 10
"""Fewest update periods a window needs for one more or less not to matter."""


@dataclass(frozen=True)
class Resolution:
    """What a card's sensor resolves of a window, whatever the load draws.

    Attributes:
        ends_s: error of both ends together, as a time at the mean power.
        least_s: so many update periods that one more or less does not matter.
    """

    ends_s: float
    least_s: float

    def window_s(self, precision: float) -> float:
        """Return the shortest window that reaches a relative precision."""
        return max(self.ends_s / precision, self.least_s)


def resolution(info: SensorInfo, behaviour: Behaviour) -> Resolution | None:
    """Return what a card's sensor resolves; None if it is not known.

    An independent counter's ends are known at its ticks. The ends of integrated power lie within
    half a period and half an averaging window, where the load may draw anything between rest and
    limit; and so do those of a counter that is the sum of readings, or may be.
    """
    period_s = behaviour.counter_period_s
    if "energy_counter_j" in info.quantities:
        if period_s is None:
            return None
        if behaviour.counter == "independent":
            return Resolution(0.0, SHORTEST_PERIODS * period_s)
    candidates = [
        Resolution(
            (power.window_s + power.update_period_s) / 2, SHORTEST_PERIODS * power.update_period_s
        )
        for power in behaviour.power
        if power.window_s is not None and power.update_period_s is not None
    ]
    return min(candidates, key=lambda candidate: candidate.ends_s, default=None)


def _path(sensor: str, device: str) -> Path:
    return store_folder() / f"{sensor}-{re.sub(r'[^A-Za-z0-9.-]', '_', device)}.json"


def _read(path: Path) -> Characterisation | None:
    """Return what a file holds; None if there is none, or it is of no use."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads(path.read_text())
        if content.get("format_version") == FORMAT_VERSION:
            return Characterisation.from_dict(content)
    return None
