"""Processors of its own for each of several runs on one machine (standard library only).

Who may run how many at a time is Snakemake's to say (``--cores N --resources gpu=K``); which
processors are free is seen from locks that the kernel keeps (flock(2)), so that a run that is
killed frees them.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from llenergymeasure.errors import LlemError
from llenergymeasure.files import open_file, try_lock
from llenergymeasure.machine.folders import shared_folder
from llenergymeasure.machine.host import parse_numbers, read_text
from llenergymeasure.screen import say

AT_ONCE_VARIABLE = "LLEM_RUNS_AT_ONCE"
"""Says to a run with how many others it shares the machine; one, itself, if it is not set."""

_CPUS = Path("/sys/devices/system/cpu")


def runs_at_once(environ: Mapping[str, str]) -> int:
    """Return how many runs share this machine."""
    text = environ.get(AT_ONCE_VARIABLE, "")
    return max(1, int(text)) if text.isdecimal() else 1


def take_cpu_share(share_count: int, folder: Path | None = None) -> frozenset[int] | None:
    """Keep this process and its children to the first free one of ``share_count`` equal shares.

    It is theirs until this process ends. Whole cores: threads that share a core stay together. None
    where the machine has fewer cores than shares, or every share is taken: the run then goes where
    the kernel puts it.
    """
    lock_folder = shared_folder().path if folder is None else folder
    for index, cpus in enumerate(cpu_shares(share_count) if share_count > 1 else ()):
        name = f"cpus-{os.geteuid()}-{index + 1}-of-{share_count}.lock"
        try:
            handle = open_file(lock_folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        except (OSError, LlemError) as error:  # what somebody else put there is no share of ours
            say(f"processors are not shared out by {lock_folder / name}: {error}")
            continue
        if try_lock(handle):
            os.sched_setaffinity(0, cpus)
            return cpus
        os.close(handle)
    return None


def cpu_shares(count: int) -> list[frozenset[int]]:
    """Return this process's processors in ``count`` shares of whole cores; none if too few."""
    cores = usable_cores()
    size = len(cores) // count
    if size == 0:
        return []
    return [
        frozenset().union(*cores[number * size : (number + 1) * size]) for number in range(count)
    ]


def usable_cores() -> list[frozenset[int]]:
    """Return the processors this process may use by core, in the order of their numbers."""
    remaining = os.sched_getaffinity(0)
    cores = []
    for cpu in sorted(remaining):
        if cpu in remaining:
            core = (_siblings(cpu) | {cpu}) & remaining
            remaining -= core
            cores.append(frozenset(core))
    return cores


def _siblings(cpu: int) -> set[int]:
    """Return the processors on one core."""
    return parse_numbers(read_text(_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list"))
