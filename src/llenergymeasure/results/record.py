"""The record of one run, as it is in ``result.json``.

Names carry their units; what was not observed is null, never 0. Every time stamp is
CLOCK_MONOTONIC in nanoseconds on the host that ran it.
"""

from typing import Any, Literal

from pydantic import Field

from llenergymeasure.results.base import Record
from llenergymeasure.results.layout import SCHEMA_VERSION
from llenergymeasure.results.serving import Serving
from llenergymeasure.units import Kind, Scope


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


class Reading(Record):
    """The energy of the window as one sensor saw it on one device.

    ``gross_u95_j`` and ``net_u95_j`` are half widths of the 95 % intervals; ``bound_j`` is what no
    load within the device's power range exceeds; ``u_sys_j`` the half width of the band of the
    sensor's gain, kept apart because repeats do not shrink it.
    """

    device: str = Field(description="GPU UUID, or a name such as cpu:package-0")
    sensor: str
    kind: Kind
    scope: Scope
    channel: str = Field(description="counter, power, or model")
    headline: bool = Field(
        default=False, description="one reading a device is the headline: readings with it add up"
    )
    gross_j: float | None
    idle_j: float | None = None
    net_j: float | None = None
    u95_j: float | None = Field(default=None, description="gross_u95_j, for one release more")
    gross_u95_j: float | None = None
    net_u95_j: float | None = None
    shared_u95_j: float | None = Field(
        default=None, description="of gross_u95_j, what repeats share: it does not average out"
    )
    bound_j: float | None = None
    u_sys_j: float | None = None
    unavailable: str | None = Field(default=None, description="why gross_j is null")


class PhaseEnergy(Record):
    """Headline energy of one phase."""

    phase: str
    duration_s: float
    energy_j: float | None
    u95_j: float | None = None


class TokenSplit(Record):
    """Energy of prefill and decode apart; a request's first output token counts to prefill."""

    method: Literal["ticks", "marks", "regression"] | None = Field(
        default=None,
        description="how prefill and decode were separated: ticks (the counter's steps); marks or "
        "regression in results of earlier versions",
    )
    prefill_per_input_token_j: float | None = None
    prefill_u95_j: float | None = Field(None, description="95 % half width, per input token")
    decode_per_output_token_j: float | None = None
    decode_u95_j: float | None = Field(None, description="95 % half width, per output token")
    correlation: float | None = Field(default=None, description="correlation of the two errors")
    unexplained_rel: float | None = Field(
        default=None,
        description="what the phases leave of the energy between two of the counter's steps, "
        "root mean square, relative",
    )
    unavailable: str | None = Field(default=None, description="why they cannot be separated")


class ThinkingEnergy(Record):
    """Energy of what the model thought and of what it answered."""

    method: Literal["split", "tokens"] = Field(
        description="split: decode's energy over the time of each, prefill apart; tokens: every "
        "output token has the same part of the window's energy, as what one of each costs cannot "
        "be separated, and the intervals are that of the window's energy alone"
    )
    thinking_j: float = Field(description="energy of the output tokens of thought, in J")
    thinking_u95_j: float | None = Field(
        default=None, description="half width of its 95 % interval"
    )
    answer_j: float = Field(description="energy of the other output tokens, in J")
    answer_u95_j: float | None = Field(default=None, description="half width of its 95 % interval")


class Footprint(Record):
    """What the headline energy meant outside, by what the study declared when it ran."""

    energy_site_kwh: float = Field(description="energy of the window times pue")
    pue: float
    grid_gco2e_per_kwh: float | None = None
    carbon_gco2e: float | None = None
    carbon_per_1000_requests_gco2e: float | None = None
    price_per_kwh: float | None = None
    currency: str | None = None
    cost: float | None = None
    cost_per_1000_requests: float | None = None
    source: str | None = Field(default=None, description="where the declared figures are from")


class NodeEnergy(Record):
    """Energy of the window of the whole machine at its plug, next to that of its devices.

    It is never added to theirs: it holds them, and power supplies, fans and all the rest.
    """

    gross_j: float | None = Field(
        default=None, description="energy of the window of the whole machine at its plug"
    )
    gross_u95_j: float | None = Field(
        default=None, description="half width of its 95 % interval; the meter's gain is not in it"
    )
    u_sys_j: float | None = Field(default=None, description="half width of the meter's gain band")
    lag_s: float | None = Field(
        default=None,
        description="how late the meter shows a step of the load; taken into account; negative if "
        "its clock is behind",
    )
    lag_u95_s: float | None = Field(default=None, description="half width of its 95 % interval")
    devices_j: float | None = Field(
        default=None, description="energy of the measured GPUs, CPUs and memory together"
    )
    devices: list[str] = Field(default_factory=list, description="which they are")
    ratio: float | None = Field(
        default=None, description="energy of the whole machine over that of its measured devices"
    )
    ratio_low: float | None = Field(
        default=None, description="least ratio that intervals and gains of both allow at once"
    )
    ratio_high: float | None = Field(default=None, description="most that they allow at once")
    ratio_unavailable: str | None = Field(default=None, description="why there is no ratio")
    notes: list[str] = Field(
        default_factory=list, description="missing readings, a slow meter, a clock that is behind"
    )
    unavailable: str | None = Field(default=None, description="why gross_j is null")


class Energy(Record):
    """All readings of the window and what follows from the headline ones."""

    kind: Kind | None = Field(description="measured or estimated; null if there is no energy")
    source: str | None = Field(description="sensor of the headline")
    scopes: list[Scope] = Field(
        default_factory=list, description="what the headline covers, such as gpu, or cpu and dram"
    )
    readings: list[Reading]
    gross_j: float | None
    net_j: float | None = None
    u95_j: float | None = Field(
        default=None,
        description="half width of the 95 % interval of the gross energy; the sensor's gain is "
        "not in it",
    )
    net_u95_j: float | None = None
    shared_u95_j: float | None = Field(
        default=None,
        description="of u95_j, what repeats share (time not seen, channels that disagree, what "
        "windows that are cut alike lose at their ends); it does not average out",
    )
    bound_j: float | None = None
    u_sys_j: float | None = None
    power_mean_w: float | None = None
    per_output_token_j: float | None = None
    per_input_token_j: float | None = None
    per_request_j: float | None = None
    per_1000_requests_wh: float | None = None
    split: TokenSplit | None = None
    thinking: ThinkingEnergy | None = Field(
        default=None, description="null where no answer held thought"
    )
    footprint: Footprint | None = None
    phases: list[PhaseEnergy] = Field(default_factory=list)
    node: NodeEnergy | None = Field(
        default=None, description="null where no meter of the whole machine was named"
    )
    unavailable: str | None = Field(default=None, description="why there is no energy")


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
