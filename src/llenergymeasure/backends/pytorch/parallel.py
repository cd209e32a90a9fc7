"""One model over several devices: whole in each, or a slice in each, in a process for each."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from llenergymeasure.backends.base import Completion, Engine
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, LlemError
from llenergymeasure.workload.requests import Request

_EXIT_LIMIT_S = 30.0
"""How long a worker may take to give back its device before it is killed."""


class ParallelEngine(Engine):
    """Several processes that hold an engine each: on GPU 0, 1, …, or sharing the CPU's cores."""

    def __init__(self, config: ExperimentConfig, processes: int, *, sliced: bool) -> None:
        """Load the model into each process.

        Args:
            config: of the experiment.
            processes: how many.
            sliced: whether every process holds a slice of the model, and all compute every
                request together; else the same model is in each, and they share the requests.

        Raises:
            BackendError: one of them could not; the others are ended.
        """
        batch_size = (config.pytorch and config.pytorch.batch_size) or 1
        self._sliced = sliced
        self.batch_size: int | None = batch_size if sliced else batch_size * processes
        self._rendezvous = tempfile.TemporaryDirectory(prefix="llem-") if sliced else None
        rendezvous = str(Path(self._rendezvous.name) / "ranks") if self._rendezvous else None
        self._workers: list[_Worker] = []
        try:
            for rank in range(processes):
                self._workers.append(_Worker(config, rank, processes, rendezvous))
            devices = self._collect_answers()
        except BaseException:
            self._kill()
            raise
        self.devices = tuple(name for worker_devices in devices for name in worker_devices)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, up to a batch a process, and return when all processes are done.

        Raises:
            BackendError: a process failed; nothing of the others is kept then.
            ValueError: more requests than the processes take at once.
        """
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests for batches of {self.batch_size} in all")
        count = len(self._workers)
        if self._sliced:
            first: list[Completion] = self._call("generate", [list(requests)] * count)[0]
            return first
        answers = self._call("generate", [list(requests[rank::count]) for rank in range(count)])
        completions = {completion.index: completion for share in answers for completion in share}
        return [completions[request.index] for request in requests]

    def synchronize(self) -> None:
        """Wait until all devices have done all they were given."""
        self._call("synchronize")

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force in the first process, and how many there are."""
        first: dict[str, Any] = self._call("resolved_config")[0]
        number = {} if self._sliced else {"num_processes": len(self._workers)}
        return {**first, "batch_size": self.batch_size, **number}

    def peak_memory_bytes(self) -> int | None:
        """Return the sum over the processes of their peaks since the last call; None on a CPU."""
        peaks = self._call("peak_memory_bytes")
        return None if None in peaks else sum(peaks)

    def close(self) -> None:
        """End the processes; those that do not end are killed."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(_EXIT_LIMIT_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []
        if self._rendezvous:
            self._rendezvous.cleanup()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        self.close()

    def _call(self, method: str, arguments: Sequence[Any] | None = None) -> list[Any]:
        """Have each do something at once, with an argument each, and return their answers.

        Raises:
            BackendError: one failed or is gone; the others are ended.
        """
        if not self._workers:
            raise BackendError("the engine is closed")
        try:
            for rank, worker in enumerate(self._workers):
                worker.send(method, *(() if arguments is None else (arguments[rank],)))
            return self._collect_answers()
        except BackendError:
            # The others' answers would be taken for those to the next question.
            self._kill()
            raise

    def _collect_answers(self) -> list[Any]:
        """Return the answers as they stand by rank; the first failure ends the waiting.

        A worker of a group that lost another one may wait for it forever.
        """
        answers: dict[int, Any] = {}
        pending: dict[Any, _Worker] = {worker.connection: worker for worker in self._workers}
        while pending:
            for connection in wait(list(pending)):
                worker = pending.pop(connection)
                answers[worker.rank] = worker.answer()
        return [answers[worker.rank] for worker in self._workers]


class _Worker:
    """One process, and this side of the talk with it."""

    def __init__(
        self, config: ExperimentConfig, rank: int, count: int, rendezvous: str | None
    ) -> None:
        # A forked child could not use CUDA, nor threads its parent has started.
        context = multiprocessing.get_context("spawn")
        self.rank = rank
        self.connection, worker_end = context.Pipe()
        self.process = context.Process(
            target=_run_worker,
            args=(worker_end, config, rank, count, rendezvous),
            name=f"worker-{rank}",
            daemon=True,
        )
        self.process.start()
        worker_end.close()

    def send(self, method: str, *arguments: Any) -> None:
        try:
            self.connection.send((method, arguments))
        except OSError as error:
            raise self._exit_error() from error

    def answer(self) -> Any:
        """Return what it answers.

        Raises:
            BackendError: it failed, or is gone.
        """
        try:
            succeeded, content = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._exit_error() from error
        if not succeeded:
            raise BackendError(f"process {self.rank}: {content}")
        return content

    def _exit_error(self) -> BackendError:
        self.process.join(_EXIT_LIMIT_S)
        code = self.process.exitcode
        return BackendError(f"process {self.rank} ended unasked, with exit code {code}")


def _run_worker(
    connection: Connection,
    config: ExperimentConfig,
    rank: int,
    count: int,
    rendezvous: str | None,
) -> None:
    """Be a worker: answer until the other side closes the connection, or is gone.

    ``rendezvous`` is the file by which a group that computes together finds itself.
    """
    # Interrupting is for the process that asked; it closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from llenergymeasure.backends.pytorch.engine import PyTorchEngine

        if rendezvous is not None:
            _join_group(rank, count, rendezvous)
        engine = PyTorchEngine(_config_for_rank(config, rank))
    except LlemError as error:
        connection.send((False, str(error)))
        return
    try:
        connection.send((True, engine.devices))
        while True:
            method, arguments = connection.recv()
            try:
                answer = (True, getattr(engine, method)(*arguments))
            except BackendError as error:
                answer = (False, str(error))
            connection.send(answer)
    except (EOFError, OSError):
        return
    finally:
        engine.close()


def _join_group(rank: int, count: int, rendezvous: str) -> None:
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
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=count,
    )


def _config_for_rank(config: ExperimentConfig, rank: int) -> ExperimentConfig:
    import torch

    if not torch.cuda.is_available():
        return config
    settings = (config.pytorch or PyTorchConfig()).model_copy(update={"device_map": f"cuda:{rank}"})
    return config.model_copy(update={"pytorch": settings})
