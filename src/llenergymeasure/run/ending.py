"""How the processes of a run end, and the error that describes it (standard library only)."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from llenergymeasure import processes
from llenergymeasure.machine.host import memory_limit_bytes
from llenergymeasure.processes import SignalPipe

GRACE_S = 15.0
"""Seconds between SIGTERM and SIGKILL for what must end."""

SIGNAL_TO_ALL_S = 1.0
"""A scheduler signals all processes of a job; the most time between two of them."""

CHECK_S = 1.0
"""How often limits are looked at."""

FINISH_LIMIT_S = 600.0
FINISH_HURRIED_S = 120.0
"""For computing the result, from when a signal has asked for the run's end."""

_WORKFLOW_GONE = "the workflow that asked for the run ended"

EXIT_LATER = 75
"""Exit code of the result process when it may succeed later (EX_TEMPFAIL of sysexits.h)."""

KEPT_MESSAGE = "what was measured is kept, and the next call finishes it"


class Cause(Enum):
    """What ended an engine's process from outside."""

    SIGNAL = "Interrupted"
    WORKFLOW_GONE = "WorkflowGone"
    TIME_LIMIT = "TimeoutError"
    TEARDOWN_HUNG = "TeardownHung"
    FINISH_HUNG = "FinishHung"


@dataclass(frozen=True)
class End:
    """How a process of the run ended.

    Attributes:
        returncode: as of :mod:`subprocess`.
        cause: what ended it from outside; None where it ended by itself.
        message: the cause in words.
        signal_number: the signal that asked for the end.
    """

    returncode: int
    cause: Cause | None = None
    message: str = ""
    signal_number: int | None = None

    @classmethod
    def by_signal(cls, number: int, returncode: int | None = None) -> "End":
        """Return the end that a signal asked for; without a returncode, that of the signal."""
        code = -number if returncode is None else returncode
        return cls(code, Cause.SIGNAL, signal.Signals(number).name, number)

    @property
    def requested(self) -> bool:
        """Whether the caller of the run asked for its end."""
        return self.cause in (Cause.SIGNAL, Cause.WORKFLOW_GONE)

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself and without an error."""
        return self.cause is None and self.returncode == 0


Limits = Callable[[], Iterable[tuple[float, Cause, str]]]
"""Gives the moments (on the monotonic clock) by which a process is to end, with cause and words."""


def wait_for_end(
    child: "subprocess.Popen[bytes]",
    signals: SignalPipe,
    watched_pid: int | None,
    limits: Limits,
    is_done: Callable[[], bool] | None = None,
) -> End:
    """Wait for a child's end, a signal, a limit, or the end of the watched process.

    The child's process group is ended too, unless ``is_done`` is given and returns True.
    """

    def end_child(cause: Cause, message: str) -> End:
        return End(processes.end_group(child, GRACE_S), cause, message)

    watched_handles = _open_watched(watched_pid)
    if watched_handles is None:
        return end_child(Cause.WORKFLOW_GONE, _WORKFLOW_GONE)
    child_handle = os.pidfd_open(child.pid)
    poller = select.poll()
    for handle in (child_handle, signals.handle, *watched_handles):
        poller.register(handle, select.POLLIN)
    try:
        while True:
            wait_s = CHECK_S
            for deadline_s, cause, message in limits():
                wait_s = min(wait_s, deadline_s - time.monotonic())
                if wait_s <= 0:
                    return end_child(cause, message)
            if is_done is not None and is_done():
                return End(0)
            ready = {handle for handle, _ in poller.poll(1000 * wait_s + 1)}
            if ready:
                list(limits())  # looks at the phase that the run came to
            if child_handle in ready:
                return _end_after_exit(processes.end_group(child, 0.0), signals)
            if signals.handle in ready:
                return End.by_signal(signals.take(), processes.end_group(child, GRACE_S))
            if ready.intersection(watched_handles):
                return end_child(Cause.WORKFLOW_GONE, _WORKFLOW_GONE)
    finally:
        for handle in (child_handle, *watched_handles):
            os.close(handle)


def _end_after_exit(returncode: int, signals: SignalPipe) -> End:
    """Return how a child ended: by a signal to the run if the scheduler signalled both of them."""
    if -returncode in processes.END_SIGNALS and signals.wait(SIGNAL_TO_ALL_S):
        return End.by_signal(signals.take(), returncode)
    return End(returncode)


def wait_for_result(
    child: "subprocess.Popen[bytes]", signals: SignalPipe, signal_number: int | None
) -> End:
    """Wait for the result process; after a signal it has less time."""
    number = signal_number
    deadline = time.monotonic() + (FINISH_LIMIT_S if number is None else FINISH_HURRIED_S)
    with contextlib.ExitStack() as stack:
        handle = os.pidfd_open(child.pid)
        stack.callback(os.close, handle)
        while (remaining_s := deadline - time.monotonic()) > 0:
            handles = [handle] if number is not None else [handle, signals.handle]
            ready = select.select(handles, [], [], remaining_s)[0]
            if handle in ready:
                return End(child.wait())
            if ready:
                number = signals.take()
                deadline = min(deadline, time.monotonic() + FINISH_HURRIED_S)
    processes.end_group(child, 0.0)
    if number is not None:
        return End.by_signal(number)
    return End(-1, Cause.FINISH_HUNG, f"computing the result took over {FINISH_LIMIT_S:g} s")


def _open_watched(watched_pid: int | None) -> list[int] | None:
    """Return pidfds of the watched process and of our parent; None if the first is gone.

    In a container they differ, and the launcher can be killed alone.
    """
    if watched_pid is None:
        return []
    if watched_pid == os.getppid():
        processes.die_with_parent(signal.SIGTERM)
    try:
        watched_handles = [os.pidfd_open(watched_pid)]
    except ProcessLookupError:
        return None
    if os.getppid() not in (0, 1, watched_pid):
        with contextlib.suppress(ProcessLookupError):
            watched_handles.append(os.pidfd_open(os.getppid()))
    return watched_handles


def outcome_error(kind: str, message: str | None) -> dict[str, str]:
    """Return an outcome's error."""
    return {"class": kind, "message": message or ""}


def exception_error(raised: BaseException) -> dict[str, str]:
    """Return an exception as an outcome's error."""
    return outcome_error(type(raised).__name__, str(raised))


def silent_exit_error(
    returncode: int, process: str = "the engine's process", prefix: str = "Engine"
) -> dict[str, str]:
    """Describe a process of the run that ended without saying why."""
    if returncode >= 0:
        return outcome_error(f"{prefix}Exit", f"{process} ended with exit code {returncode}")
    name = signal.Signals(-returncode).name
    hint, limit = "", memory_limit_bytes()
    if name == "SIGKILL":
        hint = "; the usual cause is the system running out of memory"
        if limit is not None:
            hint += (
                f": the run may use {limit / 1e9:.1f} GB; give its job or container more "
                "(mem_mb in a cluster's profile)"
            )
    return outcome_error(f"{prefix}Killed", f"{process} was killed by {name}{hint}")
