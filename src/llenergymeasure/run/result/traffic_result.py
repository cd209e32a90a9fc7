"""From the requests of a run under traffic to its result: who counts, who failed, what it cost.

The window's energy belongs to what happened within the window: tokens that came and requests that
ended in it, wherever they began. Latencies belong to requests that were to be sent within it,
whenever they ended, so that a slow answer is never left out for being slow.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import ONE_USER, ServingConfig, SloConfig
from llenergymeasure.config.spec import RunSpec
from llenergymeasure.energy.account import Account
from llenergymeasure.energy.footprint import Declared, footprint
from llenergymeasure.parquet import read_parquet
from llenergymeasure.plan.fairness import fewest_tokens
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.record import Energy, Tokens
from llenergymeasure.results.serving import Latency, Serving
from llenergymeasure.run.result.gaps import gap_energy
from llenergymeasure.run.result.offered_load import (
    InFlight,
    growth_per_s,
    over_saturation,
    within,
)
from llenergymeasure.run.result.thinking_energy import with_thinking
from llenergymeasure.run.result.traffic_requests import arrivals
from llenergymeasure.units import J_PER_WH, NS_PER_S

FAILED_SHARE_MAX = 0.01
"""Share of failed requests past which a run is disqualified."""

LATENESS_P99_MAX_S = 0.005
"""Lateness of sending past which the client is said to be too slow for the rate."""

ODD_SHARE_MAX = 0.01
"""Share of the prompts or answers that may be odd, in each way."""

ODD = {
    "token_mismatch": "prompts are counted otherwise by the model's tokenizer",
    "cached_prompts": "prompts were in the server's prefix cache, beyond what the traffic shares",
    "length_mismatch": "answers had other than the tokens asked for",
    "undercounted_answers": "answers came in more parts than tokens were counted",
    "empty_answers": "answers had no token",
    "buffered_stream": "answers of several tokens came all at once",
    "thinking_mismatch": "answers show other than the thought that the server counted",
}
"""Codes of odd prompts and answers, and what is odd of so many."""

CACHED_SHARE_MAX = 0.1
"""Share of a prompt that a prefix cache may know beyond what the traffic shares."""

MOST_STRETCHES = 120
PERCENTILES = (50, 90, 95, 99)

Span = tuple[int, int]


@dataclass(frozen=True)
class ServedRun:
    """What a run under traffic left.

    Attributes:
        requests: every request, ``in_window`` and ``slo_met`` filled in.
        config: the experiment.
        window: start and end in CLOCK_MONOTONIC ns.
        told: what the engine's process says in addition: ramp-up, gauges, the client's CPU time.
    """

    requests: pa.Table
    config: ExperimentConfig
    window: Span
    told: Mapping[str, Any]

    @classmethod
    def of(
        cls, sent: pa.Table, config: ExperimentConfig, window: Span, told: Mapping[str, Any]
    ) -> "ServedRun":
        """Return the run with every request judged."""
        planned = sent["planned_monotonic_ns"].to_numpy()
        inside = (planned >= window[0]) & (planned < window[1])
        table = _with(sent, "in_window", pa.array(inside))
        table = _with(table, "slo_met", _met(table, config.slo))
        return cls(table, config, window, told)

    @property
    def serving(self) -> ServingConfig:
        """The traffic."""
        return self.config.serving or ONE_USER

    @property
    def window_s(self) -> float:
        """The window's length."""
        return (self.window[1] - self.window[0]) / NS_PER_S

    def tokens(self, prompt_hash: str) -> Tokens:
        """Return what went in and came out within the window.

        A prompt counts when its first token comes. An answer's tokens are spread evenly over the
        parts in which it came; a part counts when it comes.
        """
        good = [row for row in self._rows if row["failure"] is None]
        first = [row for row in good if self._inside(row["first_token_monotonic_ns"])]
        done = [row for row in good if self._inside(row["end_monotonic_ns"])]
        lengths = [row["output_tokens"] for row in done]
        output = thinking = 0.0
        for row in good:
            parts = np.asarray(row["token_monotonic_ns"], dtype=np.int64)
            if len(parts):
                share = np.mean((parts >= self.window[0]) & (parts < self.window[1]))
                output += float(share) * row["output_tokens"]
                # Thought comes first.
                thought = row.get("thinking_tokens") or 0
                first_parts = parts[: round(len(parts) * thought / (row["output_tokens"] or 1))]
                if thought and len(first_parts):
                    inside = (first_parts >= self.window[0]) & (first_parts < self.window[1])
                    thinking += float(np.mean(inside)) * thought
        cached = [row["input_tokens_cached"] for row in first if _told_of_cache(row)]
        return Tokens(
            input=sum(row["input_tokens"] or 0 for row in first),
            input_cached=sum(cached) if cached else None,
            output=round(output),
            thinking=round(thinking) or None,
            requests=len(done),
            prompt_hash=prompt_hash,
            output_sd=spread(lengths),
        )

    def performance(self, tokens: Tokens) -> dict[str, Any]:
        """Return the speed within the window, as the record names it."""
        latency, first = self.latency("latency_s"), self.latency("time_to_first_token_s")
        return {
            "output_tokens_per_s": tokens.output / self.window_s,
            "total_tokens_per_s": (tokens.input + tokens.output) / self.window_s,
            "requests_per_s": tokens.requests / self.window_s,
            "request_latency_p50_s": latency.p50_s,
            "request_latency_p95_s": latency.p95_s,
            "time_to_first_token_p50_s": first.p50_s,
        }

    def energy(
        self, record: Energy, tokens: Tokens, carbon: Mapping[str, Any] | None = None
    ) -> Energy:
        """Return the record's part on energy, per token and request of this window.

        Args:
            record: the part with the window's energy.
            tokens: what went in and came out.
            carbon: what the study declares of the place; None where it declares nothing.
        """
        per_request = _per(record.gross_j, tokens.requests)
        counted = record.model_copy(
            update={
                "per_output_token_j": _per(record.gross_j, tokens.output),
                "per_input_token_j": _per(record.gross_j, tokens.input),
                "per_request_j": per_request,
                "per_1000_requests_wh": None
                if per_request is None
                else per_request * 1000 / J_PER_WH,
            }
        )
        counted = with_thinking(counted, tokens.output, tokens.thinking)
        if not carbon:
            return counted
        return counted.model_copy(update={"footprint": footprint(counted, Declared(**carbon))})

    def record(self, energy: Energy, account: Account) -> Serving:
        """Return the record's part on serving.

        Args:
            energy: the record's part on energy.
            account: the energy of any stretch.
        """
        sent = self._sent
        failed = [row for row in sent if row["failure"] is not None]
        good = [row for row in sent if row["failure"] is None]
        kept = [row for row in good if row["slo_met"]]
        slo = self.config.slo
        share = len(kept) / len(sent) if sent and slo is not None else None
        flight = self._in_flight
        lateness = self._lateness_s
        checked = self._odd["token_mismatch"]
        completed = self.tokens("").requests
        waiting = self._gauge("waiting")
        return Serving(
            arrivals=self.serving.arrivals,
            endpoint=self.serving.endpoint,
            ramp_up=self.told["ramp_up"],
            requests_sent=len(sent),
            requests_completed=completed,
            requests_failed=len(failed),
            failures=dict(Counter(row["failure"] for row in self._rows if row["failure"])),
            requests_resent=sum(bool(row["resent"]) for row in self._rows),
            offered_requests_per_s=len(sent) / self.window_s,
            completed_requests_per_s=completed / self.window_s,
            time_to_first_token=self.latency("time_to_first_token_s"),
            inter_token_latency=self.inter_token_latency(),
            time_per_output_token=self.latency("time_per_output_token_s"),
            request_latency=self.latency("latency_s"),
            tokens_per_part=_tokens_per_part(good),
            answers_empty=sum(self._odd["empty_answers"]),
            answers_other_length=sum(self._odd["length_mismatch"]),
            answers_at_once=sum(self._odd["buffered_stream"]),
            slo=None if slo is None else slo.model_dump(exclude_none=True),
            slo_share=share,
            slo_attained=None
            if slo is None or share is None
            else share * 100 >= slo.percentile - 1e-9,
            goodput_requests_per_s=None if slo is None else len(kept) / self.window_s,
            energy_per_good_request_j=None if slo is None else _per(energy.gross_j, len(kept)),
            in_flight_mean=flight.mean(*self.window),
            in_flight_max=flight.largest(*self.window),
            in_flight_growth_per_s=self._growth(flight),
            over_saturated=self._over_saturated(flight),
            waiting_mean=float(np.mean(waiting)) if waiting else None,
            waiting_max=max(waiting, default=None),
            idle_power_w=_idle_power_w(energy),
            send_lateness_p50_s=_percentile(lateness, 50),
            send_lateness_p99_s=_percentile(lateness, 99),
            send_lateness_max_s=_percentile(lateness, 100),
            client_cpu_share=self.told["client_cpu_s"] / self.window_s,
            input_tokens_checked=len(checked),
            input_tokens_differ=sum(checked),
            gaps=gap_energy(self._rows, flight, self.window, account, self.serving.turns or 1),
            timeline=self._timeline(flight, account),
        )

    def validity(self) -> dict[str, str]:
        """Return reasons to doubt the run that come of its traffic: code to explanation."""
        found = {}
        sent = self._sent
        failed = [row for row in sent if row["failure"] is not None]
        if sent and len(failed) > FAILED_SHARE_MAX * len(sent):
            first = failed[0]
            found["failed_requests"] = (
                f"{len(failed)} of {len(sent)} requests failed, more than {FAILED_SHARE_MAX:.0%}; "
                f"the first: {first['failure']}: {first['failure_message']}"
            )
        late = _percentile(self._lateness_s, 99)
        if late is not None and late > LATENESS_P99_MAX_S and self.serving.open_loop:
            found["late_sends"] = (
                f"1 % of the requests were sent more than {late * 1e3:.1f} ms after their time; "
                f"the client keeps up where it is at most {LATENESS_P99_MAX_S * 1e3:g} ms"
            )
        for code, odd in self._odd.items():
            if sum(odd) > ODD_SHARE_MAX * len(odd):
                found[code] = f"{sum(odd)} of {len(odd)} {ODD[code]}"
        idle = self.serving.rate_per_s == 0 and self.serving.arrivals != "ramp"
        if not sent and not self.tokens("").output and not idle:
            found["no_requests"] = "no request was to be sent within the window, and none answered"
        gauges = [values for _, values in self.told["gauges"]]
        foreign = max((values.get("foreign_requests", 0) for values in gauges), default=0)
        if foreign:
            found["foreign_requests"] = (
                f"the server counts {foreign:.0f} requests more than the run has sent"
            )
        flight = self._in_flight
        if self._over_saturated(flight):
            found["over_saturated"] = (
                f"requests pile up by {self._growth(flight):.2f} a second: they come faster than "
                "they are answered"
            )
        elif self.told["ramp_up"] == "gave up":
            found["not_steady"] = "the window opened before the traffic was steady"
        elif self.serving.arrivals == "ramp":
            found["not_steady"] = "the load was to change within the window"
        return found

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.requests.to_pylist()
        return rows

    @cached_property
    def _sent(self) -> list[dict[str, Any]]:
        return [row for row in self._rows if row["in_window"]]

    @property
    def _lateness_s(self) -> NDArray[np.float64]:
        return np.array([row["lateness_s"] for row in self._sent if row["lateness_s"] is not None])

    def _inside(self, at_ns: int | None) -> bool:
        return at_ns is not None and self.window[0] <= at_ns < self.window[1]

    def latency(self, column: str) -> Latency:
        """Return the percentiles of a column of times in s, over the window's whole answers."""
        values = [row[column] for row in self._sent if row["failure"] is None]
        return percentiles(np.array([value for value in values if value is not None]))

    def inter_token_latency(self) -> Latency:
        """Return the percentiles of the times between arrivals of an answer, pooled."""
        gaps = [
            np.diff(arrivals(row["token_monotonic_ns"])) / NS_PER_S
            for row in self._sent
            if row["failure"] is None
        ]
        return percentiles(np.concatenate([np.zeros(0), *gaps]))

    @cached_property
    def _odd(self) -> dict[str, list[bool]]:
        """Return, for each way to be odd, which of the traffic's prompts or whole answers are."""
        config = self.config.model_dump(exclude_none=True)
        found: dict[str, list[bool]] = {code: [] for code in ODD}
        for row in self._rows:
            if row["failure"] is not None:
                continue
            tokens, asked = row["output_tokens"], row["output_tokens_asked"]
            parts, expected = row["token_monotonic_ns"], row["input_tokens_expected"]
            found["empty_answers"].append(tokens == 0)
            found["length_mismatch"].append(tokens < fewest_tokens(config, asked))
            found["undercounted_answers"].append(tokens < len(parts))
            if tokens > 1:
                found["buffered_stream"].append(len(arrivals(parts)) == 1)
            if _told_of_cache(row) and not self.serving.cached_prompts:
                beyond = row["input_tokens_cached"] - row["input_tokens_shared"]
                found["cached_prompts"].append(beyond > CACHED_SHARE_MAX * row["input_tokens"])
            if row.get("thinking_differs") is not None:
                found["thinking_mismatch"].append(row["thinking_differs"])
            if expected is not None:
                found["token_mismatch"].append(row["input_tokens"] != expected)
        return found

    def _gauge(self, name: str) -> list[float]:
        return [
            values[name]
            for at_ns, values in self.told["gauges"]
            if self._inside(at_ns) and name in values
        ]

    @cached_property
    def _in_flight(self) -> InFlight:
        starts = self.requests["planned_monotonic_ns"].to_numpy()
        ends = self.requests["end_monotonic_ns"].fill_null(2**62).to_numpy()
        return InFlight.of(starts, ends)

    def _growth(self, flight: InFlight) -> float | None:
        return growth_per_s(flight, self.window) if self.serving.open_loop else None

    def _over_saturated(self, flight: InFlight) -> bool | None:
        if not self.serving.open_loop:
            return None
        return over_saturation(flight, self.window, sent=len(self._sent))

    def _timeline(self, flight: InFlight, account: Account) -> list[dict[str, float | int | None]]:
        start_ns, end_ns = self.window
        count = max(1, min(MOST_STRETCHES, int(self.window_s)))
        edges = np.linspace(start_ns, end_ns, count + 1).astype(np.int64)
        sent, rows = self._sent, []
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            seconds = (high - low) / NS_PER_S
            planned = [row for row in sent if low <= row["planned_monotonic_ns"] < high]
            first = [row["time_to_first_token_s"] for row in planned if row["failure"] is None]
            first = [value for value in first if value is not None]
            drawn = account.stretch(low, high)
            rows.append(
                {
                    "start_s": (low - start_ns) / NS_PER_S,
                    "duration_s": seconds,
                    "offered_requests_per_s": len(planned) / seconds,
                    "in_flight": flight.mean(low, high),
                    "waiting": _mean_gauge(self.told["gauges"], "waiting", low, high),
                    "power_w": None if drawn is None else drawn.gross_j / seconds,
                    "time_to_first_token_p50_s": float(np.median(first)) if first else None,
                }
            )
        return rows


