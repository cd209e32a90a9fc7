"""Child processes, signals, and what the kernel says of a process (standard library only)."""

import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, Any, NoReturn

from llenergymeasure.errors import LlemError

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAFE_PATH_VARIABLE = "PYTHONSAFEPATH"
"""Is to Python what ``-P`` is, for the processes that Snakemake starts for us (on clusters too)."""

KILL_WAIT_S = 1.0
"""Longest wait for a child that was killed to be gone."""

MEMORY_RELEASE_WAIT_S = 60.0
"""The same for one that may have much memory to give back."""


class ChildError(LlemError):
    """A child process did not give its answer."""


class RefusedError(ChildError):
    """A child process answered that it cannot do what was asked."""


class SignalPipe:
    """Signals as something to poll for, so that no handler runs amid other work.

    Catches SIGINT, SIGTERM and SIGHUP from when it is made.
    """

    def __init__(self) -> None:
        self.handle, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in END_SIGNALS:
            signal.signal(number, lambda _number, _frame: None)  # the pipe carries the signal

    def wait(self, timeout_s: float) -> bool:
        """Return whether a signal has come within ``timeout_s``."""
        return bool(select.select([self.handle], [], [], timeout_s)[0])

    def take(self) -> int:
        """Return the number of the signal that came first."""
        return os.read(self.handle, 1)[0]


def ignore_end_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP from here on: the end has come already."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter.

    ``-P`` keeps the working folder off its path: what lies there is not ours.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def safe_path_variables() -> dict[str, str]:
    """Return the variables that keep Python from taking modules out of the working folder.

    An empty entry of PYTHONPATH, as ``PYTHONPATH=$PYTHONPATH:…`` makes one, means that folder.
    """
    variables = {SAFE_PATH_VARIABLE: "1"}
    if python_path := os.environ.get("PYTHONPATH"):
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, python_path.split(os.pathsep)))
    return variables


def user_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command of the user's own, with ``variables``.

    It is as it was, but for empty entries of PYTHONPATH.
    """
    environment = {key: value for key, value in os.environ.items() if key != SAFE_PATH_VARIABLE}
    return environment | variables


def run_to_end(
    command: Sequence[str],
    limit_s: float,
    *,
    input_text: str | None = None,
    environment: Mapping[str, str] | None = None,
    inherit: Sequence[int] = (),
    keep_errors: bool = True,
    die_with_thread: bool = False,
    name: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return its exit code and what it printed.

    Args:
        command: program and arguments.
        limit_s: how long it may take; then it is killed with its children, and not waited for
            where the kernel cannot end it, as in a call into a driver that hangs.
        input_text: its standard input; empty if not given.
        environment: its whole environment; this process's own if not given.
        inherit: open files that it holds too.
        keep_errors: return what it prints to stderr; else that goes where this process's does.
        die_with_thread: let it be killed when this thread ends.
        name: what messages call it; its first words if not given.

    Raises:
        ChildError: it cannot be started, or did not end in time.
    """
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if input_text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if keep_errors else None,
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
            start_new_session=True,
            pass_fds=tuple(inherit),
            preexec_fn=die_with_parent if die_with_thread else None,
        )
    except OSError as error:
        raise ChildError(f"{command[0]} cannot be started: {error.strerror}") from None
    try:
        stdout, stderr = child.communicate(input_text, limit_s)
    except subprocess.TimeoutExpired:
        name = name or " ".join(list(takewhile(lambda word: word[:1] != "-", command))[:3])
        raise ChildError(f"{name} did not answer within {limit_s:g} s") from None
    finally:
        if child.poll() is None:
            _abandon(child)
    return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)


