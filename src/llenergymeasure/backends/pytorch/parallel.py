"""One model over several devices: whole in each process, or a slice in each."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, LlemError
from llenergymeasure.processes import die_with_parent
from llenergymeasure.workload.requests import Request

if TYPE_CHECKING:
    from llenergymeasure.backends.pytorch.engine import PyTorchEngine


class ParallelEngine(Engine):
    """Several processes with an engine each: on GPU 0, 1, …, or sharing the CPU's cores."""

    def __init__(self, config: ExperimentConfig, processes: int, *, sliced: bool) -> None:
        """Load the model into each process.

        Args:
            config: of the experiment.
            processes: how many.
            sliced: whether every process holds a slice of the model, and all compute every
                request together; else the same model is in each, and they share the requests.
        """
        each = (config.pytorch and config.pytorch.batch_size) or 1
        self.batch_size: int | None = each if sliced else each * processes
        self._sliced = sliced
        self._meeting = tempfile.TemporaryDirectory(prefix="llem-")
        meeting = str(Path(self._meeting.name, "ranks")) if sliced else None
        # A forked child could not use CUDA, nor threads its parent has started.
        context = multiprocessing.get_context("spawn")
        self._pools = [
            ProcessPoolExecutor(1, context, initializer=_ignore_interrupts)
            for _ in range(processes)
        ]
        self._pids: list[int] = []
        try:
            self._pids = [pool.submit(os.getpid).result() for pool in self._pools]
            loads = [(config, rank, processes, meeting) for rank in range(processes)]
            devices = self._ask_each(_load, loads)
        except BaseException:
            self._kill()
            raise
        self.devices: tuple[str, ...] = tuple(name for own in devices for name in own)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, up to a batch a process, and return when all processes are done."""
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests for batches of {self.batch_size} in all")
        count = len(self._pools)
        if self._sliced:
            first: list[Completion] = self._ask("generate", [list(requests)] * count)[0]
            return first
        answers = self._ask("generate", [list(requests[rank::count]) for rank in range(count)])
        done = {completion.index: completion for share in answers for completion in share}
        return [done[request.index] for request in requests]

    def synchronize(self) -> None:
        """Wait until all devices have done all they were given."""
        self._ask("synchronize")

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force in the first process, and how many there are."""
        first: dict[str, Any] = self._ask("resolved_config")[0]
        number = {} if self._sliced else {"num_processes": len(self._pools)}
        return {**first, "batch_size": self.batch_size, **number}

    def peak_memory_bytes(self) -> int | None:
        """Return the sum over the processes of their peaks since the last call; None on a CPU."""
        peaks = self._ask("peak_memory_bytes")
        return None if None in peaks else sum(peaks)

    def close(self) -> None:
        """End the processes."""
        self._kill()

    def _ask(self, method: str, arguments: Sequence[Any] | None = None) -> list[Any]:
        """Have each engine do something at once, with an argument each; return their answers."""
        if not self._pids:
            raise BackendError("the engine is closed")
        given = [()] * len(self._pools) if arguments is None else [(each,) for each in arguments]
        try:
            return self._ask_each(_call, [(rank, method, *each) for rank, each in enumerate(given)])
        except BackendError:
            self._kill()
            raise

    def _ask_each(self, work: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the answers by rank; the first failure ends the waiting.

        A process of a group that lost another one may wait for it forever.
        """
        try:
            asked = [
                pool.submit(work, *each) for pool, each in zip(self._pools, arguments, strict=True)
            ]
        except BrokenProcessPool as error:
            raise BackendError("one of the processes ended unasked") from error
        wait(asked, return_when=FIRST_EXCEPTION)
        done = [(rank, future) for rank, future in enumerate(asked) if future.done()]
        for rank, future in done:
            _raise_failure(rank, future)
        return [future.result() for future in asked]

    def _kill(self) -> None:
        """End the processes at once: nothing of theirs is kept, and a device goes with them."""
        for child in multiprocessing.active_children():
            if child.pid in self._pids:
                child.kill()
        self._pids = []
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        self._meeting.cleanup()


def _raise_failure(rank: int, future: "Future[Any]") -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise BackendError(f"process {rank} ended unasked") from error


_engines: list["PyTorchEngine"] = []
"""The one of this process, where it is a worker."""


def _ignore_interrupts() -> None:
    """Leave interrupts to the process that asks, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def _load(config: ExperimentConfig, rank: int, count: int, meeting: str | None) -> tuple[str, ...]:
    """Load the engine of this process; ``meeting`` is the file by which a group finds itself."""
    try:
        from llenergymeasure.backends.pytorch.engine import load_engine

        if meeting is not None:
            _join_group(rank, count, meeting)
        _engines.append(load_engine(_on_own_device(config, rank)))
    except LlemError as error:
        raise BackendError(f"process {rank}: {error}") from None
    return _engines[0].devices


def _call(rank: int, method: str, *arguments: Any) -> Any:
    try:
        return getattr(_engines[0], method)(*arguments)
    except BackendError as error:
        raise BackendError(f"process {rank}: {error}") from None


def _join_group(rank: int, count: int, meeting: str) -> None:
    import torch
    from torch import distributed

    # One machine: the ranks' sockets stay on loopback.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=count,
    )


def _on_own_device(config: ExperimentConfig, rank: int) -> ExperimentConfig:
    import torch

    if not torch.cuda.is_available():
        return config
    settings = (config.pytorch or PyTorchConfig()).model_copy(update={"device_map": f"cuda:{rank}"})
    return config.model_copy(update={"pytorch": settings})
