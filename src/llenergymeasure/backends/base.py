"""The protocol that every engine is put behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.servers import READY_LIMIT_S
from llenergymeasure.errors import Problem
from llenergymeasure.workload.requests import Request


@dataclass(frozen=True)
class Completion:
    """What came back for one request; padding and the prompt are not counted as output.

    Times are CLOCK_MONOTONIC in nanoseconds. ``first_token_monotonic_ns`` is None where the
    engine gives only whole answers.
    """

    index: int
    input_tokens: int
    output_tokens: int
    start_monotonic_ns: int
    end_monotonic_ns: int
    first_token_monotonic_ns: int | None = None
    finish_reason: str | None = None
    thinking_tokens: int | None = None
    """Those of its output that were thought before the answer; None where the model has no marker
    of it."""
    step_monotonic_ns: tuple[int, ...] | None = None
    """When each token of the batch's longest answer was there, on the batch's first request alone;
    None where the engine does not say its steps, or one gave more than a token an answer."""


class Engine(Protocol):
    """A loaded engine, ready to generate."""

    batch_size: int | None = None
    """Requests a call of :meth:`generate` takes at most; None if the engine batches by itself."""

    devices: tuple[str, ...]
    """UUIDs of the GPUs it works on; empty on a CPU."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer ``requests`` and return after the devices are synchronised, in their order."""

    def synchronize(self) -> None:
        """Wait until the devices have done all they were given; for most, an answer says so."""
        return

    def resolved_config(self) -> dict[str, Any]:
        """Return the settings in force, the engine's own defaults included."""

    def peak_memory_bytes(self) -> int | None:
        """Return the peak device memory since the last call.

        None where there is no device, or the memory is held by the engine's own processes.
        """
        return None

    def statistics(self) -> dict[str, Any]:
        """Return what the engine counted since the last call, or since it was loaded.

        Plain values, recorded as they are. Two names have columns of their own:
        ``kv_cache_share_mean`` and ``kv_cache_share_max``, the share of the key-value cache in use
        (0 to 1). What was not observed is left out.
        """
        return {}

    def warmup_requests(self) -> Sequence[Request]:
        """Return requests like the measured ones, none of which they repeat.

        None for most: these are warmed up with the measured ones.
        """
        return ()

    def close(self) -> None:
        """Give back memory and end helper processes."""


@runtime_checkable
class TextScorer(Protocol):
    """What an engine may also have: how likely it takes given text to be."""

    def log_likelihoods(self, token_ids: Sequence[int]) -> list[float]:
        """Return the natural logarithm of each token's likelihood after those before it.

        Args:
            token_ids: a text, two tokens or more; the first has no likelihood.

        Raises:
            BackendError: the engine failed, or the text is too long for it.
        """


@dataclass(frozen=True)
class ServerCommand:
    """How an engine's own OpenAI-compatible server is started, reached and read.

    The server listens on loopback alone. The shared client in ``backends/serving/`` starts it,
    waits until it is ready, sends all traffic and ends it; a backend says only what is in here.

    Attributes:
        argv: program and arguments, with ``{api_key}`` where the run's own key goes; empty for a
            server that is running already.
        base_url: where the interface begins, such as ``http://127.0.0.1:8000/v1``.
        model: the name the server knows the model by.
        environment: variables set over this process's own; ``{api_key}`` as in ``argv``.
        key_file: what stands, with ``{api_key}`` in it, in a file that this user alone can read,
            whose path is put for ``{key_file}`` in ``argv``; empty for none.
        ready_path: answers 200 once requests are taken, from the server's root.
        ready_once_answered: whether it may say so before the model is loaded, so that it counts
            as loaded once it has answered a request.
        body: fields added to every request as this engine names them: sampling, and that
            end-of-sequence is ignored; None leaves out one that the client would send.
        takes_token_ids: whether a completion's ``prompt`` may be a list of token ids.
        metrics_path: Prometheus text, from the server's root; None where there is none.
        gauges: the metric's name for ``running`` and ``waiting`` (requests),
            ``kv_cache_share`` (0 to 1) and ``requests`` (answered so far), those that this
            engine has.
        settings_path: answers the settings in force as JSON, from the server's root.
        settings: what is known of the settings in force without asking.
        api_key: sent as a bearer token to a server that is running already; never written
            anywhere.
        ready_limit_s: how long the start may take.
    """

    argv: tuple[str, ...]
    base_url: str
    model: str
    environment: Mapping[str, str] = field(default_factory=dict)
    key_file: str = ""
    ready_path: str = "/health"
    ready_once_answered: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    takes_token_ids: bool = True
    metrics_path: str | None = None
    gauges: Mapping[str, str] = field(default_factory=dict)
    settings_path: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    api_key: str | None = field(default=None, repr=False)
    ready_limit_s: float = READY_LIMIT_S


class Backend(Protocol):
    """One engine's module: what is known before loading, the loading, and its server.

    An experiment with a ``serving`` section runs by ``server``: traffic over HTTP in place of
    batches in this process. Without the section a backend runs in-process by ``load``, unless
    it has nothing else than a server (``openai``).
    """

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

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how the server for ``config`` is started; starts nothing itself.

        Args:
            config: the resolved experiment; sampling, precision and the engine's own arguments
                mean the same as in-process.
            port: a free port on 127.0.0.1; not used by a server that is running already.

        Raises:
            BackendError: the engine cannot serve this configuration.
        """


@runtime_checkable
class SettingsValidator(Protocol):
    """What a backend may have in addition: an engine that judges settings without a model."""

    def refusal(self, config: ExperimentConfig) -> str | None:
        """Return why the engine refuses ``config``, in its own words; None if it takes it.

        Raises:
            ConfigurationError: the model's name means nothing.
            BackendError: the model cannot be fetched.
        """
