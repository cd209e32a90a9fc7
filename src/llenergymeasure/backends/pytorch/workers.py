"""Processes with a model each, and the talk with them."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, LlemError

_END_SECONDS = 30.0
"""How long a worker may take to give back its device before it is killed."""


class Workers:
    """Several processes that hold an engine each: on GPU 0, 1, …, or sharing the CPU's cores."""

    def __init__(self, config: ExperimentConfig, count: int, *, grouped: bool) -> None:
        """Start them and wait until all have loaded.

        Args:
            config: of the experiment.
            count: how many.
            grouped: whether they form one group that computes together.

        Raises:
            BackendError: one of them could not load; the others are ended.
        """
        # A forked child could not use CUDA, nor threads its parent has started.
        context = multiprocessing.get_context("spawn")
        self._meeting = tempfile.TemporaryDirectory(prefix="llem-") if grouped else None
        meeting = str(Path(self._meeting.name) / "ranks") if self._meeting else None
        self._workers: list[_Worker] = []
        try:
            for rank in range(count):
                ours, theirs = context.Pipe()
                place = _Place(rank, count, meeting)
                process = context.Process(
                    target=_serve, args=(theirs, config, place), name=f"worker-{rank}", daemon=True
                )
                process.start()
                theirs.close()
                self._workers.append(_Worker(rank, process, ours))
            devices = self._answers()
        except BaseException:
            self._kill()
            raise
        self.devices = tuple(name for own in devices for name in own)

    def ask(self, method: str, arguments: Sequence[Any] | None = None) -> list[Any]:
        """Have each do something at once, with an argument each, and return their answers.

        Raises:
            BackendError: one failed or is gone; the others are ended.
        """
        if not self._workers:
            raise BackendError("the engine is closed")
        try:
            for place, worker in enumerate(self._workers):
                worker.send(method, *(() if arguments is None else (arguments[place],)))
            return self._answers()
        except BackendError:
            # The others' answers would be taken for those to the next question.
            self._kill()
            raise

    def end(self) -> None:
        """End them; those that do not are killed."""
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.join(_END_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []
        if self._meeting:
            self._meeting.cleanup()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        self.end()

    def _answers(self) -> list[Any]:
        """Return the answers as they stand by rank; the first failure ends the waiting.

        A worker of a group that lost another one may wait for it forever.
        """
        answers: dict[int, Any] = {}
        waiting: dict[Any, _Worker] = {worker.connection: worker for worker in self._workers}
        while waiting:
            for connection in wait(list(waiting)):
                worker = waiting.pop(connection)
                answers[worker.rank] = worker.answer()
        return [answers[worker.rank] for worker in self._workers]


@dataclass(frozen=True)
class _Place:
    """A worker's place among the others; ``meeting`` is the file by which a group finds itself."""

    rank: int
    count: int
    meeting: str | None


class _Worker:
    """This side of one worker."""

    def __init__(self, rank: int, process: BaseProcess, connection: Connection) -> None:
        self.rank = rank
        self.process = process
        self.connection = connection

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
            raise BackendError(f"process {self.rank}: {content}")
        return content

    def _ended(self) -> BackendError:
        self.process.join(_END_SECONDS)
        code = self.process.exitcode
        return BackendError(f"process {self.rank} ended unasked, with exit code {code}")


def _serve(connection: Connection, config: ExperimentConfig, place: _Place) -> None:
    """Be a worker: answer until the other side closes the connection, or is gone."""
    # Interrupting is for the process that asked; it closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from llenergymeasure.backends.pytorch.engine import load_engine

        if place.meeting is not None:
            _join_group(place, place.meeting)
        engine = load_engine(_on_own_device(config, place.rank))
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


def _join_group(place: _Place, meeting: str) -> None:
    import torch
    from torch import distributed

    # One machine: the ranks' sockets stay on loopback.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    os.environ.update(RANK=str(place.rank), LOCAL_RANK=str(place.rank), WORLD_SIZE=str(place.count))
    if torch.cuda.is_available():
        torch.cuda.set_device(place.rank)
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"file://{meeting}",
        rank=place.rank,
        world_size=place.count,
    )


def _on_own_device(config: ExperimentConfig, rank: int) -> ExperimentConfig:
    import torch

    if not torch.cuda.is_available():
        return config
    settings = (config.pytorch or PyTorchConfig()).model_copy(update={"device_map": f"cuda:{rank}"})
    return config.model_copy(update={"pytorch": settings})
