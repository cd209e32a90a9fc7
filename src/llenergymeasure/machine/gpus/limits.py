"""Limits on GPUs for the time of a run, put back on every way out (standard library only).

What a card's limits were is on disk before anything is set. The supervisor, which outlives the
engine, puts them back; where it was killed itself, the next start of a run on this machine, the end
of its workflow or ``llem clean`` does. Setting and putting back are short processes of their own: a
driver that hangs must not take the supervisor along.

Only who holds a card's lock works on its record, so that a record of a card that is free is one
whose run is dead, also when that was in another container.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llenergymeasure import files
from llenergymeasure.errors import LlemError
from llenergymeasure.machine.folders import shared_folder
from llenergymeasure.machine.gpus.locks import GpuLocks, file_safe
from llenergymeasure.machine.gpus.nvml_limits import Card, Limits, LimitsError, open_nvml
from llenergymeasure.processes import ChildError, RefusedError, boot_id, call_in_child

NVML_TIMEOUT_S = 60.0
"""How long the driver may take."""

_FORMAT = 1


def set_limits(locks: GpuLocks, limits: Limits) -> dict[str, dict[str, Any]]:
    """Set limits on the cards that are locked; return what was read back, by UUID.

    Raises:
        LimitsError: refused, with the reason. Nothing is changed then, or a record of it stays.
    """
    try:
        return _call_with_locks(locks, "set_limits_in_child", (locks.uuids, asdict(limits)))
    except RefusedError as error:
        reason = str(error)
    except ChildError as error:
        # It may still be running, and holds the locks then: who gets them next puts back.
        reason = f"{error}; what it may have set is put back by the next start"
    raise LimitsError(f"the GPU's limits cannot be set: {reason}")


def restore_limits(locks: GpuLocks, uuids: Sequence[str] | None = None) -> dict[str, Any]:
    """Put the limits of locked cards back, and return how that went.

    Args:
        locks: of the cards.
        uuids: some of them; all if not given.

    Returns:
        ``restored``: whether nothing of what was set is left, as read back;
        ``unchanged_meanwhile``: whether the power limits held to the end (None if that is not
        known); ``left``: what could not be put back and why, by UUID. The records of these stay
        for the next start.
    """
    devices = locks.uuids if uuids is None else tuple(uuids)
    try:
        return _call_with_locks(locks, "restore_limits_in_child", (devices,))
    except ChildError as error:
        failures = dict.fromkeys(devices, str(error))
        return {"restored": False, "unchanged_meanwhile": None, "left": failures}


def restore_abandoned_limits(held_locks: GpuLocks | None = None) -> dict[str, str | None]:
    """Put back what killed runs left; costs a look into a folder if there is nothing.

    Args:
        held_locks: locks that this process has: what was left on these cards is put back too.

    Returns:
        For each card the reason if it was not put back, else None.
    """
    outcomes: dict[str, str | None] = {}
    with _lock_abandoned() as abandoned:
        for locks in (abandoned,) if held_locks is None else (held_locks, abandoned):
            uuids = _recorded_uuids(locks)
            if uuids:
                failures = restore_limits(locks, uuids)["left"]
                outcomes |= {uuid: failures.get(uuid) for uuid in uuids}
    return outcomes


def abandoned_limits() -> list[str]:
    """Return the cards whose limits killed runs of this user left."""
    with _lock_abandoned() as locks:
        return _recorded_uuids(locks)


def _user_records(folder: Path) -> dict[str, Path]:
    """Return this user's records by card, those of living runs included.

    Other users' are passed over: what is in them could make root set anything.
    """
    prefix = f"limits-{os.geteuid()}-"
    records = {}
    for path in folder.glob(f"{prefix}*.json"):
        with contextlib.suppress(FileNotFoundError):  # put back since
            if path.lstat().st_uid == os.geteuid():
                records[path.stem.removeprefix(prefix).partition(_SUFFIX_MARK)[0]] = path
    return records


def _recorded_uuids(locks: GpuLocks) -> list[str]:
    return [uuid for uuid in sorted(_user_records(locks.folder)) if uuid in locks.uuids]


def _lock_abandoned() -> GpuLocks:
    """Lock the cards that have a record and are free: their runs are dead."""
    locks = GpuLocks(shared_folder().path)
    uuids = sorted(_user_records(locks.folder))
    locks.take(uuids, len(uuids), "who puts limits back")
    return locks


def _call_with_locks(locks: GpuLocks, function: str, arguments: Sequence[Any]) -> dict[str, Any]:
    """Ask a process that holds the locks too: nobody gets a card while it works on it."""
    question = (f"{__name__}:{function}", str(locks.folder), *arguments)
    return call_in_child(*question, limit_s=NVML_TIMEOUT_S, inherit=locks.handles)


@dataclass(frozen=True)
class LimitRecord:
    """One card's limits before and as they were set.

    Attributes:
        uuid: the card.
        power_limit_before_w: None if the power limit is not changed.
        power_limit_set_w: None likewise.
        sm_clock_set_mhz: the clock that is locked; None if it is not changed.
        boot_id: the kernel's id of this boot; limits do not outlive one.
    """

    uuid: str
    power_limit_before_w: float | None
    power_limit_set_w: float | None
    sm_clock_set_mhz: int | None
    boot_id: str | None


_SUFFIX_MARK = "~"
"""Begins what a record's name has more than others', where somebody else took its name."""


def _record_path(folder: Path, uuid: str) -> Path:
    """Return this user's record of a card, or where it is to be: never what others put there."""
    name = f"limits-{os.geteuid()}-{file_safe(uuid)}"
    path = folder / f"{name}.json"
    if os.path.lexists(path):
        path = folder / f"{name}{_SUFFIX_MARK}{secrets.token_hex(4)}.json"
    return _user_records(folder).get(file_safe(uuid), path)


