"""The process that sets a GPU's limits for a run and puts them back, whatever becomes of the run.

It stands outside the run: a session of its own, and nothing that ends it with its parent. Its
standard input is a pipe that only the supervisor holds open; when that ends, by ``close``, a
crash or SIGKILL, the limits go back to what they were. SIGTERM does the same.

It answers in JSON lines on standard output: ``held`` or ``refused``, and ``restored`` at the end.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llenergymeasure.machine.gpus import limit_records
from llenergymeasure.machine.gpus.limit_records import LimitRecord, RecordFile
from llenergymeasure.machine.gpus.limits import Card, Limits, LimitsError, open_nvml

RESTORE_TRIES = 5
RESTORE_PAUSE_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Guard one run's limits as the JSON argument says, or mend what dead guards left."""
    wish = json.loads((sys.argv[1:] if arguments is None else arguments)[0])
    folder = Path(wish["folder"])
    ends = _ends()
    try:
        open_nvml()
        repaired = repair(folder)
    except (LimitsError, OSError) as error:
        return _refuse(str(error))
    if wish.get("repair"):
        _say({"repaired": repaired})
        return 0
    limits = Limits(wish["power_limit_w"], wish["sm_clock_mhz"])
    held = HeldLimits(folder, limits)
    try:
        read = held.take(wish["devices"])
    except (LimitsError, OSError) as error:
        held.restore()
        return _refuse(str(error))
    _say({"held": read, "repaired": repaired})
    _wait(ends)
    unchanged = held.unchanged()
    left = held.restore()
    _say({"restored": not left, "unchanged_meanwhile": unchanged, "left": left})
    return 1 if left else 0


class HeldLimits:
    """The limits of several cards, all set or none."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Take where the records go and what is to be set."""
        self._folder = folder
        self._limits = limits
        self._held: list[tuple[Card, RecordFile, LimitRecord]] = []

    def take(self, uuids: Sequence[str]) -> dict[str, Any]:
        """Set the limits on every card; return what was read back, by UUID.

        Raises:
            LimitsError: a card refused; those already set are still to be restored.
        """
        cards = [Card(uuid) for uuid in uuids]
        for card in cards:
            card.check(self._limits)
        return {card.uuid: self._take_one(card) for card in cards}

    def unchanged(self) -> bool:
        """Whether every card still has the power limit that was set."""
        wanted = self._limits.power_limit_w
        return wanted is None or all(
            _same(card.power_limit_w(), wanted) for card, _, _ in self._held
        )

    def restore(self) -> dict[str, str]:
        """Put everything back; return what could not be, and why, by UUID."""
        left = {}
        for card, file, record in self._held:
            reason = _put_back(card, _changed(card, record))
            if reason is None:
                file.remove()
            else:
                left[card.uuid] = reason
                file.close()
        self._held.clear()
        return left

    def _take_one(self, card: Card) -> dict[str, Any]:
        file = limit_records.claim(self._folder, card.uuid)
        if file is None:
            raise LimitsError(f"another run holds the limits of GPU {card.uuid}")
        record = LimitRecord(
            uuid=card.uuid,
            power_limit_before_w=(
                None if self._limits.power_limit_w is None else card.power_limit_w()
            ),
            power_limit_set_w=self._limits.power_limit_w,
            sm_clock_set_mhz=self._limits.sm_clock_mhz,
            boot_id=limit_records.boot_id(),
        )
        file.write(record)
        self._held.append((card, file, record))
        before = {"power_limit_before_w": record.power_limit_before_w}
        return {**before, **card.apply(self._limits)}


def repair(folder: Path) -> list[dict[str, Any]]:
    """Mend what dead guards left; return what was done about each of their cards."""
    done = []
    for file in limit_records.left(folder):
        record = file.read()
        if record is None or record.boot_id != limit_records.boot_id():
            file.remove()
            continue
        reason = _mend(record)
        done.append({"uuid": record.uuid, "repaired": reason is None, "reason": reason})
        if reason is None:
            file.remove()
        else:
            file.close()
    return done


def _mend(record: LimitRecord) -> str | None:
    """Put back what ``record`` says, unless somebody has set something else since."""
    try:
        card = Card(record.uuid)
    except LimitsError as error:
        return str(error)
    set_w = record.power_limit_set_w
    if set_w is not None and not _same(card.power_limit_w(), set_w):
        record = replace(record, power_limit_before_w=None)
    return _put_back(card, record)


def _changed(card: Card, record: LimitRecord) -> LimitRecord:
    """Return of ``record`` what this process did change: a refusal leaves nothing to put back."""
    return replace(
        record,
        power_limit_before_w=record.power_limit_before_w if card.power_changed else None,
        sm_clock_set_mhz=record.sm_clock_set_mhz if card.clock_changed else None,
    )


def _put_back(card: Card, record: LimitRecord) -> str | None:
    """Restore one card, in several tries; return why it failed."""
    reason = None
    for attempt in range(RESTORE_TRIES):
        if attempt:
            time.sleep(RESTORE_PAUSE_S)
        reason = _try_to_put_back(card, record)
        if reason is None:
            return None
    return reason


def _try_to_put_back(card: Card, record: LimitRecord) -> str | None:
    reasons = []
    if record.power_limit_before_w is not None:
        try:
            card.set_power_limit(record.power_limit_before_w)
        except LimitsError as error:
            reasons.append(str(error))
    if record.sm_clock_set_mhz is not None:
        try:
            card.unlock_clock()
        except LimitsError as error:
            reasons.append(str(error))
    return "; ".join(reasons) or None


def _same(found_w: float | None, wanted_w: float) -> bool:
    return found_w is not None and abs(found_w - wanted_w) <= 0.001


def _ends() -> int:
    """Turn the signals that ask for an end into bytes of a pipe, from now on."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ignore)
    return read


def _ignore(_number: int, _frame: Any) -> None:
    """Do nothing: the wake-up pipe carries the signal."""


def _wait(ends: int) -> None:
    """Return when the lifeline ends, or a signal has come."""
    while True:
        ready = select.select([sys.stdin.fileno(), ends], [], [])[0]
        if ends in ready or not os.read(sys.stdin.fileno(), 4096):
            return


def _refuse(reason: str) -> int:
    _say({"refused": reason})
    return 1


def _say(answer: dict[str, Any]) -> None:
    """Answer; that nobody listens any more must not keep limits from going back."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{json.dumps(answer)}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
