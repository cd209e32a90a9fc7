"""CPU packages and DRAM through Linux's powercap (Intel and AMD RAPL), read directly.

The kernel gives one folder a domain with ``name``, ``energy_uj`` and ``max_energy_range_uj``, at
which the counter starts over (Documentation/power/powercap). Cores and uncore lie within their
package and are left out; ``psys`` (``psys-1`` where the second package has it) is the whole
platform and is given as the host. The hardware renews the counters about each millisecond (Intel
SDM vol. 3, RAPL), and the platform's of some servers counts whole joules, which takes longer.
"""

import time
from itertools import pairwise
from pathlib import Path

from llenergymeasure.machine.host import read_text
from llenergymeasure.sensors.base import Channel, Every, Sensor, SensorError, SensorInfo, Value
from llenergymeasure.units import Scope

NAME = "rapl"
POWERCAP = Path("/sys/class/powercap")
UPDATE_PERIOD_S = 0.001
_PACE = Every(0.05, speed="fast")
_STILL_TEST_S = 0.05
"""A counter that shows the same for so long, fifty periods, counts nothing: some are frozen, and a
hypervisor that shares out a package's energy among its guests does so each second (QEMU)."""
_SPREAD_S = 2 * UPDATE_PERIOD_S
"""By so much the dies of a package may show its counter at different times."""
_STILL_S = 1.0
"""Likewise, while it is recorded on a machine that is busy."""
_MAX_W = 2000.0
"""No package, its memory or platform draws more."""
_MAX_PART_W = 1000.0
"""Nor a package or memory by itself."""
_MAX_RISE = 10.0
"""While it was not read it is taken to have drawn up to so many times what was seen of it."""
_PERMISSION = (
    "energy_uj may be read by root alone; an administrator can allow it: "
    "chmod -R a+r /sys/class/powercap/intel-rapl/"
)


class RaplSensor(Sensor):
    """The counters of all CPU packages, their DRAM, and the platform where it has one."""

    def __init__(self, root: Path = POWERCAP, max_still_s: float = _STILL_TEST_S) -> None:
        """Take the powercap folder, and how long a counter may stand still."""
        domains = _domains(root, max_still_s)
        missing = SensorInfo(
            "cpu",
            "CPU package",
            NAME,
            "measured",
            "cpu",
            unavailable=f"no RAPL counters in {root}",
            remedy="virtual machines and most containers hide them; on the bare machine load the "
            "kernel module intel_rapl_msr (it serves AMD too)",
        )
        super().__init__(
            [domain.describe() for domain in domains] or [missing],
            [
                Channel(domain.device, NAME, ("energy_counter_j",), domain.read, _PACE)
                for domain in domains
                if domain.unavailable is None
            ],
        )


