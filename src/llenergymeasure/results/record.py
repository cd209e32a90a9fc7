"""The record of one run, as it is in ``result.json``.

Names carry their units; what was not observed is null, never 0. Every time stamp is
CLOCK_MONOTONIC in nanoseconds on the host that ran it.
"""

from typing import Any, Literal

from pydantic import Field

from llenergymeasure.results.base import Record
from llenergymeasure.results.energy import Energy
from llenergymeasure.results.layout import SCHEMA_VERSION
from llenergymeasure.results.serving import Serving


class Phase(Record):
    """A named stretch of the run: ``idle_before``, ``load``, ``warmup``, ``measure`` and others."""

    name: str
    start_monotonic_ns: int
    end_monotonic_ns: int


class Window(Record):
    """The part of ``measure`` that counts."""

    start_monotonic_ns: int
    end_monotonic_ns: int
    duration_s: float


class Tokens(Record):
    """What went in and came out inside the window; padding is not counted."""

    input: int
    output: int
    requests: int
    prompt_hash: str = Field(
        description="SHA-256 over the prompts' token ids and asked lengths; under traffic over the "
        "first n of the cycle, without the marks that keep prefix caches from knowing them"
    )
    input_cached: int | None = Field(
        None,
        description="of the input tokens, found in the server's prefix cache by its own account; "
        "null where it does not say",
    )
    output_came: int | None = Field(None, description="output tokens that came in traffic's window")
    thinking: int | None = Field(
        None, description="output tokens of thought, before the answers; null where there was none"
    )
    output_sd: float | None = Field(
        default=None,
        description="standard deviation of the output tokens of an answer, over the answers "
        "that ended inside the window",
    )
    output_mean: float | None = Field(None, description="under traffic, mean over the same answers")
    requests_worked: float | None = Field(
        None,
        description="under traffic, requests by the share of their work that lay inside the window "
        "(without that in which they waited for others), by which tokens count too",
    )

    @property
    def work(self) -> float:
        """How many requests' work the window's energy is of, also where none ended in it."""
        return self.requests if self.requests_worked is None else self.requests_worked


class Performance(Record):
    """Speed inside the window."""

    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    batch_latency_mean_s: float | None = None
    request_latency_p50_s: float | None = None
    request_latency_p95_s: float | None = None
    time_to_first_token_p50_s: float | None = None
    peak_memory_bytes: int | None = Field(
        default=None,
        description="most memory that the engine had allocated on the run's GPUs together during a "
        "window of batches, by torch; null on a CPU, under traffic, and where the engine's own "
        "processes hold it",
    )
    memory_scope: Literal["device", "process"] | None = None
    weights_bytes: int | None = Field(
        default=None,
        description="what one copy of the weights takes, computed from the model's dimensions",
    )
    kv_cache_bytes: int | None = Field(
        default=None,
        description="what the keys and values of the longest batch of one process take, computed "
        "likewise; not known where the engine batches by itself",
    )
    kv_cache_share_mean: float | None = Field(
        default=None,
        description="mean share of the key-value cache in use during the window, by the "
        "engine's own account (0 to 1)",
    )
    kv_cache_share_max: float | None = Field(default=None, description="largest such share")
    gpu_utilization_percent: float | None = Field(
        default=None, description="mean share of the window in which a kernel ran, by NVML"
    )
    memory_utilization_percent: float | None = Field(
        default=None,
        description="mean share of the window in which device memory was read or written",
    )
    device_memory_used_max_bytes: int | None = Field(
        default=None,
        description="most memory in use on each of the run's GPUs, added up, whoever used it",
    )
    utilization_unavailable: str | None = Field(default=None, description="why it is null")


