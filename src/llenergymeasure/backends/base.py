"""The protocol that every engine is put behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.workload.requests import Request


@dataclass(frozen=True)
class Completion:
    """What came back for one request; padding and the prompt are not counted as output.

    Times are CLOCK_MONOTONIC in nanoseconds. ``first_token_monotonic_ns`` is null where the
    engine gives only whole answers.
    """

    index: int
    input_tokens: int
    output_tokens: int
    start_monotonic_ns: int
    end_monotonic_ns: int
    first_token_monotonic_ns: int | None = None
    finish_reason: str | None = None


class Engine(Protocol):
    """A loaded engine, ready to generate."""

    batch_size: int | None
    """Requests a call of :meth:`generate` takes at most; null if the engine batches by itself."""

    devices: tuple[str, ...]
    """UUIDs of the GPUs it works on; empty on a CPU."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer ``requests`` and return after the devices are synchronised, in their order."""

    def synchronize(self) -> None:
        """Wait until the devices have done all they were given."""

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force, the engine's own defaults included."""

    def peak_memory_bytes(self) -> int | None:
        """Return the peak device memory since the last call; null where there is no device."""

    def close(self) -> None:
        """Give back memory and end helper processes."""


@runtime_checkable
class Counting(Protocol):
    """What an engine may have besides: its own account of the work."""

    def statistics(self) -> dict[str, Any]:
        """Return what the engine counted since the last call, or since it was loaded.

        Plain values, recorded as they are. Two names have columns of their own:
        ``kv_cache_share_mean`` and ``kv_cache_share_max``, the share of the key-value cache in use
        (0 to 1). What was not observed is left out.
        """


def statistics_of(engine: Engine) -> dict[str, Any]:
    """Return an engine's own account since the last call; empty where it keeps none."""
    return engine.statistics() if isinstance(engine, Counting) else {}


class Backend(Protocol):
    """One engine's module: what is known before loading, and the loading."""

    name: str

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here (package missing, no GPU, …); cheap, no load."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the engine and of what it computes with."""

    def load(self, config: ExperimentConfig) -> Engine:
        """Load the model of a resolved experiment configuration.

        Raises:
            BackendError: the engine refused a setting or the model.
        """
