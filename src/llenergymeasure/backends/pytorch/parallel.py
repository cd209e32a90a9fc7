"""One model over several devices: whole in each, or a slice in each."""

from collections.abc import Sequence
from typing import Any

from llenergymeasure.backends.base import Completion
from llenergymeasure.backends.pytorch.workers import Workers
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.requests import Request


class ParallelEngine:
    """Several processes that hold an engine each."""

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
        each = (config.pytorch and config.pytorch.batch_size) or 1
        self._processes, self._sliced = processes, sliced
        self._workers = Workers(config, processes, grouped=sliced)
        self.batch_size: int | None = each if sliced else each * processes
        self.devices = self._workers.devices

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer requests, up to a batch a process, and return when all processes are done.

        Raises:
            BackendError: a process failed; nothing of the others is kept then.
            ValueError: more requests than the processes take at once.
        """
        if self.batch_size is not None and len(requests) > self.batch_size:
            raise ValueError(f"{len(requests)} requests for batches of {self.batch_size} in all")
        if self._sliced:
            same = [list(requests)] * self._processes
            first: list[Completion] = self._workers.ask("generate", same)[0]
            return first
        shares = [list(requests[rank :: self._processes]) for rank in range(self._processes)]
        answers = self._workers.ask("generate", shares)
        done = {completion.index: completion for share in answers for completion in share}
        return [done[request.index] for request in requests]

    def synchronize(self) -> None:
        """Wait until all devices have done all they were given."""
        self._workers.ask("synchronize")

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force in the first process, and how many there are."""
        first: dict[str, Any] = self._workers.ask("resolved_config")[0]
        number = {} if self._sliced else {"num_processes": self._processes}
        return {**first, "batch_size": self.batch_size, **number}

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
