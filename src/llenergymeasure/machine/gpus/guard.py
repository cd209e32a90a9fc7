"""Limits on GPUs for the time of a run, put back on every way out (standard library only).

What can put limits back must outlive the run, so it is a process of its own
(:mod:`llenergymeasure.machine.gpus.guard_process`); this is its handle.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from llenergymeasure.errors import LlemError
from llenergymeasure.machine.gpus.limit_records import left_paths
from llenergymeasure.machine.shared_folder import shared_folder

START_LIMIT_S = 60.0
CLOSE_LIMIT_S = 60.0


class GuardError(LlemError):
    """Limits were refused, or could not be put back."""


class Guard:
    """Holds GPUs at a power limit and clock until ``close``, or until this process ends."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        """Take a started process; use ``start``."""
        self._process = process
        self._folder = folder
        self._text = b""
        self.held: dict[str, Any] = {}
        """What was read back, by UUID."""
        self.repaired: list[dict[str, Any]] = []
        """What was mended first, left by a guard that had been killed."""

    @classmethod
    def start(
        cls,
        devices: Sequence[str],
        power_limit_w: float | None = None,
        sm_clock_mhz: int | None = None,
        *,
        inherit: Sequence[int] = (),
        log: IO[Any] | int | None = None,
        folder: Path | None = None,
    ) -> "Guard":
        """Set the limits, read them back, and hold them.

        Args:
            devices: UUIDs of the cards.
            power_limit_w: null leaves it alone.
            sm_clock_mhz: null leaves it alone.
            inherit: open files of the cards' locks, so that nobody gets a card before its limits
                are back even if this process is killed.
            log: where the guard's messages go; this process's standard error if not given.
            folder: where records are; the machine's shared folder if not given.

        Raises:
            GuardError: refused, with the reason; nothing is changed then.
        """
        place = shared_folder().path if folder is None else folder
        wish = {
            "folder": str(place),
            "devices": list(devices),
            "power_limit_w": power_limit_w,
            "sm_clock_mhz": sm_clock_mhz,
        }
        guard = cls(_spawn(wish, inherit, log), place)
        answer = guard._answer(START_LIMIT_S)
        if answer is None or "held" not in answer:
            guard._end()
            reason = "the guard did not answer" if answer is None else answer.get("refused")
            raise GuardError(f"the GPU's limits cannot be set: {reason}")
        guard.held = answer["held"]
        guard.repaired = answer["repaired"]
        return guard

    @property
    def pid(self) -> int:
        """The guard's process id; whoever kills all descendants has to spare it."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it stands guard; if not, the limits may have changed during the run."""
        return self._process.poll() is None

    def close(self) -> dict[str, Any]:
        """Put the limits back and return how that went.

        A guard that was killed is made good for here.

        Returns:
            ``restored``: whether all is as it was; ``unchanged_meanwhile``: whether the power
            limits held to the end (null if the guard was killed); ``left``: what could not be
            put back and why, by UUID.
        """
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        answer = self._answer(CLOSE_LIMIT_S)
        self._end()
        if answer is not None and "restored" in answer:
            return answer
        repaired = repair_left_limits(self._folder)
        left = {one["uuid"]: one["reason"] for one in repaired if not one["repaired"]}
        return {"restored": not left, "unchanged_meanwhile": None, "left": left}

    def _answer(self, limit_s: float) -> dict[str, Any] | None:
        """Return the guard's next line; null if none comes."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._text:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([handle], [], [], left_s)[0]:
                return None
            part = os.read(handle, 65536)
            if not part:
                return None
            self._text += part
        line, _, self._text = self._text.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        """Wait for its end; SIGTERM first if need be, and never SIGKILL: it would leave limits."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(CLOSE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
        self._process.stdout.close()


def repair_left_limits(folder: Path | None = None) -> list[dict[str, Any]]:
    """Put back what killed guards left; costs a look into a folder if there is nothing.

    Returns:
        For each card ``uuid``, ``repaired`` and the ``reason`` if it was not.
    """
    place = shared_folder().path if folder is None else folder
    if not left_paths(place):
        return []
    process = _spawn({"folder": str(place), "repair": True}, (), None)
    guard = Guard(process, place)
    answer = guard._answer(START_LIMIT_S)
    guard._end()
    if answer is None or "repaired" not in answer:
        reason = "no answer" if answer is None else answer.get("refused")
        return [
            {"uuid": path.stem, "repaired": False, "reason": reason} for path in left_paths(place)
        ]
    repaired: list[dict[str, Any]] = answer["repaired"]
    return repaired


def _spawn(
    wish: dict[str, Any], inherit: Sequence[int], log: IO[Any] | int | None
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "llenergymeasure.machine.gpus.guard_process", json.dumps(wish)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
        pass_fds=tuple(inherit),
    )
