"""Child processes that cannot outlive their parent (standard library only)."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel for ``signal_number`` when the parent thread ends (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)


def die_with(pid: int) -> None:
    """Kill this process and its group when the process ``pid`` ends, which need be no relative."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        os.killpg(0, signal.SIGKILL)
        return

    def wait() -> None:
        select.select([handle], [], [])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ended, so that they can be found."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(
    command: Sequence[str],
    log: IO[bytes],
    environment: Mapping[str, str] | None = None,
    *,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; it is killed when this process dies.

    Args:
        command: program and arguments.
        log: where its output goes.
        environment: its whole environment; this process's own if not given.
        stdin: its standard input, as :class:`subprocess.Popen` takes it.
    """
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=log,
        stderr=log,
        env=None if environment is None else dict(environment),
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def signal_group(process: subprocess.Popen[bytes], signal_number: int) -> None:
    """Send a signal to a child's whole process group; nothing happens if it is gone."""
    try:
        os.killpg(process.pid, signal_number)
    except (ProcessLookupError, PermissionError):
        return


def end_group(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """End a child and its group: SIGTERM, then SIGKILL after ``grace_s``; return its code."""
    if process.poll() is None:
        signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    signal_group(process, signal.SIGKILL)
    return process.wait()


def descendants(pid: int) -> list[int]:
    """Return the process ids of all living descendants of ``pid``, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


def kill_descendants(grace_s: float = 2.0, spare: int | None = None) -> list[int]:
    """Kill every descendant of this process that is left; return those that were found.

    Args:
        grace_s: longest wait for them to be gone.
        spare: one that is left alone, with its own descendants.
    """

    def there() -> list[int]:
        spared = () if spare is None else (spare, *descendants(spare))
        return [pid for pid in descendants(os.getpid()) if pid not in spared]

    found = there()
    left = found
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
        _reap()
        left = there()
    return found


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def exit_code(returncode: int) -> int:
    """Return a shell's exit code for ``subprocess``'s: 128 + n for a signal n."""
    return returncode if returncode >= 0 else 128 - returncode