class _Domain:
    """One counter, made to go on where it starts over."""

    def __init__(self, folder: Path, device: str, scope: Scope, max_still_s: float) -> None:
        self.device = device
        self._scope = scope
        self._folder = folder
        self._last_uj: int | None = None
        self._previous_uj: int | None = None
        self._last_s = self._new_s = 0.0
        self._wrapped_uj = 0
        self._range_uj = 0
        self._period_s = UPDATE_PERIOD_S
        self._peak_w = 0.0
        self.unavailable: str | None = None
        self._remedy: str | None = None
        self._note: str | None = None
        try:
            self._range_uj = int((folder / "max_energy_range_uj").read_text())
            self.read()
            if max_still_s:
                self._check_counts(max_still_s)
            self._previous_uj = None  # what comes before a recording's first read does not count
        except SensorError as error:
            self.unavailable = str(error)
            self._remedy = _PERMISSION if "permission" in str(error).lower() else None
        except (OSError, ValueError) as error:
            self.unavailable = f"{folder}: {error}"

    def _check_counts(self, max_still_s: float) -> None:
        """Raise where it does not count; where it does this takes some milliseconds."""
        changes_s: list[float] = []
        while len(changes_s) < 4:
            last_uj, end_s = self._last_uj, time.monotonic() + max_still_s
            while self._last_uj == last_uj:
                if time.monotonic() > end_s:
                    raise SensorError(f"{self._folder / 'energy_uj'} stands still at {last_uj}")
                time.sleep(UPDATE_PERIOD_S)
                self.read()
            changes_s.append(time.monotonic())
        period_s = min(later - earlier for earlier, later in pairwise(changes_s))
        # At the hardware's pace the next look or the one after sees a renewal.
        if period_s > 3 * UPDATE_PERIOD_S:
            self._period_s = period_s + 2 * UPDATE_PERIOD_S  # as unsure as two looks are apart

    def describe(self) -> SensorInfo:
        return SensorInfo(
            device=self.device,
            name=f"{self.device} ({read_text(self._folder / 'name')})",
            sensor=NAME,
            kind="measured",
            scope=self._scope,
            quantities=() if self.unavailable else ("energy_counter_j",),
            update_period_s=self._period_s,
            counter_resolution_j=1e-6,
            unavailable=self.unavailable,
            remedy=self._remedy,
            note=self._note,
        )

    def absorbs_repeat(self, other: "_Domain") -> bool:
        """Return whether a later die of the same package shows this counter again; note it.

        Each die of AMD's Zen and Zen 2 shows that of the whole package (codecarbon 1274). Dies
        that count for themselves are kilojoules apart soon after the machine starts.
        """
        package, die, _ = self.device.rpartition("-die-")
        if not die or not other.device.startswith(package + die):
            return False
        try:
            other.read(), self.read()
        except SensorError:
            return False
        finally:
            self._previous_uj = other._previous_uj = None  # as in the beginning
        apart_uj = abs((other._last_uj or 0) - (self._last_uj or 0))
        if min(apart_uj, abs(self._range_uj - apart_uj)) > 1e6 * _MAX_PART_W * _SPREAD_S:
            return False
        notes = (self._note, f"{other.device} repeats its counter, and is left out")
        self._note = "; ".join(filter(None, notes))
        return True

    def read(self) -> tuple[Value, ...]:
        try:
            now_uj = int((self._folder / "energy_uj").read_text())
        except (OSError, ValueError) as error:
            raise SensorError(f"{self._folder / 'energy_uj'}: {_reason(error)}") from error
        now_s = time.monotonic_ns() / 1e9
        if now_uj != self._last_uj:
            self._new_s = now_s
        elif now_s - self._new_s > _STILL_S:
            raise SensorError(f"{self._folder / 'energy_uj'} stands still at {now_uj}")
        most_w = _MAX_W if self._scope == "host" else _MAX_PART_W
        if self._peak_w > 0:
            most_w = min(most_w, _MAX_RISE * self._peak_w)
        since_s = max(now_s - self._last_s, _STILL_TEST_S)
        if self._previous_uj is not None and 0 < self._range_uj * 1e-6 < most_w * since_s:
            # So long a pause may hold a whole turn: as after a reset the value falls.
            self._wrapped_uj -= self._range_uj
        elif self._previous_uj is not None and now_uj >= self._previous_uj:
            self._peak_w = max(self._peak_w, (now_uj - self._previous_uj) * 1e-6 / since_s)
        elif self._previous_uj is not None:
            rise_j = (self._range_uj - self._previous_uj + now_uj) * 1e-6
            # Starting over at its range is a wrap; with less power than that takes it is a reset
            # (suspend, a hypervisor), what was counted is lost, and the value falls: a reader sees.
            if rise_j <= _MAX_W * max(now_s - self._last_s, UPDATE_PERIOD_S):
                self._wrapped_uj += self._range_uj
        self._last_uj, self._previous_uj, self._last_s = now_uj, now_uj, now_s
        joules = (self._wrapped_uj + now_uj) * 1e-6
        return (Value("energy_counter_j", joules, span_ns=int(self._period_s * 1e9)),)


def _domains(root: Path, max_still_s: float) -> list[_Domain]:
    """Find packages, their DRAM and the platform; ``intel-rapl-mmio`` repeats packages."""
    domains: list[_Domain] = []
    for package in _children(root, "intel-rapl:*"):
        name = read_text(package / "name")
        if package.name.count(":") != 1:
            continue
        if name == "psys" or name.startswith("psys-"):
            domains.append(_Domain(package, "host", "host", max_still_s))
        elif name.startswith("package"):
            domains.append(_Domain(package, f"cpu:{name}", "cpu", max_still_s))
            # The kernel shows a package's parts inside it and next to it.
            inside = f"{package.name}:*"
            parts = _children(package, inside) or _children(root, inside)
            dram = [part for part in parts if read_text(part / "name") == "dram"]
            domains += [_Domain(part, f"dram:{name}", "dram", max_still_s) for part in dram]
    distinct: list[_Domain] = []
    # Of several that are the platform one counts.
    for domain in sorted(domains, key=lambda domain: domain.unavailable is not None):
        if not any(
            first.device == domain.device or first.absorbs_repeat(domain) for first in distinct
        ):
            distinct.append(domain)
    return distinct


def _children(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_dir())


def _reason(error: Exception) -> str:
    return "permission denied" if isinstance(error, PermissionError) else str(error)
