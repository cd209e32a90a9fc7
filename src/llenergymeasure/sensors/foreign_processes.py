"""Which processes on a GPU are not of the run: their energy would be counted as the run's.

A process is of the run if the run's own process is among its ancestors, or was when it was first
seen. Where process numbers cannot be followed (a container sees the host's numbers), a process
that was there before the run began is a stranger; of later ones nothing can be said.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llenergymeasure.files import read_bytes
from llenergymeasure.machine.gpus.inventory import Gpu, compute_processes, graphics_processes
from llenergymeasure.machine.host import read_text
from llenergymeasure.processes import arguments, is_hidden, stat_fields
from llenergymeasure.sensors.base import SensorError

_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The inode the kernel gives the first one (PROC_PID_INIT_INO in linux/proc_ns.h)."""
LAUNCHER = "llenergymeasure.containers.launcher"
"""The module that starts an engine's container."""
Answer = TypeVar("Answer")
_MPS_SERVERS = frozenset({"nvidia-cuda-mps"})
"""Compute contexts that work only for processes that are listed next to them (MPS' server), by as
much of their name as the kernel keeps (proc(5), /proc/PID/comm)."""
_COMM_LENGTH = 15


@dataclass(frozen=True)
class ForeignProcess:
    """A process on a GPU that is not of the run."""

    pid: int
    name: str


class RunProcesses:
    """Distinguishes the run's processes from all others."""

    def __init__(
        self, run_pid: int, proc: Path = Path("/proc"), engine_pid_file: Path | None = None
    ) -> None:
        """Take the process at the root of the run's tree.

        Args:
            run_pid: that process.
            proc: where processes are described.
            engine_pid_file: will hold the root of one more tree: an engine in a container that a
                daemon started is no child of the run's own process.
        """
        self._run_pid = run_pid
        self._engine_pid_file = engine_pid_file
        self._proc = proc
        self._run_processes: set[tuple[int, str]] = set()
        self._pids_before_run: set[tuple[str, int]] = set()
        self._unresolved_pids: dict[str, set[int]] = {}
        self._sees_host_pids = _in_host_pid_namespace(proc)

    @classmethod
    def around_engine(
        cls, engine_pid_file: Path, watched_pid: int | None, proc: Path = Path("/proc")
    ) -> "RunProcesses":
        """Return the run's as its engine's process knows them: the supervisor's tree and its own.

        In a container it watches the supervisor, or a launcher whose parent that is.
        """
        if watched_pid is None:
            return cls(os.getppid(), proc, engine_pid_file)
        launcher = (
            stat_fields(watched_pid, proc) if LAUNCHER in arguments(watched_pid, proc) else []
        )
        return cls(int(launcher[1]) if launcher else watched_pid, proc, engine_pid_file)

    def foreign_processes(self, gpu: Gpu) -> list[ForeignProcess]:
        """Return the processes not of the run that compute on a card now.

        The first call for a card has to come before the run uses it.

        Raises:
            SensorError: the card does not answer.
        """
        pids = ask_nvml(lambda: compute_processes(gpu))
        first_look = gpu.uuid not in self._unresolved_pids
        unresolved_before = self._unresolved_pids.get(gpu.uuid, set())
        self._unresolved_pids[gpu.uuid] = set()
        found = []
        for pid in pids:
            if first_look:
                self._pids_before_run.add((gpu.uuid, pid))
            if self._is_foreign(gpu.uuid, pid, was_unresolved=pid in unresolved_before):
                name = self._name(pid)
                if name[:_COMM_LENGTH] not in _MPS_SERVERS:
                    found.append(ForeignProcess(pid, name))
        return found

    def foreign_graphics_processes(self, gpu: Gpu) -> list[ForeignProcess]:
        """Return the processes not of the run that draw on a card now: a desktop, a game.

        Raises:
            SensorError: the card does not answer.
        """
        return [
            ForeignProcess(pid, self._name(pid))
            for pid in ask_nvml(lambda: graphics_processes(gpu))
            if not (self._exists(pid) and self._is_ours(pid))
        ]

    def _is_foreign(self, uuid: str, pid: int, *, was_unresolved: bool) -> bool:
        if self._exists(pid):
            is_ours = self._is_ours(pid)
            self._sees_host_pids = self._sees_host_pids or is_ours
            return not is_ours
        if (uuid, pid) in self._pids_before_run:
            return True
        # Gone between NVML's answer and this look, unless NVML says so twice.
        self._unresolved_pids[uuid].add(pid)
        return self._sees_host_pids and was_unresolved

    def _is_ours(self, pid: int) -> bool:
        fields = stat_fields(pid, self._proc)
        pid_and_start = (pid, fields[19] if fields else "")
        if pid_and_start in self._run_processes:
            return True
        roots = self.roots()
        ancestor = pid
        while ancestor > 0:
            if ancestor in roots:
                self._run_processes.add(pid_and_start)
                return True
            fields = stat_fields(ancestor, self._proc)
            ancestor = int(fields[1]) if fields else 0
        return False

    def roots(self) -> set[int]:
        """Return the processes at the roots of the run's trees, as far as they are known now."""
        file = self._engine_pid_file
        try:
            engine_pid = int(read_bytes(file)) if file else self._run_pid
        except (OSError, ValueError):
            engine_pid = self._run_pid
        return {self._run_pid, engine_pid}

    def _exists(self, pid: int) -> bool:
        return pid > 0 and ((self._proc / str(pid)).exists() or is_hidden(pid))

    def _name(self, pid: int) -> str:
        return read_text(self._proc / str(pid) / "comm") or _nvml_name(pid)


def _in_host_pid_namespace(proc: Path) -> bool:
    """Whether process numbers here are the host's, as NVML may report them."""
    try:
        return str((proc / "self" / "ns" / "pid").readlink()) == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def ask_nvml(call: Callable[[], Answer]) -> Answer:
    """Return NVML's answer; its refusals are ours."""
    import pynvml

    try:
        return call()
    except pynvml.NVMLError as error:
        raise SensorError(str(error)) from error


def _nvml_name(pid: int) -> str:
    import pynvml

    try:
        name = pynvml.nvmlSystemGetProcessName(pid)
    except pynvml.NVMLError:
        return "unknown"
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
