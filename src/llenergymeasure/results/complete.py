"""Whether a run's result is complete, or all but it measured: the one place that says so.

A record is complete where it is for the run whose folder it stands in, its own bytes are those that
were written (the hash is kept in ``outcome.json``, apart from it), and the other files have the
hashes that it names. Resume, status, merge, tables and ``verify`` all ask here.
"""

import errno
import hashlib
import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.errors import RecordVersionError
from llenergymeasure.files import load_json, read_bytes, read_json, sha256
from llenergymeasure.results.layout import SCHEMA_VERSION, RunFolder
from llenergymeasure.units import NS_PER_S

SETTLED_NS = 2 * NS_PER_S
"""A file changed this shortly before it was looked at may change again without a newer time stamp:
file systems keep time in ticks of up to two seconds. What was found of it is not kept."""

_FILE_ERRORS = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO),
    *(errno.EOVERFLOW, errno.EBADMSG, errno.EUCLEAN),
}
"""Why a file cannot be read that is not there, is none, or is damaged by its file system's word.
Any other reason is none to take a run for damaged: no right, a file system of the network that is
away, too many open files."""

_FILES = ("result.json", "outcome.json", "run.parquet", "samples.parquet", "requests.parquet")


@dataclass(frozen=True)
class Difference:
    """A figure, or a file, that is not what its sources give.

    Attributes:
        file: where it stands.
        figure: which one, as a dotted path; the file as a whole if empty.
        recorded: what is there.
        recomputed: what its sources give.
        what: in words, where no two values say it.
    """

    file: Path
    figure: str = ""
    recorded: Any = None
    recomputed: Any = None
    what: str | None = None

    def __str__(self) -> str:
        """Return it as a line for people."""
        place = f"{self.file}: {self.figure}" if self.figure else str(self.file)
        return f"{place}: {self.what or f'{self.recorded!r}, recomputed {self.recomputed!r}'}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "file": str(self.file), "figure": self.figure or None}


@dataclass(frozen=True)
class Stamp:
    """Identifies the content of a finished run's files without reading them.

    Attributes:
        digest: of every file's size, inode and time stamps.
        is_settled: whether a change after the look at them would show in the stamp.
    """

    digest: str
    is_settled: bool


def is_complete(folder: RunFolder) -> bool:
    """Return whether a run's record exists, belongs to this run, and its files are as written.

    Raises:
        RecordVersionError: a later version of this program wrote it.
    """
    return first_fault(folder) is None


def first_fault(folder: RunFolder) -> Difference | None:
    """Return the first fault of a run's result; None if it is complete.

    Raises:
        RecordVersionError: a later version of this program wrote it.
    """
    return next(faults(folder), None)


def sound_record(folder: RunFolder) -> dict[str, Any] | Difference:
    """Return a complete run's record, parsed; otherwise its first fault.

    Raises:
        RecordVersionError: a later version of this program wrote it.
    """
    found = faults(folder)
    try:
        return next(found)
    except StopIteration as finished:
        record: dict[str, Any] = finished.value
        return record


def faults(folder: RunFolder) -> Generator[Difference, None, dict[str, Any] | None]:
    """Yield every fault of a run's result, and return its record if it has one.

    Raises:
        RecordVersionError: a later version of this program wrote it.
        OSError: a file exists but cannot be read now.
    """
    try:
        content = read_bytes(folder.result)
    except OSError as error:
        _raise_unless_file_error(error)
        yield Difference(folder.result, what=f"cannot be read: {error.strerror}")
        return None
    recorded_digest, digest = recorded_hash(folder), hashlib.sha256(content).hexdigest()
    is_changed = recorded_digest not in (None, digest)
    if is_changed:
        what = "its bytes are not those that were written (by the hash in outcome.json)"
        yield Difference(folder.result, "sha256", recorded_digest, digest, what)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        yield Difference(folder.result, what=f"is no JSON: {error}")
        return None
    try:
        reason = _record_fault(record, folder)
    except RecordVersionError:
        if is_changed:  # its version may be a changed byte
            return None
        raise
    if reason is not None:
        yield Difference(folder.result, what=reason)
        return None
    for name, file_digest in record["files"].items():
        yield from _sibling_faults(folder.path / name, file_digest)
    complete_record: dict[str, Any] = record
    return complete_record