def _abandon(child: "subprocess.Popen[str]") -> None:
    signal_group(child, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(KILL_WAIT_S)


def call_in_child(
    function: str, *arguments: Any, limit_s: float, inherit: Sequence[int] = ()
) -> dict[str, Any]:
    """Return what a function answers in a process of its own.

    A driver that hangs takes that process along and not this one.

    Args:
        function: ``MODULE:NAME``; its arguments and its answer are what JSON holds.
        arguments: for it.
        limit_s: how long it may take.
        inherit: open files that the child holds too, such as locks on what it works on.

    Raises:
        RefusedError: the function raised one of our errors, or OSError.
        ChildError: it did not answer in time, failed, or said something else.
    """
    code = f"from {__name__} import answer_call; answer_call()"
    result = run_to_end(
        [sys.executable, "-P", "-c", code, function],
        limit_s,
        input_text=json.dumps(arguments),
        inherit=inherit,
        name="the driver",
    )
    try:
        reply: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        lines = result.stderr.strip().splitlines()
        raise ChildError(lines[-1] if lines else f"it ended with {result.returncode}") from None
    if "refused" in reply:
        raise RefusedError(reply["refused"])
    value: dict[str, Any] = reply["answer"]
    return value


def answer_call() -> None:
    """In the child of :func:`call_in_child`: call the function, and print its answer."""
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        reply = {"answer": function(*json.load(sys.stdin))}
    except (LlemError, OSError) as error:
        reply = {"refused": str(error)}
    print(json.dumps(reply))


def start(
    command: Sequence[str],
    log: IO[bytes],
    environment: Mapping[str, str] | None = None,
    *,
    ignores_end_signals: bool = False,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own; it is killed when this process dies.

    Signals by which a scheduler asks all of a job to end can be ignored by it.
    """

    def prepare() -> None:
        die_with_parent()
        if ignores_end_signals:
            ignore_end_signals()

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=None if environment is None else dict(environment),
        start_new_session=True,
        preexec_fn=prepare,
    )


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


def signal_group(process: subprocess.Popen[Any], signal_number: int) -> None:
    """Send a signal to a child's whole process group; nothing happens if it is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal_number)


def end_now(code: int) -> NoReturn:
    """End this process, which has written all, and what libraries started, without their exits."""
    sys.stdout.flush()
    sys.stderr.flush()
    for child in getattr(sys.modules.get("multiprocessing"), "active_children", list)():
        child.kill()
    os._exit(code)


def end_group(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """End a child and its group: SIGTERM, then SIGKILL after ``grace_s``; return its code.

    Once its code was taken its number may be another process's, to which nothing is sent; where
    none has it, only what it left of its group can hold it. And one that the kernel cannot end, as
    in a call into a driver that hangs, is not waited for.
    """
    if process.returncode is not None:
        if not Path(f"/proc/{process.pid}").exists():
            signal_group(process, signal.SIGKILL)
        return process.returncode
    with suppress(ProcessLookupError):  # its code was taken just now
        handle = os.pidfd_open(process.pid)
        poller = select.poll()  # the handle may be too high a number for select(2)
        poller.register(handle, select.POLLIN)
        if not poller.poll(0):
            signal_group(process, signal.SIGTERM)
            poller.poll(1000 * grace_s)
        os.close(handle)
        signal_group(process, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        return process.wait(MEMORY_RELEASE_WAIT_S)
    return -signal.SIGKILL


def kill_descendants(grace_s: float = 2.0) -> list[int]:
    """Kill every descendant of this process that is left; return those that were found."""
    killed = remaining = descendants(os.getpid())
    deadline = time.monotonic() + grace_s
    while remaining and time.monotonic() < deadline:
        for pid in remaining:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        remaining = descendants(os.getpid())
    return killed


def exit_code(returncode: int) -> int:
    """Return a shell's exit code for ``subprocess``'s: 128 + n for a signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def boot_id() -> str | None:
    """Return the kernel's id of this boot (random(4)): a process id means nothing after another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None if it is dead or a zombie."""
    fields = stat_fields(pid)
    return None if len(fields) < 20 or fields[0] in {"Z", "X"} else int(fields[19])


def is_hidden(pid: int) -> bool:
    """Return whether a process of another user lives that this one may not see (hidepid, proc(5)).

    A zombie is seen.
    """
    if stat_fields(pid):
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        pass
    return False


def identity(pid: int) -> str:
    """Return what distinguishes a process from every other: boot, process id, and its start."""
    return f"{boot_id()}:{pid}:{start_ticks(pid)}"


def descendants(pid: int) -> list[int]:
    """Return the process ids of all living descendants of ``pid``."""
    stats = {other: stat for other in pids() if (stat := stat_fields(other))}
    return descendant_pids({pid}, {other: stat for other, stat in stats.items() if stat[0] != "Z"})


def descendant_pids(roots: Collection[int], fields: Mapping[int, Sequence[str]]) -> list[int]:
    """Return which processes, each with its ``stat_fields``, descend from one of the roots."""
    children: dict[int, list[int]] = {}
    for pid, stat in fields.items():
        children.setdefault(int(stat[1]), []).append(pid)
    found, pending = list[int](), list(roots)
    while pending:
        own_children = children.get(pending.pop(), [])
        found += own_children
        pending += own_children
    return found


def pids(proc: Path = Path("/proc")) -> Iterator[int]:
    """Yield the ids of all processes that can be seen."""
    yield from (int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())


def arguments(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the words that a process was started with; empty if it is gone."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [os.fsdecode(word) for word in words]


def stat_fields(pid: int, proc: Path = Path("/proc")) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on (proc(5)); empty if it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
