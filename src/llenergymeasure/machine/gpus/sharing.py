"""Several runs on one machine: each with cards and processors of its own (standard library only).

Who may run how many at a time is Snakemake's to say (``--cores N --resources gpu=K``); which cards
and processors are free is seen from the locks that the kernel keeps (flock(2)), so that a run that
is killed frees them.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from llenergymeasure.machine.gpus.locks import POLL_S, GpuBusyError, GpuLocks, lock_gpus
from llenergymeasure.machine.shared_folder import shared_folder

AT_ONCE_VARIABLE = "LLEM_RUNS_AT_ONCE"
"""Tells a run with how many others it shares the machine; one, itself, if it is not set."""

_CPUS = Path("/sys/devices/system/cpu")


def runs_at_once(environ: Mapping[str, str]) -> int:
    """Return how many runs share this machine."""
    told = environ.get(AT_ONCE_VARIABLE, "")
    return max(1, int(told)) if told.isdigit() else 1


def lock_free_gpus(
    uuids: Sequence[str],
    count: int,
    owner: str,
    *,
    wait_s: float,
    interrupted: Callable[[float], bool],
    folder: Path | None = None,
) -> GpuLocks | None:
    """Lock the first ``count`` cards of ``uuids`` that no other run has.

    Returns:
        Their locks; null if ``interrupted`` said so first.

    Raises:
        GpuBusyError: so many are not there, or did not become free in time.
    """
    waited_s = 0.0
    while True:
        locks = _lock_some(uuids, count, owner, folder)
        if locks is not None:
            return locks
        if waited_s >= wait_s:
            raise GpuBusyError(
                f"{count} of the {len(uuids)} GPUs that may be used did not become free within "
                f"{wait_s:g} s"
            )
        if interrupted(POLL_S):
            return None
        waited_s += POLL_S


def _lock_some(
    uuids: Sequence[str], count: int, owner: str, folder: Path | None
) -> GpuLocks | None:
    taken: list[str] = []
    handles: list[int] = []
    for uuid in uuids:
        if len(taken) == count:
            break
        try:
            lock = lock_gpus([uuid], owner, wait_s=0, folder=folder)
        except GpuBusyError:
            continue
        if lock is not None:
            taken.append(uuid)
            handles += lock.handles
    locks = GpuLocks(taken, handles)
    if len(taken) == count:
        return locks
    locks.release()
    return None


class CpuShare:
    """Processors that no other run of this program has; ``release`` when done."""

    def __init__(self, handle: int, cpus: Iterable[int]) -> None:
        """Take a held lock; use ``take``."""
        self._handle = handle
        self.cpus = frozenset(cpus)

    @classmethod
    def take(cls, at_once: int, folder: Path | None = None) -> "CpuShare | None":
        """Take the first free one of ``at_once`` equal shares for this process and its children.

        Whole cores: threads that share a core stay together. Null where the machine has fewer
        cores than shares, or every share is taken: the run then goes where the kernel puts it.
        """
        shares = cpu_shares(at_once)
        place = shared_folder().path if folder is None else folder
        for number, cpus in enumerate(shares):
            name = f"cpus-{os.geteuid()}-{number + 1}-of-{at_once}.lock"
            handle = os.open(place / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(handle)
                continue
            os.sched_setaffinity(0, cpus)
            return cls(handle, cpus)
        return None

    def release(self) -> None:
        """Let another run have them."""
        os.close(self._handle)


def cpu_shares(count: int) -> list[frozenset[int]]:
    """Return this process's processors in ``count`` shares of whole cores; none if too few."""
    cores = _cores(os.sched_getaffinity(0))
    size = len(cores) // count
    if size == 0:
        return []
    return [
        frozenset().union(*cores[number * size : (number + 1) * size]) for number in range(count)
    ]


def _cores(cpus: Iterable[int]) -> list[frozenset[int]]:
    """Return processors by core, in the order of their numbers."""
    left = set(cpus)
    cores = []
    for cpu in sorted(left):
        if cpu in left:
            core = (_siblings(cpu) | {cpu}) & left
            left -= core
            cores.append(frozenset(core))
    return cores


def _siblings(cpu: int) -> set[int]:
    """Return the processors on one core, as the kernel lists them: ``0,64`` or ``0-1``."""
    try:
        text = (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return set()
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
