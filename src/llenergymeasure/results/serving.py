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


class Gaps(Record):
    """The part of the window in which no request was under way, and what it drew."""

    duration_s: float = Field(description="time of the window in which no request was under way")
    energy_j: float | None = Field(
        default=None, description="gross energy of that time, part of the window's"
    )
    u95_j: float | None = Field(default=None, description="half width of its 95 % interval")
    waiting_duration_s: float = Field(
        description="of that time, while a conversation was between two of its turns: its cache "
        "waits, and nothing is computed"
    )
    waiting_energy_j: float | None = Field(
        default=None,
        description="gross energy of the gaps in which a conversation was between two of its turns",
    )
    waiting_u95_j: float | None = Field(default=None, description="half width of its 95 % interval")
    waiting_conversations_mean: float | None = Field(
        default=None, description="mean number of conversations that wait in those gaps"
    )
    pause_mean_s: float | None = Field(
        default=None,
        description="mean time from an answer to its conversation's next turn, of the whole run; "
        "those that its end cut are allowed for",
    )
    unavailable: str | None = Field(default=None, description="why energies are null")


class Serving(Record):
    """One run under traffic."""

    arrivals: str = Field(description="when requests came, as in the study")
    endpoint: str = Field(description="completions or chat")
    ramp_up: Literal["steady", "gave up", "not needed"] = Field(
        description="why the window opened: the traffic was steady, or that took too long"
    )
    requests_sent: int = Field(description="requests that were to be sent within the window")
    requests_completed: int = Field(description="whole answers that ended within the window")
    requests_failed: int = Field(description="requests of the window that failed")
    failures: dict[str, int] = Field(description="failed requests of the whole run, by kind")
    requests_resent: int = Field(
        description="sent again on a new connection, as the server had just closed the old one"
    )
    offered_requests_per_s: float = Field(
        description="requests that were to be sent within the window, over its length; null "
        "without traffic"
    )
    completed_requests_per_s: float = Field(
        description="requests that ended in the window over its length; performance.requests_per_s "
        "is of the work on them instead"
    )
    time_to_first_token: Latency = Field(description="time to the first token, under traffic")
    inter_token_latency: Latency = Field(
        description="time between two arrivals of an answer's output, under traffic"
    )
    time_per_output_token: Latency = Field(
        description="mean time of an answer's tokens after its first, under traffic"
    )
    request_latency: Latency = Field(
        description="time from a request's planned sending to its last token, under traffic"
    )
    tokens_per_part: float | None = Field(
        description="output tokens that came at once, mean; parts less than 0.1 ms apart did"
    )
    answers_empty: int | None = Field(
        default=None, description="whole answers of the run without a token"
    )
    answers_other_length: int | None = Field(
        default=None, description="whole answers of the run with other than the tokens asked for"
    )
    answers_at_once: int | None = Field(
        default=None,
        description="whole answers of the run, of several tokens, that came all at once",
    )
    slo: dict[str, Any] | None = Field(default=None, description="the limits in force")
    slo_share: float | None = Field(
        default=None, description="share of the requests that kept every limit; failed ones did not"
    )
    slo_attained: bool | None = Field(
        default=None,
        description="whether as many requests kept the limits as the slo's percentile asks",
    )
    goodput_requests_per_s: float | None = Field(
        default=None, description="those that kept every limit of the slo, over the window's length"
    )
    energy_per_good_request_j: float | None = Field(
        default=None,
        description="gross energy over the work on requests that kept every limit, those counted "
        "as tokens.requests_worked",
    )
    in_flight_mean: float = Field(
        description="mean number of requests under way during the window, from when each was to be "
        "sent to its end"
    )
    in_flight_max: int = Field(description="most of them at once")
    in_flight_growth_per_s: float | None = Field(
        description="by how many a second the requests under way grow from the window's first "
        "quarter to its last; null in a closed loop"
    )
    over_saturated: bool | None = Field(
        description="whether requests came faster than they were answered; null where users "
        "wait for their answers"
    )
    waiting_mean: float | None = Field(
        default=None,
        description="mean number of requests in the server's own queue, by its account",
    )
    waiting_max: float | None = Field(default=None, description="most of them at once")
    idle_power_w: float | None = Field(
        default=None, description="power of the loaded server before its traffic"
    )
    send_lateness_p50_s: float | None = Field(
        description="median of how long after its planned time a request was sent"
    )
    send_lateness_p99_s: float | None = Field(
        description="99th percentile of how long after its planned time a request was sent"
    )
    send_lateness_max_s: float | None = Field(description="the largest of these")
    client_cpu_share: float = Field(description="share of one core that the client took")
    client_held_share: float | None = Field(
        default=None,
        description="share of its users' time in which the client read and made requests, and "
        "kept them from asking; null in an open loop",
    )
    input_tokens_checked: int = Field(
        description="requests of the run whose prompt was counted here too"
    )
    input_tokens_differ: int = Field(description="of those, the server counted otherwise")
    gaps: Gaps | None = Field(default=None, description="null in records of before there was one")
    timeline: list[dict[str, float | int | None]] = Field(
        description="stretches of the window: load, queue, power and latency over time"
    )
