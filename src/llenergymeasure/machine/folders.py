"""Folders of this machine: room and rights on disks, and the one folder that all users share.

The shared one says who uses which GPU, and what to put back. It is ``/tmp/llenergymeasure``
(sticky, writable by all) and not in ``XDG_RUNTIME_DIR``, which each user has alone; ``/tmp`` is
also what Apptainer binds by itself. A site where users or containers see different ``/tmp``, and
everyone under Docker, names a common folder in ``LLEM_RUNTIME_DIR``.
"""

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

MIN_FREE_BYTES = 100_000_000
"""Where less is free, no run begins."""

FULL_BYTES = 1_000_000

COMMON = Path("/tmp/llenergymeasure")  # noqa: S108 - what lies in it is checked
_MODE = 0o1777


def free_bytes(path: Path) -> int | None:
    """Return what a process may still write where ``path`` is or will be; None if unknown."""
    folder = path.absolute()
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def is_full(path: Path) -> bool:
    """Return whether a disk is: what could not be written was removed, and left a little room."""
    free = free_bytes(path)
    return free is not None and free < FULL_BYTES


def why_not_writable(folder: Path, size_bytes: int = 1) -> str | None:
    """Return why so much cannot be written into a folder; None if it was, and removed.

    A folder that is not there yet is made. Only writing shows a quota.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable.") as file:
            file.write(bytes(size_bytes))
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


@dataclass(frozen=True)
class SharedFolder:
    """Where locks and records are.

    Attributes:
        path: the folder; it exists.
        for_all_users: false where the common one could not be used, so that other users' runs
            are not seen.
    """

    path: Path
    for_all_users: bool


def shared_folder(common: Path | None = None) -> SharedFolder:
    """Return the folder, made if missing; a user's own if the common one cannot be used.

    Raises:
        OSError: not even a user's own can be made.
    """
    configured = os.environ.get("LLEM_RUNTIME_DIR")
    path = common or (Path(configured) if configured else COMMON)
    try:
        path.mkdir(parents=True)
        # Not through mkdir: the umask would take the right to write from other users. Not by
        # name: where others may write, it can be a link by now.
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(handle).st_uid == os.geteuid():
                os.fchmod(handle, _MODE)
        finally:
            os.close(handle)
    except FileExistsError:
        pass
    except OSError:
        return _user_folder(path)
    return SharedFolder(path, True) if _is_usable(path) else _user_folder(path)


def _is_usable(path: Path) -> bool:
    """Whether it is a real folder that can be written to, where locks stay whoever made it.

    A link could lead anywhere. Without the sticky bit whoever may write there can remove another's
    lock: only root's folder for a group is believed then.
    """
    status = path.lstat()
    if not (stat.S_ISDIR(status.st_mode) and os.access(path, os.W_OK | os.X_OK)):
        return False
    protected = status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH
    return bool(status.st_mode & stat.S_ISVTX) or protected


def _user_folder(path: Path) -> SharedFolder:
    folder = path.with_name(f"{path.name}-{os.geteuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(
            f"{folder} belongs to somebody else; name another folder in LLEM_RUNTIME_DIR"
        )
    return SharedFolder(folder, False)