def served_run(folder: RunFolder, spec: RunSpec, done: Mapping[str, Any]) -> ServedRun | None:
    """Return what a run under traffic left in its folder; None for a run without."""
    told = done.get("serving")
    if told is None:
        return None
    window = (done["window"]["start_ns"], done["window"]["end_ns"])
    config = ExperimentConfig.model_validate(spec.config)
    return ServedRun.of(read_parquet(folder.traffic), config, window, told)


def percentiles(values_s: NDArray[np.float64]) -> Latency:
    """Return the percentiles of values in s; None without any."""
    return Latency(**{f"p{share}_s": _percentile(values_s, share) for share in PERCENTILES})


def _percentile(values: NDArray[np.float64], share: float) -> float | None:
    return float(np.percentile(values, share)) if len(values) else None


def _met(table: pa.Table, slo: SloConfig | None) -> pa.Array:
    """Return whether each request kept every limit; None where there are none."""
    if slo is None:
        return pa.nulls(table.num_rows, pa.bool_())
    limits = {
        "time_to_first_token_s": slo.ttft_ms,
        "time_per_output_token_s": slo.tpot_ms,
        "latency_s": slo.e2e_ms,
    }
    met = np.array([failure is None for failure in table["failure"].to_pylist()], dtype=bool)
    one_token = np.array([count == 1 for count in table["output_tokens"].to_pylist()], dtype=bool)
    for column, limit_ms in limits.items():
        if limit_ms is not None:
            # What is not known is not kept. But an answer of one token has no further one.
            kept = table[column].fill_null(np.inf).to_numpy() <= limit_ms / 1e3
            met &= kept | one_token if column == "time_per_output_token_s" else kept
    return pa.array(met)


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)


