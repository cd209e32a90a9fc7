"""One model over several devices: whole in each, or a slice in each."""

from collections.abc import Sequence
from typing import Any

from llenergymeasure.backends.base import Completion
from llenergymeasure.backends.pytorch.workers import Workers
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.requests import Request


class _ParallelEngine:
    """What both ways have in common."""

    def __init__(self, workers: Workers, batch_size: int) -> None:
        self._workers = workers
        self.batch_size: int | None = batch_size
        self.devices = workers.devices

    def synchronize(self) -> None:
        """Wait until all devices have done all they were given."""
        self._workers.ask("synchronize")

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force in the first process, and how many there are."""
        first: dict[str, Any] = self._workers.ask("resolved_config")[0]
        return first | {"batch_size": self.batch_size}

    def peak_memory_bytes(self) -> int | None:
        """Return the sum over the processes of their peaks since the last call; None on a CPU."""
        peaks = self._workers.ask("peak_memory_bytes")
        return None if None in peaks else sum(peaks)

    def statistics(self) -> dict[str, Any]:
        """Return nothing: transformers keeps no account of its work."""
        return {}

    def close(self) -> None:
        """End the processes."""
        self._workers.end()


class ReplicaEngine(_ParallelEngine):
    """The same model in several processes that share the requests."""

    def __init__(self, config: ExperimentConfig, processes: int) -> None:
        """Load it into each process.

        Raises:
            BackendError: one of them could not; the others are ended.
        """
        share = (config.pytorch and config.pytorch.batch_size) or 1
        super().__init__(Workers(config, processes, grouped=False), share * processes)
        self._processes = processes

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, up to a batch a process, and return when all processes are done.

        Raises:
            BackendError: a process failed; nothing of the others is kept then.
            ValueError: more requests than the processes take at once.
        """
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests for batches of {self.batch_size} in all")
        shares = [list(requests[rank :: self._processes]) for rank in range(self._processes)]
        answers = self._workers.ask("generate", shares)
        done = {completion.index: completion for share in answers for completion in share}
        return [done[request.index] for request in requests]

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force in the first process, and how many there are."""
        return super().resolved_config() | {"num_processes": self._processes}


class TensorParallelEngine(_ParallelEngine):
    """One model of which every process holds a slice; all compute every request together."""

    def __init__(self, config: ExperimentConfig, size: int) -> None:
        """Load a slice into each process.

        Raises:
            BackendError: one of them could not; the others are ended.
        """
        batch_size = (config.pytorch and config.pytorch.batch_size) or 1
        super().__init__(Workers(config, size, grouped=True), batch_size)
        self._size = size

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer one batch and return after all devices are synchronised.

        Raises:
            BackendError: a process failed.
            ValueError: more requests than a batch holds.
        """
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests in a batch of {self.batch_size}")
        first: list[Completion] = self._workers.ask("generate", [list(requests)] * self._size)[0]
        return first
