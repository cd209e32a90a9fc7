"""The GPUs of one run: found, locked, held at the limits it asks for (standard library only)."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO, Any

from llenergymeasure.machine.gpus.allotment import Allotment, ask_allotment, demand
from llenergymeasure.machine.gpus.guard import Guard, repair_left_limits
from llenergymeasure.machine.gpus.locks import GpuLocks, lock_gpus
from llenergymeasure.machine.gpus.sharing import CpuShare, lock_free_gpus, runs_at_once

LOCK_WAIT_S = 3600.0
"""A neighbour's run may hold a card for long; an hour covers one of publication length."""


class Reservation:
    """Cards that no other run has; ``release`` gives them back as they were found."""

    def __init__(self, allotment: Allotment, locks: GpuLocks) -> None:
        self.allotment = allotment
        self._locks = locks
        self._share: CpuShare | None = None
        self._guard: Guard | None = None
        self._held: dict[str, Any] = {}
        self._closed: dict[str, Any] | None = None

    @classmethod
    def make(
        cls, config: Mapping[str, Any], owner: str, interrupted: Callable[[float], bool]
    ) -> "Reservation | None":
        """Find and lock the run's cards; on a machine without any, that is none.

        Args:
            config: the resolved experiment.
            owner: who asks, for whoever comes second.
            interrupted: rests for so many seconds and returns whether to give up.

        Returns:
            The reservation; null if ``interrupted`` said so.

        Raises:
            LlemError: a card is named that is not there, or another run keeps one for too long.
        """
        repair_left_limits()
        at_once = runs_at_once(os.environ)
        if at_once > 1:
            return cls._beside_others(config, owner, interrupted, at_once)
        allotment = ask_allotment(config)
        locks = lock_gpus(allotment.uuids, owner, wait_s=LOCK_WAIT_S, interrupted=interrupted)
        return None if locks is None else cls(allotment, locks)

    @classmethod
    def _beside_others(
        cls,
        config: Mapping[str, Any],
        owner: str,
        interrupted: Callable[[float], bool],
        at_once: int,
    ) -> "Reservation | None":
        """Take cards that no other run has, and a share of the processors."""
        share = CpuShare.take(at_once)
        wanted = demand(config)
        free_choice = wanted.count is not None and wanted.first == 0
        allotment = ask_allotment(config, every=free_choice)
        choice = free_choice and not allotment.named and bool(allotment.uuids)
        wait: dict[str, Any] = {"wait_s": LOCK_WAIT_S, "interrupted": interrupted}
        if choice:
            count = min(wanted.count or 0, len(allotment.uuids))
            locks = lock_free_gpus(allotment.uuids, count, owner, **wait)
        else:
            locks = lock_gpus(allotment.uuids, owner, **wait)
        if locks is None:
            return None
        if choice:
            used = allotment.memory_used_bytes
            left = {uuid: used[uuid] for uuid in locks.uuids if uuid in used}
            allotment = replace(allotment, uuids=locks.uuids, named=True, memory_used_bytes=left)
        reservation = cls(allotment, locks)
        reservation._share = share
        return reservation

    def hold_limits(self, gpu: Mapping[str, Any], log: IO[Any]) -> None:
        """Set the power limit and clock that the experiment asks for, if any.

        Raises:
            GuardError: they were refused; nothing is changed then.
        """
        wanted = {key: gpu.get(key) for key in ("power_limit_w", "sm_clock_mhz")}
        if not self.allotment.uuids or all(value is None for value in wanted.values()):
            return
        self._guard = Guard.start(
            self.allotment.uuids, **wanted, inherit=self._locks.handles, log=log
        )
        self._held = self._guard.held

    def environment(self) -> dict[str, str]:
        """Return the environment of the engine: its own cards and no others, where named."""
        return {**os.environ, **self.allotment.environment()}

    def limits(self) -> dict[str, Any] | None:
        """Return what was held and how it was put back; null where no limit was asked for."""
        return None if self._closed is None else {"held": self._held, **self._closed}

    def put_back(self) -> None:
        """Put the limits back as they were found. The cards stay locked."""
        if self._guard is not None:
            self._closed = self._guard.close()
            self._guard = None

    def release(self) -> None:
        """Put the limits back and let others have the cards."""
        self.put_back()
        self._locks.release()
        if self._share is not None:
            self._share.release()
            self._share = None
