"""What a run under traffic says of it: load, latency, errors, and what good answers cost."""

from typing import Any, Literal

from pydantic import Field

from llenergymeasure.results.base import Record


class Latency(Record):
    """Percentiles of one latency over the requests that were to be sent within the window."""

    p50_s: float | None = Field(default=None, description="median")
    p90_s: float | None = Field(default=None, description="90th percentile")
    p95_s: float | None = Field(default=None, description="95th percentile")
    p99_s: float | None = Field(default=None, description="99th percentile")


class Serving(Record):
    """One run under traffic."""

    arrivals: str = Field(description="when requests came, as in the study")
    endpoint: str = Field(description="completions or chat")
    ramp_up: Literal["steady", "gave up", "not needed"] = Field(
        description="why the window opened: the traffic was steady, or that took too long"
    )
    requests_sent: int = Field(description="that were to be sent within the window")
    requests_completed: int = Field(description="whose last token came within the window")
    requests_failed: int = Field(description="of those sent")
    failures: dict[str, int] = Field(description="of the whole run, by kind")
    requests_resent: int = Field(description="on a new connection, the old one being closed")
    offered_requests_per_s: float = Field(description="sent over the window's length")
    completed_requests_per_s: float = Field(description="completed over the window's length")
    time_to_first_token: Latency
    inter_token_latency: Latency = Field(description="between arrivals of an answer, pooled")
    time_per_output_token: Latency = Field(description="mean of an answer's after its first")
    request_latency: Latency = Field(description="to the last token")
    tokens_per_part: float | None = Field(
        description="output tokens that came at once, mean; parts less than 0.1 ms apart did"
    )
    answers_empty: int | None = Field(default=None, description="whole answers without a token")
    answers_other_length: int | None = Field(
        default=None, description="whole answers of other than the tokens asked for"
    )
    answers_at_once: int | None = Field(
        default=None, description="whole answers of several tokens that came all at once"
    )
    slo: dict[str, Any] | None = Field(default=None, description="the limits in force")
    slo_share: float | None = Field(
        default=None, description="of the requests sent, failed ones included, that kept them all"
    )
    slo_attained: bool | None = Field(
        default=None, description="whether that is the percentile asked for"
    )
    goodput_requests_per_s: float | None = Field(default=None, description="that kept the limits")
    energy_per_good_request_j: float | None = Field(
        default=None, description="energy of the window over the requests that kept the limits"
    )
    in_flight_mean: float = Field(description="requests under way")
    in_flight_max: int = Field(description="most of them at once")
    in_flight_growth_per_s: float | None = Field(
        description="from the window's first quarter to its last; null in a closed loop"
    )
    over_saturated: bool | None = Field(
        description="requests pile up: they come faster than they are answered"
    )
    waiting_mean: float | None = Field(
        default=None, description="requests in the server's own queue, by its account"
    )
    waiting_max: float | None = Field(default=None, description="most of them at once")
    idle_power_w: float | None = Field(
        default=None, description="of the loaded server before any traffic"
    )
    send_lateness_p50_s: float | None = Field(
        description="of sending after the planned time, median"
    )
    send_lateness_p99_s: float | None = Field(description="99th percentile")
    send_lateness_max_s: float | None = Field(description="largest")
    client_cpu_share: float = Field(description="of one core that the client took in the window")
    input_tokens_checked: int = Field(description="requests whose prompt was counted here too")
    input_tokens_differ: int = Field(description="of those, the server counted otherwise")
    timeline: list[dict[str, float | int | None]] = Field(
        description="stretches of the window: load, queue, power and latency over time"
    )


_LATENCIES = (
    "time_to_first_token",
    "inter_token_latency",
    "time_per_output_token",
    "request_latency",
)
_IN_EVERY_RUN = ("time_to_first_token_p50_s", "request_latency_p50_s", "request_latency_p95_s")
"""Columns that runs without traffic have too."""

_PLAIN = (
    "offered_requests_per_s",
    "goodput_requests_per_s",
    "slo_share",
    "energy_per_good_request_j",
    "in_flight_mean",
    "waiting_mean",
    "idle_power_w",
    "send_lateness_p99_s",
    "client_cpu_share",
)

TRAFFIC_REALS = tuple(
    name
    for name in (
        *(f"{latency}_{share}" for latency in _LATENCIES for share in Latency.model_fields),
        *_PLAIN,
    )
    if name not in _IN_EVERY_RUN
)
"""The columns of numbers that traffic adds to a run's row."""


def traffic_columns(serving: Serving | None) -> dict[str, Any]:
    """Return the columns that traffic adds to a run's row; none without traffic."""
    if serving is None:
        return {}
    percentiles = {
        f"{latency}_{share}": value
        for latency in _LATENCIES
        for share, value in getattr(serving, latency).model_dump().items()
    }
    names = (*_PLAIN, "requests_failed", "slo_attained", "over_saturated")
    return {
        **{name: percentiles[name] for name in TRAFFIC_REALS if name in percentiles},
        **{name: getattr(serving, name) for name in names},
    }
