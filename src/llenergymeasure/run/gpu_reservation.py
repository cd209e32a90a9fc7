"""The GPUs of one run: found, locked, held at the limits it asks for (standard library only)."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from llenergymeasure.machine.cpu_share import runs_at_once, take_cpu_share
from llenergymeasure.machine.gpus.allotment import Allotment, fetch_allotment
from llenergymeasure.machine.gpus.limits import (
    restore_abandoned_limits,
    restore_limits,
    set_limits,
)
from llenergymeasure.machine.gpus.locks import GpuLocks, lock_gpus
from llenergymeasure.machine.gpus.nvml_limits import Limits
from llenergymeasure.screen import say

LOCK_WAIT_S = 3600.0
"""Another run may hold a card for long; an hour covers one of publication length."""


class Reservation:
    """Cards that no other run has; ``release`` gives them back as they were found."""

    def __init__(self, allotment: Allotment, locks: GpuLocks) -> None:
        self.allotment = allotment
        self._locks = locks
        self._requested_limits = Limits()
        self.limits: dict[str, Any] | None = None
        """The limits held, and ``restored``: whether they were put back, None until then."""

    @classmethod
    def make(
        cls, config: Mapping[str, Any], owner: str, interrupted: Callable[[float], bool]
    ) -> "Reservation | None":
        """Find the run's cards and lock as many as it needs; no cards on a machine without GPUs.

        Returns:
            The reservation; None if ``interrupted`` said so.

        Raises:
            LlemError: a card is named that is not there, or other runs keep them for too long.
        """
        take_cpu_share(runs_at_once(os.environ))
        allotment = fetch_allotment(config)
        locks = lock_gpus(
            allotment.usable,
            owner,
            count=len(allotment.uuids),
            wait_s=LOCK_WAIT_S,
            interrupted=interrupted,
        )
        if locks is None:
            return None
        restore_leftover_limits(locks)
        if locks.waited:
            # The memory in use is read again, without the run that had the card until now.
            allotment = fetch_allotment(config)
        return cls(allotment.with_uuids(locks.uuids), locks)

    def set_limits(self, gpu: Mapping[str, Any]) -> None:
        """Set the power limit and clock that the experiment asks for, if any.

        Raises:
            LimitsError: they were refused.
        """
        requested = Limits(gpu.get("power_limit_w"), gpu.get("sm_clock_mhz"))
        if not self.allotment.uuids or requested == Limits():
            return
        self._requested_limits = requested
        self.limits = {"held": set_limits(self._locks, requested), "restored": None}

    def environment(self) -> dict[str, str]:
        """Return the engine's environment, which shows it the locked cards only."""
        return {**os.environ, **self.allotment.environment()}

    def restore_limits(self) -> None:
        """Put the limits back as they were found. The cards stay locked."""
        if self.limits is not None and self.limits["restored"] is None:
            self.limits |= restore_limits(self._locks)

    def release(self) -> None:
        """Put the limits back and let others have the cards."""
        self.restore_limits()
        self._locks.release()

    @property
    def limits_changed(self) -> bool:
        """Whether limits may not be as they were found."""
        restored = self.limits is not None and self.limits["restored"]
        return self._requested_limits != Limits() and not restored


def restore_leftover_limits(locks: GpuLocks | None = None) -> None:
    """Put back what killed runs left on cards that are free or locked here; report failures."""
    for uuid, reason in restore_abandoned_limits(locks).items():
        if reason is not None:
            say(f"GPU {uuid} is still at the limits of a run that was killed: {reason}")