class Clocks(Record):
    """The GPUs' clocks over the window, by NVML; each field is a column of the runs' table.

    Medians and ranges are over the looks at a card in use; of several cards, over all of them.
    """

    sm_clock_median_mhz: float | None = Field(
        default=None,
        description="median of the multiprocessors' clock over the window, while the card worked",
    )
    sm_clock_min_mhz: float | None = Field(
        default=None, description="lowest clock of the multiprocessors"
    )
    sm_clock_max_mhz: float | None = Field(
        default=None, description="highest clock of the multiprocessors"
    )
    memory_clock_median_mhz: float | None = Field(
        default=None, description="median of the memory's clock"
    )
    memory_clock_min_mhz: float | None = Field(
        default=None, description="lowest clock of the memory"
    )
    memory_clock_max_mhz: float | None = Field(
        default=None, description="highest clock of the memory"
    )
    sm_clock_free_mhz: float | None = Field(
        default=None,
        description="highest clock of the multiprocessors while neither heat nor the power limit "
        "held it down: what is set, by whomever; null if it was hardly ever free",
    )
    slowed_share: float | None = Field(
        default=None,
        description="share of the window's looks in which heat, the power limit or the power "
        "supply held the clocks down; of the card that has most",
    )
    slowed_by_heat_share: float | None = Field(
        default=None, description="the same share for heat or the power supply alone"
    )
    slowed_by: list[str] | None = Field(
        default=None, description="NVML's reasons to hold the clocks down, by name"
    )


class Quality(Record):
    """Quality of the answers, as far as the study asks for it; measured after the window."""

    perplexity: float | None = Field(
        default=None,
        description="perplexity per token on the study's texts, of the engine that was "
        "measured; lower is better",
    )
    perplexity_tokens: int | None = Field(default=None, description="tokens it is the mean over")
    texts_sha256: str | None = Field(default=None, description="SHA-256 of the file of texts")
    perplexity_unavailable: str | None = Field(default=None, description="why it is null")
    score: float | None = Field(
        default=None, description="score of the study's own command or tasks; higher is better"
    )
    correct: int | None = Field(
        default=None, description="right answers, where the score is their share"
    )
    items: int | None = Field(default=None, description="questions that were asked")
    tasks: list[str] | None = Field(
        default=None, description="tasks of lm-eval that gave the score"
    )
    command: list[str] | None = Field(default=None, description="command that gave the score")
    score_unavailable: str | None = Field(default=None, description="why it is null")


class Flops(Record):
    """Floating-point operations of the work: means over the workload, and what they cost."""

    per_output_token: float | None
    per_request: float | None = None
    prefill_per_request: float | None = None
    decode_per_request: float | None = None
    method: str
    confidence: str
    per_s: float | None = Field(default=None, description="operations per second of the work")
    energy_per_tflop_j: float | None = Field(
        default=None, description="gross energy over 10^12 operations"
    )
    mfu: float | None = Field(
        default=None,
        description="model FLOPs utilisation, the operations' rate over the makers' peak rate "
        "of the GPUs; null where none is known, and the record says why",
    )
    peak_per_s: float | None = Field(
        default=None, description="the makers' dense 16-bit rate of all cards in use"
    )
    peak_source: str | None = None
    mfu_unavailable: str | None = Field(default=None, description="why mfu is null")


class Result(Record):
    """One finished run."""

    schema_version: int = SCHEMA_VERSION
    experiment: str
    cycle: int
    order: int
    status: Literal["completed"] = "completed"
    backend: str
    runner: str
    study: str
    study_design_hash: str
    config: dict[str, Any]
    protocol: dict[str, Any] = Field(description="every protocol setting as it was in force")
    phases: list[Phase]
    window: Window
    batches: int = Field(description="whole batches inside the window")
    tokens: Tokens
    energy: Energy
    performance: Performance
    clocks: Clocks | None = Field(
        default=None, description="null where no GPU does the work, or none was looked at"
    )
    serving: Serving | None = Field(default=None, description="null without traffic")
    quality: Quality | None = Field(default=None, description="null if the study asks for none")
    flops: Flops
    warmup_result: dict[str, Any]
    validity: list[str]
    environment: dict[str, Any]
    provenance: dict[str, Any]
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the siblings")
