"""The result of a run under traffic from its requests: which count, which failed, their cost.

The window's energy belongs to what was worked within the window: tokens and requests count by the
share of their request's work in it. Latencies belong to requests that were to be sent within it,
whenever they ended, so that a slow answer is never left out for being slow.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.requested_work import fewest_tokens
from llenergymeasure.config.serving import ONE_USER, ServingConfig, SloConfig
from llenergymeasure.energy.account import Account
from llenergymeasure.results.energy import Energy
from llenergymeasure.results.record import Tokens
from llenergymeasure.results.serving import Latency, Serving
from llenergymeasure.run.result.batch_requests import length_sd
from llenergymeasure.run.result.between_requests import gap_energy
from llenergymeasure.run.result.offered_load import InFlight, growth_per_s, is_over_saturated
from llenergymeasure.run.result.traffic_table import arrivals
from llenergymeasure.units import NS_PER_S

CACHED_SHARE_MAX = 0.1
"""Share of a prompt that a prefix cache may know beyond what the traffic shares."""

MAX_STRETCHES = 120
QUICK_PERCENT = 2
PERCENTILES = (50, 90, 95, 99)

Span = tuple[int, int]


@dataclass(frozen=True)
class ServedRun:
    """The requests of a run under traffic, evaluated.

    Attributes:
        requests: every request, ``in_window`` and ``slo_met`` filled in.
        config: the experiment.
        window: start and end in CLOCK_MONOTONIC ns.
        report: further values from the engine's process: ramp-up, gauges, the client's CPU time.
    """

    requests: pa.Table
    config: ExperimentConfig
    window: Span
    report: Mapping[str, Any]

    @classmethod
    def from_requests(
        cls, sent: pa.Table, config: ExperimentConfig, window: Span, report: Mapping[str, Any]
    ) -> "ServedRun":
        """Return the run with every request judged."""
        planned = sent["planned_monotonic_ns"].to_numpy()
        inside = (planned >= window[0]) & (planned < window[1])
        table = _replace_column(sent, "in_window", pa.array(inside))
        table = _replace_column(table, "slo_met", _slo_met(table, config.slo))
        return cls(table, config, window, report)

    @property
    def serving(self) -> ServingConfig:
        """The traffic."""
        return self.config.serving or ONE_USER

    @property
    def window_s(self) -> float:
        """The window's length."""
        return (self.window[1] - self.window[0]) / NS_PER_S

    def tokens(self, prompt_hash: str) -> Tokens:
        """Return what went in and came out, by the share of each request's work in the window.

        If answers arrive whole, or late because of long prompts, counting tokens as they arrive
        would count those that happen to end in the window, not the work done in it.
        """
        answered = self._answered
        received = sum(map(self._received_tokens, answered))
        progress = np.array([self._progress(row) for row in answered]).reshape(-1, 2)
        worked_requests = float((progress[:, 1] - progress[:, 0]).sum())
        progress *= received > 0
        inside = progress[:, 1] - progress[:, 0]
        output = _column(answered, "output_tokens")
        thinking_share = (_column(answered, "thinking_tokens") / np.maximum(output, 1))[:, None]
        # Thinking comes first.
        thinking = np.diff(np.minimum(progress, thinking_share))[:, 0] @ output
        # Tables of version 0.1 have no such column.
        counts_cached = any(row.get("input_tokens_cached") is not None for row in answered)
        cached = round(inside @ _column(answered, "input_tokens_cached"))
        lengths = [row["output_tokens"] for row in self._completed_in_window]
        return Tokens(
            input=round(inside @ _column(answered, "input_tokens")),
            input_cached=cached if counts_cached else None,
            output=round(inside @ output),
            output_came=round(received),
            thinking=round(thinking) or None,
            requests=len(self._completed_in_window),
            prompt_hash=prompt_hash,
            output_sd=length_sd(lengths),
            output_mean=float(np.mean(lengths)) if lengths else None,
            requests_worked=worked_requests,
        )

    def _received_tokens(self, row: Mapping[str, Any]) -> float:
        """Return how many of an answer's tokens arrived in the window, spread over its parts."""
        parts = np.asarray(row["token_monotonic_ns"], dtype=np.int64)
        inside = (parts >= self.window[0]) & (parts < self.window[1])
        return float(inside.mean()) * int(row["output_tokens"]) if len(inside) else 0.0

    def performance(self, tokens: Tokens) -> dict[str, Any]:
        """Return the speed within the window, as the record names it."""
        latency, first = self.latency("latency_s"), self.latency("time_to_first_token_s")
        return {
            "output_tokens_per_s": tokens.output / self.window_s,
            "total_tokens_per_s": (tokens.input + tokens.output) / self.window_s,
            "requests_per_s": tokens.work / self.window_s,
            "request_latency_p50_s": latency.p50_s,
            "request_latency_p95_s": latency.p95_s,
            "time_to_first_token_p50_s": first.p50_s,
        }

    def record(self, energy: Energy, account: Account) -> Serving:
        """Return the record's part on serving."""
        sent = self.sent
        failed = [row for row in sent if row["failure"] is not None]
        succeeded = [row for row in sent if row["failure"] is None]
        within_slo = [row for row in succeeded if row["slo_met"]]
        slo = self.config.slo
        share = len(within_slo) / len(sent) if sent and slo is not None else None
        flight = self.in_flight
        lateness = self.lateness_s
        prompt_mismatches = self.odd_requests["token_mismatch"]
        completed = len(self._completed_in_window)
        waiting = self._waiting(*self.window)
        good_work = sum(float(np.ptp(self._progress(row))) for row in self._rows if row["slo_met"])
        return Serving(
            arrivals=self.serving.arrivals,
            endpoint=self.serving.endpoint,
            ramp_up=self.report["ramp_up"],
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
            tokens_per_part=_tokens_per_part(succeeded),
            answers_empty=sum(self.odd_requests["empty_answers"]),
            answers_other_length=sum(self.odd_requests["length_mismatch"]),
            answers_at_once=sum(self.odd_requests["buffered_stream"]),
            slo=None if slo is None else slo.model_dump(exclude_none=True),
            slo_share=share,
            slo_attained=None
            if slo is None or share is None
            else share * 100 >= slo.percentile - 1e-9,
            goodput_requests_per_s=None if slo is None else len(within_slo) / self.window_s,
            energy_per_good_request_j=energy.gross_j / good_work
            if energy.gross_j is not None and good_work
            else None,
            in_flight_mean=flight.mean(*self.window),
            in_flight_max=flight.largest(*self.window),
            in_flight_growth_per_s=self.growth_per_s,
            over_saturated=self.over_saturated,
            waiting_mean=float(np.mean(waiting)) if waiting else None,
            waiting_max=max(waiting, default=None),
            idle_power_w=_idle_power_w(energy),
            send_lateness_p50_s=_percentile(lateness, 50),
            send_lateness_p99_s=_percentile(lateness, 99),
            send_lateness_max_s=_percentile(lateness, 100),
            client_cpu_share=self.report["client_cpu_s"] / self.window_s,
            client_held_share=self.held_share,
            input_tokens_checked=len(prompt_mismatches),
            input_tokens_differ=sum(prompt_mismatches),
            gaps=gap_energy(self._rows, flight, self.window, account, self.serving.turns or 1),
            timeline=self._timeline(account),
        )

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.requests.to_pylist()
        return rows

    @cached_property
    def _answered(self) -> list[dict[str, Any]]:
        """The requests with a complete answer."""
        return [row for row in self._rows if row["failure"] is None]

    @cached_property
    def _completed_in_window(self) -> list[dict[str, Any]]:
        """The complete answers that ended within the window."""
        return [row for row in self._answered if self._inside(row["end_monotonic_ns"])]

    @cached_property
    def sent(self) -> list[dict[str, Any]]:
        """The requests that were to be sent within the window."""
        return [row for row in self._rows if row["in_window"]]

    @property
    def lateness_s(self) -> NDArray[np.float64]:
        """How late each of them was sent."""
        return np.array([row["lateness_s"] for row in self.sent if row["lateness_s"] is not None])

    @property
    def held_share(self) -> float | None:
        """The share of its users' time in which the client kept them; None in an open loop.

        None too of traffic that an earlier version sent, which did not look.
        """
        if self.serving.open_loop or "held_s" not in self.requests.column_names:
            return None
        held_s: float = _column(self.sent, "held_s").sum()
        return held_s / ((self.serving.concurrency or 1) * self.window_s)

    @cached_property
    def _quick_ns(self) -> float:
        """The time to a first token beyond which a request has waited for others.

        A low percentile, so that a few prompts from a cache do not set it.
        """
        waits_ns = [
            (row["first_token_monotonic_ns"] or row["end_monotonic_ns"])
            - row["planned_monotonic_ns"]
            for row in self._answered
        ]
        if not waits_ns or not self.serving.open_loop:
            return np.inf
        return float(np.percentile(waits_ns, QUICK_PERCENT, method="higher"))

    def _progress(self, row: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return which share of a whole answer's work was done at the window's start and end.

        Up to its first token a request's work is spread over time, after it over its parts, which
        arrive faster when fewer requests are served together. Waiting for other requests is not
        work; it grows without limit when requests arrive faster than they are answered.
        """
        planned, end = row["planned_monotonic_ns"], row["end_monotonic_ns"]
        first = row["first_token_monotonic_ns"] or end
        start = max(planned, first - self._quick_ns)
        parts = np.asarray(row["token_monotonic_ns"], dtype=np.int64)
        times_ns = np.concatenate(([start, first], parts[parts > first]))
        before = (first - start) / max(1, times_ns[-1] - start)
        progress = np.concatenate(([0.0], np.linspace(before, 1.0, len(times_ns) - 1)))
        return np.interp(self.window, times_ns, progress)

    def _inside(self, at_ns: int | None) -> bool:
        return at_ns is not None and self.window[0] <= at_ns < self.window[1]

    def latency(self, column: str) -> Latency:
        """Return the percentiles of a column of times in s, over the window's whole answers."""
        values = [row[column] for row in self.sent if row["failure"] is None]
        return percentiles(np.array([value for value in values if value is not None]))

    def inter_token_latency(self) -> Latency:
        """Return the percentiles of the times between arrivals of an answer, pooled."""
        gaps = [
            np.diff(arrivals(row["token_monotonic_ns"])) / NS_PER_S
            for row in self.sent
            if row["failure"] is None
        ]
        return percentiles(np.concatenate([np.zeros(0), *gaps]))

    @cached_property
    def odd_requests(self) -> Mapping[str, list[bool]]:
        """For each code of odd prompts or answers, which requests have it."""
        config = self.config.model_dump(exclude_none=True)
        odd: dict[str, list[bool]] = defaultdict(list)
        for row in self._answered:
            tokens, requested = row["output_tokens"], row["output_tokens_asked"]
            parts, expected = row["token_monotonic_ns"], row["input_tokens_expected"]
            odd["empty_answers"].append(tokens == 0)
            odd["length_mismatch"].append(tokens < fewest_tokens(config, requested))
            odd["undercounted_answers"].append(tokens < len(parts))
            if tokens > 1:
                odd["buffered_stream"].append(len(arrivals(parts)) == 1)
            cached = row.get("input_tokens_cached")
            if cached is not None and not self.serving.cached_prompts:
                excess_tokens = cached - row["input_tokens_shared"]
                odd["cached_prompts"].append(excess_tokens > CACHED_SHARE_MAX * row["input_tokens"])
            if row.get("thinking_differs") is not None:
                odd["thinking_mismatch"].append(row["thinking_differs"])
            if expected is not None:
                odd["token_mismatch"].append(row["input_tokens"] != expected)
        return odd

    def _waiting(self, start_ns: int, end_ns: int) -> list[float]:
        """Return the numbers of waiting requests that the server reported within a stretch."""
        return [
            values["waiting"]
            for at_ns, values in self.report["gauges"]
            if start_ns <= at_ns < end_ns and "waiting" in values
        ]

    @cached_property
    def in_flight(self) -> InFlight:
        """The requests under way."""
        starts = self.requests["planned_monotonic_ns"].to_numpy()
        ends = self.requests["end_monotonic_ns"].fill_null(2**62).to_numpy()
        return InFlight.from_intervals(starts, ends)

    @property
    def growth_per_s(self) -> float | None:
        """Growth of the requests under way per second; None in a closed loop."""
        return growth_per_s(self.in_flight, self.window) if self.serving.open_loop else None

    @property
    def over_saturated(self) -> bool | None:
        """Whether requests come faster than they are answered; None in a closed loop."""
        if not self.serving.open_loop:
            return None
        return is_over_saturated(self.in_flight, self.window, sent=len(self.sent))

    def _timeline(self, account: Account) -> list[dict[str, float | int | None]]:
        start_ns, end_ns = self.window
        count = max(1, min(MAX_STRETCHES, int(self.window_s)))
        edges = np.linspace(start_ns, end_ns, count + 1).astype(np.int64)
        sent, rows = self.sent, []
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            seconds = (high - low) / NS_PER_S
            planned = [row for row in sent if low <= row["planned_monotonic_ns"] < high]
            first = [row["time_to_first_token_s"] for row in planned if row["failure"] is None]
            first = [value for value in first if value is not None]
            stretch, waiting = account.stretch(low, high), self._waiting(low, high)
            rows.append(
                {
                    "start_s": (low - start_ns) / NS_PER_S,
                    "duration_s": seconds,
                    "offered_requests_per_s": len(planned) / seconds,
                    "in_flight": self.in_flight.mean(low, high),
                    "waiting": float(np.mean(waiting)) if waiting else None,
                    "power_w": None if stretch is None else stretch.gross_j / seconds,
                    "time_to_first_token_p50_s": float(np.median(first)) if first else None,
                }
            )
        return rows


def percentiles(values_s: NDArray[np.float64]) -> Latency:
    """Return the percentiles of values in s; None without any."""
    return Latency(**{f"p{share}_s": _percentile(values_s, share) for share in PERCENTILES})


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([row.get(name) or 0 for row in rows], dtype=np.float64)


def _percentile(values: NDArray[np.float64], share: float) -> float | None:
    return float(np.percentile(values, share)) if len(values) else None


def _slo_met(table: pa.Table, slo: SloConfig | None) -> pa.Array:
    """Return whether each request kept every limit; None where there are none."""
    if slo is None:
        return pa.nulls(table.num_rows, pa.bool_())
    limits = {
        "time_to_first_token_s": slo.ttft_ms,
        "time_per_output_token_s": slo.tpot_ms,
        "latency_s": slo.e2e_ms,
    }
    is_met = np.array([failure is None for failure in table["failure"].to_pylist()], dtype=bool)
    one_token = np.array([count == 1 for count in table["output_tokens"].to_pylist()], dtype=bool)
    for column, limit_ms in limits.items():
        if limit_ms is not None:
            # An unknown value does not meet its limit. But an answer of one token has no time per
            # token.
            within = table[column].fill_null(np.inf).to_numpy() <= limit_ms / 1e3
            is_met &= within | one_token if column == "time_per_output_token_s" else within
    return pa.array(is_met)


def _replace_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    position = table.schema.get_field_index(name)
    return table.set_column(position, table.schema.field(position), values)


def _tokens_per_part(rows: Sequence[Mapping[str, Any]]) -> float | None:
    parts = sum(len(arrivals(row["token_monotonic_ns"])) for row in rows)
    return sum(row["output_tokens"] for row in rows) / parts if parts else None


def _idle_power_w(energy: Energy) -> float | None:
    """Return the power of the loaded server before its traffic, where that was measured."""
    for phase in energy.phases:
        if phase.phase == "idle_loaded" and phase.energy_j is not None and phase.duration_s > 0:
            return phase.energy_j / phase.duration_s
    return None
