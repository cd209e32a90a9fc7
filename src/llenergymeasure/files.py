"""Files that are complete or absent (temporary file, fsync, replace), and where they may be."""

import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ResultsError, StudyLockedError
from llenergymeasure.screen import say

READ_LIMIT_BYTES = 8 << 30
"""No file of a results folder comes near it, on the disk or in memory."""

TEXT_LIMIT_BYTES = 1 << 29
"""Nor does a text or a JSON document come near this: read, it takes several times as much."""

_POINTER = b"version https://git-lfs"

LOCK_RETRY_S = 0.1
"""By then whoever took a lock has written who it is."""

_NO_LOCKS_ERRNOS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524}
"""What flock answers on NFS before version 4, or Lustre mounted without it; 524 is ENOTSUPP, the
kernel's own, which some network file systems let out."""


@contextmanager
def open_folder(folder: Path, *, make: bool = False) -> Iterator[Path]:
    """Yield a folder by a path that stays its own whatever becomes of its name meanwhile.

    Below a results folder (one with a plan, or a run's place in it: the plan can be taken away
    meanwhile) no link is followed: the folder may be somebody else's, and what is written or
    deleted there must not be elsewhere.

    Raises:
        ResultsError: a link is on the way, or one that leads nowhere.
    """
    candidates = (*folder.parents[3::-1], folder)
    root = next((path for path in candidates if _is_results_folder(path, folder)), folder)
    if make:
        _make_path(root)
    handle = os.open(root, _FOLDER_FLAGS)
    path = root
    try:
        for name in folder.relative_to(root).parts:
            path /= name
            parent = handle
            handle = _open_below(parent, name, path, make=make)
            os.close(parent)
        yield Path(f"/proc/self/fd/{handle}")
    except OSError as error:
        if error.filename is not None:  # as people know the file
            fd_path = f"/proc/self/fd/{handle}"
            error.filename = str(error.filename).replace(fd_path, str(folder), 1)
        raise
    finally:
        os.close(handle)