def spread(lengths: Sequence[int]) -> float | None:
    """Return the standard deviation of answers' lengths; None below two answers."""
    return statistics.stdev(lengths) if len(lengths) > 1 else None


def _told_of_cache(row: Mapping[str, Any]) -> bool:
    return row.get("input_tokens_cached") is not None  # records of 0.1 have no such column


def _tokens_per_part(rows: Sequence[Mapping[str, Any]]) -> float | None:
    parts = sum(len(arrivals(row["token_monotonic_ns"])) for row in rows)
    return sum(row["output_tokens"] for row in rows) / parts if parts else None


def _idle_power_w(energy: Energy) -> float | None:
    """Return the power of the loaded server before its traffic, where that was measured."""
    for phase in energy.phases:
        if phase.phase == "idle_loaded" and phase.energy_j is not None and phase.duration_s > 0:
            return phase.energy_j / phase.duration_s
    return None


def _mean_gauge(
    gauges: Sequence[tuple[int, Mapping[str, float]]], name: str, low: int, high: int
) -> float | None:
    values = [each[name] for at_ns, each in gauges if within(at_ns, low, high) and name in each]
    return float(np.mean(values)) if values else None


def _per(energy_j: float | None, count: float) -> float | None:
    return energy_j / count if energy_j is not None and count else None
