"""The same model in several processes, one device each, that share the requests."""

import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from llenergymeasure.backends.base import Completion
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, LlemError
from llenergymeasure.workload.requests import Request

_END_SECONDS = 30.0
"""How long a replica may take to give back its device before it is killed."""


def load_replicas(config: ExperimentConfig, processes: int) -> "ReplicaEngine":
    """Load the model into ``processes`` processes: on GPU 0, 1, …, or sharing the CPU's cores.

    Raises:
        BackendError: one of them could not; the others are ended.
    """
    # A forked child could not use CUDA, nor threads its parent has started.
    context = multiprocessing.get_context("spawn")
    replicas: list[_Replica] = []
    try:
        for rank in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, config, rank), name=f"replica-{rank}", daemon=True
            )
            process.start()
            theirs.close()
            replicas.append(_Replica(rank, process, ours))
        devices = tuple(name for replica in replicas for name in replica.answer())
    except BaseException:
        _end(replicas)
        raise
    return ReplicaEngine(config, replicas, devices)


class ReplicaEngine:
    """Several processes behind the protocol of one engine."""

    def __init__(
        self, config: ExperimentConfig, replicas: "list[_Replica]", devices: tuple[str, ...]
    ) -> None:
        self._replicas = replicas
        self._share = (config.pytorch and config.pytorch.batch_size) or 1
        self.batch_size: int | None = self._share * len(replicas)
        self.devices = devices

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, up to a batch a replica, and return when all replicas are done.

        Raises:
            BackendError: a replica failed; nothing of the others is kept then.
            ValueError: more requests than the replicas take at once.
        """
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests for batches of {self.batch_size} in all")
        count = len(self._replicas)
        shares = [list(requests[rank::count]) for rank in range(count)]
        answers = self._ask("generate", shares)
        done = {completion.index: completion for share in answers for completion in share}
        return [done[request.index] for request in requests]

    def synchronize(self) -> None:
        """Wait until all devices have done all they were given."""
        self._ask("synchronize")

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force in the first replica, and how many there are."""
        first: dict[str, Any] = self._replicas[0].ask("resolved_config")
        return first | {"num_processes": len(self._replicas), "batch_size": self.batch_size}

    def peak_memory_bytes(self) -> int | None:
        """Return the sum over the replicas of their peaks since the last call; null on a CPU."""
        peaks = self._ask("peak_memory_bytes")
        return None if None in peaks else sum(peaks)

    def close(self) -> None:
        """End the replicas."""
        _end(self._replicas)
        self._replicas = []

    def _ask(self, method: str, arguments: Sequence[Any] | None = None) -> list[Any]:
        """Have all replicas do something at once; hear all of them out before any error."""
        for place, replica in enumerate(self._replicas):
            replica.send(method, *(() if arguments is None else (arguments[place],)))
        answers, errors = [], []
        for replica in self._replicas:
            try:
                answers.append(replica.answer())
            except BackendError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return answers


class _Replica:
    """This side of one replica."""

    def __init__(self, rank: int, process: BaseProcess, connection: Connection) -> None:
        self._rank = rank
        self.process = process
        self.connection = connection

    def ask(self, method: str, *arguments: Any) -> Any:
        self.send(method, *arguments)
        return self.answer()

    def send(self, method: str, *arguments: Any) -> None:
        try:
            self.connection.send((method, arguments))
        except OSError as error:
            raise self._ended() from error

    def answer(self) -> Any:
        """Return what it answers.

        Raises:
            BackendError: it failed, or is gone.
        """
        try:
            well, content = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if not well:
            raise BackendError(f"replica {self._rank}: {content}")
        return content

    def _ended(self) -> BackendError:
        self.process.join(_END_SECONDS)
        code = self.process.exitcode
        return BackendError(f"replica {self._rank} ended unasked, with exit code {code}")


def _end(replicas: Sequence[_Replica]) -> None:
    for replica in replicas:
        replica.connection.close()
    for replica in replicas:
        replica.process.join(_END_SECONDS)
        if replica.process.is_alive():
            replica.process.kill()
            replica.process.join()


def _serve(connection: Connection, config: ExperimentConfig, rank: int) -> None:
    """Be a replica: answer until the other side closes the connection, or is gone."""
    # Interrupting is for the process that asked; it closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from llenergymeasure.backends.pytorch.engine import load_engine

        engine = load_engine(_on_own_device(config, rank))
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


def _on_own_device(config: ExperimentConfig, rank: int) -> ExperimentConfig:
    import torch

    if not torch.cuda.is_available():
        return config
    settings = (config.pytorch or PyTorchConfig()).model_copy(update={"device_map": f"cuda:{rank}"})
    return config.model_copy(update={"pytorch": settings})