def _write_record(folder: Path, record: LimitRecord) -> None:
    """Write a record and wait until it is on the disk."""
    path = _record_path(folder, record.uuid)
    try:
        handle = files.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LimitsError(
            f"GPU {record.uuid}: an earlier run's limits are not put back yet; `llem clean` says "
            "why"
        ) from None
    try:
        with os.fdopen(handle, "w") as stream:
            json.dump({"format": _FORMAT, **asdict(record)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        files.sync_folder(folder)
    except OSError:
        path.unlink()
        raise


def _read_record(path: Path) -> LimitRecord | None:
    """Return a record; None if it is not whole: then nothing had been set yet.

    Raises:
        LimitsError: somebody else made it.
        OSError: it cannot be read.
    """
    with os.fdopen(files.open_file(path, os.O_RDONLY), "rb") as stream:
        if os.fstat(stream.fileno()).st_uid != os.geteuid():
            raise LimitsError(f"{path} belongs to somebody else; delete it")
        try:
            content: dict[str, Any] = json.load(stream)
            if content.pop("format") != _FORMAT:
                return None
            return LimitRecord(**content)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def set_limits_in_child(
    folder_name: str, uuids: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    """Set limits on every card or on none, in this process; return what was read back, by UUID.

    Raises:
        LimitsError: a card refused; the others are as they were, or the reason says which not.
    """
    folder, limits = Path(folder_name), Limits(**settings)
    open_nvml()
    cards = [Card(uuid) for uuid in uuids]
    for card in cards:
        card.check(limits)
    read_back: dict[str, Any] = {}
    changes: list[tuple[Card, LimitRecord]] = []
    try:
        for card in cards:
            before_w = None if limits.power_limit_w is None else card.power_limit_w()
            record = LimitRecord(
                card.uuid, before_w, limits.power_limit_w, limits.sm_clock_mhz, boot_id()
            )
            _write_record(folder, record)
            changes.append((card, record))
            read_back[card.uuid] = {"power_limit_before_w": before_w, **card.apply(limits)}
    except (LlemError, OSError) as error:
        failures = []
        for card, record in changes:
            try:
                _restore_card(card, _actual_changes(card, record))
                _record_path(folder, card.uuid).unlink()
            except (LlemError, OSError) as failure:
                failures.append(f"GPU {card.uuid}: {failure}")
        reason = str(error)
        if failures:
            reason += f"; not put back yet, the next start tries again: {'; '.join(failures)}"
        raise LimitsError(reason) from error
    return read_back


def _actual_changes(card: Card, record: LimitRecord) -> LimitRecord:
    """Return of ``record`` what this process did change: a refusal leaves nothing to put back."""
    return replace(
        record,
        power_limit_before_w=record.power_limit_before_w if card.power_changed else None,
        power_limit_set_w=card.power_limit_w() if card.power_changed else None,
        sm_clock_set_mhz=record.sm_clock_set_mhz if card.clock_changed else None,
    )


def restore_limits_in_child(folder_name: str, uuids: Sequence[str]) -> dict[str, Any]:
    """Restore what the records of these cards say, in this process; return how that went."""
    folder, failures = Path(folder_name), {}
    limit_held = True
    for uuid in uuids:
        try:
            path = _record_path(folder, uuid)
            record = _read_record(path)
            if record is not None and record.boot_id == boot_id():
                open_nvml()
                limit_held &= _restore_card(Card(record.uuid), record)
            path.unlink()
        except (LlemError, OSError) as error:
            failures[uuid] = str(error)
    return {
        "restored": not failures,
        "unchanged_meanwhile": None if failures else limit_held,
        "left": failures,
    }


def _restore_card(card: Card, record: LimitRecord) -> bool:
    """Restore one card; return whether its power limit was still as set.

    A power limit that somebody else has set since stays as it is.

    Raises:
        LimitsError: it could not be restored.
    """
    now_w = card.power_limit_w()
    set_w = record.power_limit_set_w
    if set_w is not None and now_w is None:
        raise LimitsError(f"GPU {card.uuid}: its power limit cannot be read")
    limit_held = set_w is None or now_w is None or abs(now_w - set_w) <= 0.001
    failures = []
    if limit_held and record.power_limit_before_w is not None:
        try:
            card.set_power_limit(record.power_limit_before_w)
        except LimitsError as error:
            failures.append(str(error))
    if record.sm_clock_set_mhz is not None:
        try:
            card.unlock_clock()
        except LimitsError as error:
            failures.append(str(error))
    if failures:
        raise LimitsError("; ".join(failures))
    return limit_held
