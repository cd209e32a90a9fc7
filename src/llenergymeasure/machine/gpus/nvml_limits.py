"""One GPU's power limit and clock, set and read through NVML in this process.

Everything that is set is read back. NVML can lock clocks but has no way to ask how they were
locked before: putting back means to unlock, the driver's default.
"""

import time
from dataclasses import dataclass
from typing import Any

from llenergymeasure.errors import LlemError
from llenergymeasure.machine.gpus.inventory import nvml_value
from llenergymeasure.machine.gpus.state import power_limit_w

CLOCK_STEP_MHZ = 15
"""Distance between two clocks a data-centre GPU supports; a locked one may read one off."""

CLOCK_WAIT_S = 3.0
"""A clock follows its lock within this, or it is not locked."""


class LimitsError(LlemError):
    """A limit was refused, or did not hold when it was read back."""


@dataclass(frozen=True)
class Limits:
    """What a run asks for; None leaves a thing alone.

    Attributes:
        power_limit_w: power limit in W.
        sm_clock_mhz: clock the multiprocessors are locked to, in MHz.
    """

    power_limit_w: float | None = None
    sm_clock_mhz: int | None = None


class Card:
    """One card whose limits are to be changed."""

    def __init__(self, uuid: str) -> None:
        """Find the card.

        Raises:
            LimitsError: it does not answer.
        """
        import pynvml

        self.uuid = uuid
        self.power_changed = False
        self.clock_changed = False
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            raise LimitsError(f"GPU {uuid} does not answer: {error}") from error

    def power_limit_w(self) -> float | None:
        """Return the power limit that is set."""
        return power_limit_w(self._handle)

    def sm_clock_mhz(self) -> int | None:
        """Return the multiprocessors' clock at this moment."""
        import pynvml

        value: int | None = nvml_value("nvmlDeviceGetClockInfo", self._handle, pynvml.NVML_CLOCK_SM)
        return value

    def check(self, limits: Limits) -> None:
        """Say what of ``limits`` this card cannot do, before anything is set.

        Raises:
            LimitsError: out of the card's range, or not supported.
        """
        if limits.power_limit_w is not None:
            self._check_power(limits.power_limit_w)
        if limits.sm_clock_mhz is not None:
            self._check_clock(limits.sm_clock_mhz)

    def apply(self, limits: Limits) -> dict[str, Any]:
        """Set ``limits``, read them back, and return what was read.

        Raises:
            LimitsError: not permitted, or another value is there afterwards.
        """
        readings: dict[str, Any] = {}
        if limits.power_limit_w is not None:
            self.set_power_limit(limits.power_limit_w)
            readings["power_limit_w"] = self.power_limit_w()
            enforced_mw = nvml_value("nvmlDeviceGetEnforcedPowerLimit", self._handle)
            readings["enforced_power_limit_w"] = None if enforced_mw is None else enforced_mw / 1000
        if limits.sm_clock_mhz is not None:
            readings["sm_clock_mhz"] = self._lock_clock(limits.sm_clock_mhz)
        return readings

    def set_power_limit(self, limit_w: float) -> None:
        """Set the power limit and read it back.

        Raises:
            LimitsError: not permitted, or another value is there afterwards.
        """
        self._call("power_limit_w", "nvmlDeviceSetPowerManagementLimit", round(limit_w * 1000))
        self.power_changed = True
        now_w = self.power_limit_w()
        if now_w is None or abs(now_w - limit_w) > 0.001:
            raise LimitsError(
                f"GPU {self.uuid}: the power limit was set to {limit_w:g} W, but reads {now_w} W"
            )

    def unlock_clock(self) -> None:
        """Let the clocks move again.

        Raises:
            LimitsError: not permitted.
        """
        self._call("sm_clock_mhz", "nvmlDeviceResetGpuLockedClocks")

    def _lock_clock(self, clock_mhz: int) -> int:
        self._call("sm_clock_mhz", "nvmlDeviceSetGpuLockedClocks", clock_mhz, clock_mhz)
        self.clock_changed = True
        deadline = time.monotonic() + CLOCK_WAIT_S
        while True:
            now_mhz = self.sm_clock_mhz()
            if now_mhz is not None and now_mhz <= clock_mhz + CLOCK_STEP_MHZ:
                return now_mhz
            if time.monotonic() > deadline:
                raise LimitsError(
                    f"GPU {self.uuid}: the clock was locked to {clock_mhz} MHz, but reads "
                    f"{now_mhz} MHz"
                )
            time.sleep(0.05)

    def _check_power(self, limit_w: float) -> None:
        bounds = nvml_value("nvmlDeviceGetPowerManagementLimitConstraints", self._handle)
        if bounds is None or self.power_limit_w() is None:
            raise LimitsError(f"GPU {self.uuid} has no power limit that can be set")
        low_w, high_w = bounds[0] / 1000, bounds[1] / 1000
        if not low_w <= limit_w <= high_w:
            raise LimitsError(
                f"gpu.power_limit_w: GPU {self.uuid} takes {low_w:g} to {high_w:g} W "
                f"(found {limit_w:g})"
            )

    def _check_clock(self, clock_mhz: int) -> None:
        supported = self._supported_clocks()
        if not supported:
            raise LimitsError(f"GPU {self.uuid} does not say which clocks it supports")
        if clock_mhz in supported:
            return
        nearest = sorted(supported, key=lambda mhz: abs(mhz - clock_mhz))[:2]
        raise LimitsError(
            f"gpu.sm_clock_mhz: GPU {self.uuid} supports {min(supported)} to {max(supported)} MHz "
            f"in steps, near it {' and '.join(str(mhz) for mhz in sorted(nearest))} "
            f"(found {clock_mhz})"
        )

    def _supported_clocks(self) -> list[int]:
        """Return the clocks the card supports at its highest memory clock, the one used for work.

        On NVIDIA GPUs the multiprocessors run at the graphics clock.
        """
        memory = nvml_value("nvmlDeviceGetSupportedMemoryClocks", self._handle)
        clocks = "nvmlDeviceGetSupportedGraphicsClocks"
        clocks_mhz = nvml_value(clocks, self._handle, max(memory)) if memory else None
        return list(clocks_mhz or [])

    def _call(self, setting: str, function: str, *arguments: Any) -> None:
        import pynvml

        try:
            getattr(pynvml, function)(self._handle, *arguments)
        except pynvml.NVMLError_NoPermission as error:
            raise LimitsError(
                f"gpu.{setting}: not permitted on GPU {self.uuid}; it takes root, or an "
                "administrator who sets it for you; leave it out to run with what is set"
            ) from error
        except pynvml.NVMLError_NotSupported as error:
            raise LimitsError(f"gpu.{setting}: GPU {self.uuid} does not support it") from error
        except pynvml.NVMLError as error:
            raise LimitsError(f"gpu.{setting}: GPU {self.uuid} refused it: {error}") from error


def open_nvml() -> None:
    """Start NVML.

    Raises:
        LimitsError: there is no driver.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise LimitsError(f"limits need an NVIDIA driver: {error}") from error