def recorded_hash(folder: RunFolder) -> str | None:
    """Return the record's hash in the outcome; None if there is none."""
    try:
        outcome = load_json(folder.outcome)
        digest = outcome["result_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) else None


def check_version(record: Any, path: Path) -> None:
    """Raise if a record has no version that this program reads.

    Raises:
        RecordVersionError: it has another version, or none.
    """
    version = record.get("schema_version") if isinstance(record, dict) else None
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise RecordVersionError(
            f"{path}: has record version {version}; this program reads up to {SCHEMA_VERSION}"
        )


def stamp(run: str, looked_ns: int) -> Stamp | None:
    """Return the stamp of the run in a folder; None where it has no record.

    Args:
        run: the folder.
        looked_ns: when the look at all runs began, by the wall clock.
    """
    entries: list[tuple[int, int, int, int] | None] = []
    changed_ns = 0
    for name in _FILES:
        try:
            status = os.stat(f"{run}/{name}")  # noqa: PTH116 - Paths for 100,000 runs cost seconds
        except (FileNotFoundError, NotADirectoryError):
            if not entries:
                return None
            entries.append(None)
            continue
        entries.append((status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
        changed_ns = max(changed_ns, status.st_ctime_ns)
    digest = hashlib.sha256(repr(entries).encode()).hexdigest()[:32]
    return Stamp(digest, changed_ns < looked_ns - SETTLED_NS)


def _record_fault(record: Any, folder: RunFolder) -> str | None:
    """Return why parsed JSON is not this run's record; None if it is."""
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        return "is no record of a run"
    if type(record.get("schema_version")) is not int:
        return "has no record version"
    check_version(record, folder.result)
    expected = folder.path.parent.name, folder.path.name
    actual = str(record.get("experiment")), str(record.get("cycle"))
    if actual != expected:
        return f"is the record of run {'/'.join(actual)}, not of {'/'.join(expected)}"
    if folder.row.name not in record["files"]:
        return f"does not vouch for {folder.row.name}"
    return None


def _sibling_faults(path: Path, recorded_digest: str) -> Iterator[Difference]:
    try:
        digest = sha256(path)
    except OSError as error:
        _raise_unless_file_error(error)
        missing = isinstance(error, FileNotFoundError)
        what = "it is missing" if missing else f"cannot be read: {error.strerror}"
        yield Difference(path, what=f"{what}, and the record vouches for it")
        return
    if digest != recorded_digest:
        what = "its bytes are not those that result.json vouches for"
        yield Difference(path, "sha256", recorded_digest, digest, what)


def _raise_unless_file_error(error: OSError) -> None:
    if error.errno not in _FILE_ERRORS:
        raise error


def is_measured(folder: RunFolder) -> bool:
    """Return whether a run's window was measured completely, and only its result is still missing.

    Raises:
        RecordVersionError: a later version of this program wrote a record there.
    """
    if not folder.stream.is_file() or is_complete(folder):
        return False
    try:
        return isinstance(load_json(folder.engine), dict)
    except (OSError, ValueError):
        return False


def is_reusable(folder: RunFolder, quality: Any) -> bool:
    """Return whether the next call will compute a run's result from an earlier attempt's files.

    A run that was killed while its engine assessed its quality is measured again.

    Raises:
        RecordVersionError: a later version of this program wrote a record there.
    """
    ended_by_itself = folder.engine_end.is_file() or folder.session.is_file()
    try:
        return is_measured(folder) and (ended_by_itself or is_assessed(folder, quality))
    except OSError:  # a run ending on another machine removes its files
        return False


def is_assessed(folder: RunFolder, quality: Any) -> bool:
    """Return whether the engine has measured, and assessed the quality that the study asks for."""
    engine_record = read_json(folder.engine)
    if engine_record is None:
        return False
    section = quality if isinstance(quality, dict) else {}
    if section.get("texts") is None and section.get("tasks") is None:
        return True
    return engine_record.get("quality") is not None