def _make_path(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        existing = Path(error.filename)
        if existing.is_symlink():
            message = f"{existing} is a link that leads nowhere. Make what it names, or remove it"
            raise ResultsError(message) from None
        raise


_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RUN_FOLDER = re.compile(r"runs/[0-9a-f]{12}/[0-9]+(/|$)")


def _is_results_folder(path: Path, folder: Path) -> bool:
    in_run_folder = _RUN_FOLDER.match(folder.relative_to(path).as_posix()) is not None
    return in_run_folder or (path / "plan.json").is_file()


def _open_below(parent: int, name: str, path: Path, *, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
    try:
        return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if path.is_symlink():
            raise _link_error(path) from None
        error.filename = str(path)
        raise


def _link_error(path: Path) -> ResultsError:
    return ResultsError(
        f"{path} is a link, and none is followed here to write or to delete. Look where it leads, "
        "and remove it"
    )


def make_folder(folder: Path) -> None:
    """Make a folder that may be there already."""
    with open_folder(folder, make=True):
        pass


def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
    """Return an open file to write to: a regular one, through no link, and without waiting.

    Raises:
        ResultsError: it is a link, or has another name elsewhere (a hard link).
        OSError: it cannot be opened, or is a pipe, a device or the like.
    """
    safe_flags = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open_folder(path.parent) as folder:
        try:
            handle = os.open(folder / path.name, safe_flags, mode)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _link_error(path) from None
            raise
    try:
        _check_plain_file(handle, path)
        if flags & os.O_TRUNC:
            os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _check_plain_file(handle: int, path: Path) -> None:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no file that can be written to", str(path))
    if status.st_nlink > 1:
        raise ResultsError(
            f"{path} has another name elsewhere (a hard link), and what is written here would "
            "stand there too. Put a copy in its place, or remove it"
        )


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; of a link the link itself."""
    with suppress(FileNotFoundError), open_folder(path.parent) as folder:
        entry = folder / path.name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; move it in, fsynced, if the block ends well.

    The folder is made if missing. If the block raises, ``path`` is left as it was.
    """
    with open_folder(path.parent, make=True) as folder:
        temporary = folder / f".{path.name}.{secrets.token_hex(4)}.part"
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(folder / path.name)
            sync_folder(folder)
        except OSError as error:
            if error.errno is not None:  # writers do not say where, and a reader has to know
                error.filename, error.filename2 = str(path), None
            raise
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def open_to_read(path: Path | str) -> BufferedReader:
    """Open a file to read: a regular one, whatever stands there, and without waiting.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no file that can be read", str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path | str, limit_bytes: int | None = None) -> bytes:
    """Return a file's bytes.

    Args:
        path: the file.
        limit_bytes: its largest size; that of what is ever written here if not given.

    Raises:
        OSError: as by :func:`open_to_read`, or it is larger.
    """
    limit_bytes = limit_bytes or READ_LIMIT_BYTES
    with open_to_read(path) as stream:
        if os.fstat(stream.fileno()).st_size > limit_bytes:
            reason = f"is larger than {limit_bytes / 2**30:g} GiB"
            raise OSError(errno.EOVERFLOW, reason, str(path))
        return stream.read()


def load_text(path: Path) -> str:
    """Return a text file, with U+FFFD for what is no UTF-8.

    Raises:
        OSError: as by :func:`read_bytes`.
    """
    return read_bytes(path, TEXT_LIMIT_BYTES).decode(errors="replace")


def load_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: as by :func:`read_bytes`.
        ValueError: it is no JSON, or is nested too deep to be read.
    """
    try:
        return json.loads(read_bytes(path, TEXT_LIMIT_BYTES))
    except RecursionError:
        raise ValueError("is nested too deep") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON object from ``path``; None if it is absent or not whole."""
    try:
        value = load_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def file_version(path: Path) -> tuple[int, int] | None:
    """Return what changes each time a file is written, by whatever clock; None if it is absent."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write ``content`` unless ``path`` already holds exactly it; return whether it wrote."""
    if path.is_file() and read_bytes(path) == content:
        return False
    write_bytes(path, content)
    return True


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    with suppress(FileNotFoundError, NotADirectoryError), open_folder(folder) as fd_path:
        for path in fd_path.glob(".*.part"):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lfs_pointer_problem(path: Path) -> str | None:
    """Return what is wrong with a file that Git LFS has left a pointer of; None for any other."""
    try:
        with open_to_read(path) as file:
            if file.read(len(_POINTER)) != _POINTER:
                return None
    except OSError:
        return None
    return "holds a pointer of Git LFS, not the file itself; run git lfs pull"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    with open_to_read(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def locked(path: Path, owner: str) -> Iterator[int]:
    """Hold an exclusive lock on ``path``; the kernel frees it when the process ends.

    Yields the open file: a child that inherits it holds the lock too, as long as it lives.

    Args:
        path: the lock file; its folder is made if missing. It stays behind, empty of meaning.
        owner: who asks, in words, for the message of whoever comes second.

    Raises:
        StudyLockedError: another process holds it.
    """
    make_folder(path.parent)
    handle = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        if not try_lock(handle):
            time.sleep(LOCK_RETRY_S)
            if not try_lock(handle):  # who only looked for a moment has let go
                holder = lock_owner(handle) or "another process"
                raise StudyLockedError(f"{path.parent} is in use by {holder}; wait for it to end")
        sign_lock(handle, f"{owner} (pid {os.getpid()} on {socket.gethostname()})")
        yield handle
    finally:
        os.close(handle)


def sign_lock(handle: int, owner: str) -> None:
    """Write into a locked file who has it, for people; it means nothing once nobody does."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{owner}\n".encode(), 0)
    except OSError as error:
        # Read-only, or a full disk: the lock holds all the same.
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOSPC, errno.EDQUOT):
            raise


def lock_holder(path: Path) -> str | None:
    """Return who holds the lock on ``path``, in words; None where nobody is seen to."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return lock_owner(handle) or "another process"
    except OSError:  # a file system without locks, or one that does not say
        return None
    finally:
        os.close(handle)
    return None


def lock_owner(handle: int) -> str:
    """Return who has locked a file, as far as that was written; any user may have."""
    text = os.pread(handle, 400, 0).decode(errors="replace").strip()
    return "".join(char for char in text if char.isprintable())


def try_lock(handle: int) -> bool:
    """Lock an open file without waiting; return whether it is locked now (flock(2)).

    The kernel frees the lock when the last process that has this file open ends. On a file system
    without locks it counts as locked, which is said once.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS_ERRNOS:
            raise
        _warn_no_locks(str(Path(f"/proc/self/fd/{handle}").readlink().parent))
    return True


@functools.cache
def _warn_no_locks(folder: str) -> None:
    say(
        f"{folder}: this file system has no locks (flock): two workflows on one folder are not "
        "kept apart here; choose another output_dir, or see to it that there is one at a time"
    )
