"""Traffic on an engine's server: when requests arrive, how long they are, what is good enough."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from llenergymeasure.config.section import Count, PathText, Seconds, Section

Arrivals = Literal["constant", "poisson", "gamma", "ramp", "trace", "closed"]
Endpoint = Literal["completions", "chat"]
Distribution = Literal["fixed", "uniform", "lognormal", "data"]

MAX_RATE_PER_S = 100_000.0
MAX_TOKENS = 10_000_000
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]

_REQUIRED_FIELDS: dict[Arrivals, tuple[str, ...]] = {
    "constant": ("rate_per_s",),
    "poisson": ("rate_per_s",),
    "gamma": ("rate_per_s", "burstiness"),
    "ramp": ("rate_per_s", "rate_end_per_s"),
    "trace": ("trace",),
    "closed": ("concurrency",),
}
_ARRIVALS_BY_FIELD: dict[str, tuple[Arrivals, ...]] = {
    "rate_per_s": ("constant", "poisson", "gamma", "ramp"),
    "rate_end_per_s": ("ramp",),
    "burstiness": ("gamma",),
    "concurrency": ("closed",),
    "trace_speed": ("trace",),
    "trace_start_seconds": ("trace",),
}


class LengthConfig(Section):
    """How many tokens prompts or answers have."""

    distribution: Distribution = Field(
        default="fixed",
        description="fixed takes tokens; uniform lies evenly between min_tokens and max_tokens; "
        "lognormal has mean_tokens and cv; data draws from the lengths in serving.trace.",
    )
    tokens: Tokens | None = Field(default=None, description="The length of fixed.", examples=[128])
    mean_tokens: float | None = Field(
        default=None, ge=1, le=MAX_TOKENS, description="Mean of lognormal, before its limits."
    )
    cv: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="Coefficient of variation of lognormal: standard deviation over mean.",
    )
    min_tokens: Tokens | None = Field(default=None, description="Shorter ones become this long.")
    max_tokens: Tokens | None = Field(default=None, description="Longer ones become this long.")

    @property
    def longest(self) -> int | None:
        """The most tokens there can be; None where the study does not say."""
        return self.tokens or self.max_tokens

    def _contradictions(self) -> Iterator[str]:
        required = {
            "fixed": ("tokens",),
            "uniform": ("min_tokens", "max_tokens"),
            "lognormal": ("mean_tokens", "cv"),
            "data": (),
        }[self.distribution]
        missing = [name for name in required if getattr(self, name) is None]
        if missing:
            yield f"distribution {self.distribution} needs {' and '.join(missing)}"
        distributions = {"tokens": "fixed", "mean_tokens": "lognormal", "cv": "lognormal"}
        for name, distribution in distributions.items():
            if getattr(self, name) is not None and self.distribution != distribution:
                yield f"{name} belongs to distribution {distribution}; remove it"
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            yield f"min_tokens ({self.min_tokens}) is more than max_tokens ({self.max_tokens})"


class SloConfig(Section):
    """What an answer must keep to be good: limits of the service-level objective."""

    ttft_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Most time to the first token, in ms."
    )
    tpot_ms: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Most mean time for each further token of an answer, in ms.",
    )
    e2e_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Most time to the last token, in ms."
    )
    percentile: float = Field(
        default=99,
        gt=0,
        le=100,
        description="Share of the requests, in percent, that must keep all limits for the load to "
        "count as sustained.",
    )

    def _contradictions(self) -> Iterator[str]:
        if self.ttft_ms is None and self.tpot_ms is None and self.e2e_ms is None:
            yield "give at least one limit: ttft_ms, tpot_ms or e2e_ms"


class ServingConfig(Section):
    """The engine as a server on loopback under traffic, in place of batches in its process."""

    arrivals: Arrivals = Field(
        default="poisson",
        description="When requests arrive: constant gaps; poisson; gamma, poisson's gaps made more "
        "or less bursty; ramp, poisson from rate_per_s to rate_end_per_s; trace, as in a file; "
        "closed, a fixed number of users who each wait for their answer. All but closed send at "
        "times settled beforehand, whatever the server does.",
    )
    rate_per_s: float | None = Field(
        default=None,
        ge=0,
        le=MAX_RATE_PER_S,
        description="Mean rate of arrivals, in requests (or conversations) per second; 0 leaves "
        "the loaded server idle.",
        examples=[4],
    )
    rate_end_per_s: float | None = Field(
        default=None, gt=0, le=MAX_RATE_PER_S, description="Rate at the end of a ramp."
    )
    burstiness: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Shape of gamma's gaps: 1 is poisson, below 1 is burstier; the gaps' "
        "coefficient of variation is one over its square root.",
        examples=[0.5],
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=100_000, description="Users of closed.", examples=[16]
    )
    think_seconds: Seconds | None = Field(
        default=None,
        description="Mean pause of a user after an answer (exponential), in closed and between "
        "the turns of a conversation; default: none.",
    )
    trace: PathText | None = Field(
        default=None,
        description="File of arrivals and lengths, in the formats of the Azure LLM inference "
        "traces, of BurstGPT, Mooncake and Qwen-Bailian, or CSV with the columns timestamp, "
        "input_tokens, output_tokens; or of agents' sessions, as AIPerf and Azure publish them.",
    )
    trace_speed: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="How many times as fast the trace is replayed; pauses within a session stay.",
    )
    trace_start_seconds: float | None = Field(
        default=None,
        ge=0,
        le=1e9,
        description="How long after the trace's first request its replay begins; default: 0.",
    )
    endpoint: Endpoint = Field(
        default="completions",
        description="completions sends prompts as token ids where the server takes them; chat "
        "sends them as a user's message.",
    )
    input_tokens: LengthConfig | None = Field(
        default=None,
        description="Lengths of the prompts (of each turn's new part); default: the data set's, "
        "or the trace's.",
    )
    output_tokens: LengthConfig | None = Field(
        default=None, description="Lengths of the answers; default: the data set's, or the trace's."
    )
    turns: int | None = Field(
        default=None,
        ge=2,
        le=1000,
        description="Turns of a conversation: each sends all that went before along. Default: "
        "single requests.",
    )
    shared_prefix_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of each prompt that it has in common with others: a system prompt.",
    )
    shared_prefixes: Count | None = Field(
        default=None, description="How many such prefixes there are; default 1."
    )
    cached_prompts: bool | None = Field(
        default=None,
        description="Whether a prefix cache may know prompts: with true every cycle's are the "
        "same, and a data set's come again as they are. Default: false, each one is computed.",
    )
    ramp_up_max_seconds: Seconds | None = Field(
        default=None,
        description="The window opens after this long even if the traffic has not become steady; "
        "default: 60.",
    )
    timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="A request without a whole answer after this long has failed; default: 300.",
    )

    def _contradictions(self) -> Iterator[str]:
        for name in _REQUIRED_FIELDS[self.arrivals]:
            if getattr(self, name) is None:
                yield f"arrivals {self.arrivals} need {name}"
        for name, kinds in _ARRIVALS_BY_FIELD.items():
            if getattr(self, name) is not None and self.arrivals not in kinds:
                yield f"{name} belongs to arrivals {', '.join(kinds)}; remove it"
        for name in ("input_tokens", "output_tokens"):
            length = getattr(self, name)
            if length is not None and length.distribution == "data" and self.trace is None:
                yield f"{name} are drawn from data, and serving.trace names no file"
        if self.arrivals == "trace" and self.turns is not None:
            yield "a trace has its own requests; remove turns"
        if self.think_seconds is not None and self.arrivals != "closed" and self.turns is None:
            yield "think_seconds belongs to arrivals closed, or to turns; remove it"
        if self.shared_prefixes is not None and self.shared_prefix_ratio is None:
            yield "shared_prefixes needs shared_prefix_ratio"

    @property
    def open_loop(self) -> bool:
        """Whether requests come whatever the server does."""
        return self.arrivals != "closed"

    @property
    def ramp_up_max_s(self) -> float:
        """The most time before the window opens."""
        return 60.0 if self.ramp_up_max_seconds is None else self.ramp_up_max_seconds

    @property
    def timeout_s(self) -> float:
        """The most time for an answer."""
        return self.timeout_seconds or 300.0


ONE_USER = ServingConfig(arrivals="closed", concurrency=1)
"""Traffic of an experiment that says none, on a backend that is nothing but a server."""
