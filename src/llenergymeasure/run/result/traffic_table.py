"""The requests of a run under traffic as a table: one row each, the failed ones too."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llenergymeasure.energy.request_energy import STEPS_UNKNOWN
from llenergymeasure.redact import without_secrets_in
from llenergymeasure.run.result.batch_requests import REQUEST_ENERGY_FIELDS
from llenergymeasure.units import NS_PER_S

if TYPE_CHECKING:  # what finishes a run reads the table alone, and a run waits for its imports
    from llenergymeasure.backends.serving.engine import ServedEngine
    from llenergymeasure.run.engine.traffic import SentRequest

TRAFFIC_SCHEMA = pa.schema(
    [
        ("request", pa.int64()),
        ("prompt", pa.int64()),
        ("conversation", pa.int64()),
        ("turn", pa.int64()),
        ("turns", pa.int64()),
        ("input_tokens", pa.int64()),
        ("input_tokens_expected", pa.int64()),
        ("input_tokens_cached", pa.int64()),
        ("input_tokens_shared", pa.int64()),
        ("output_tokens", pa.int64()),
        ("output_tokens_asked", pa.int64()),
        ("thinking_tokens", pa.int64()),
        ("thinking_differs", pa.bool_()),
        ("planned_monotonic_ns", pa.int64()),
        ("start_monotonic_ns", pa.int64()),
        ("first_token_monotonic_ns", pa.int64()),
        ("last_token_monotonic_ns", pa.int64()),
        ("end_monotonic_ns", pa.int64()),
        ("lateness_s", pa.float64()),
        ("held_s", pa.float64()),
        ("time_to_first_token_s", pa.float64()),
        ("time_per_output_token_s", pa.float64()),
        ("latency_s", pa.float64()),
        ("token_monotonic_ns", pa.list_(pa.field("element", pa.int64()))),
        ("finish_reason", pa.string()),
        ("failure", pa.string()),
        ("failure_message", pa.string()),
        ("resent", pa.bool_()),
        ("in_window", pa.bool_()),
        ("slo_met", pa.bool_()),
        *REQUEST_ENERGY_FIELDS,
    ]
)
"""``in_window`` and ``slo_met`` are filled in when the run is finished."""

ARRIVAL_NS = 100_000
"""Parts closer together than this arrived at once: no engine makes 10,000 tokens per second for
one answer, so a buffer wrote them together."""

CHECKED_REQUESTS = 200
"""The most prompts counted with the tokenizer, where they were sent as text."""


def traffic_table(sent: "Sequence[SentRequest]", engine: "ServedEngine") -> pa.Table:
    """Return one row a request, in the order of sending.

    Latencies count from the planned time, as in MLPerf's server scenario: a late client then adds
    to the latency and cannot hide the server's delay.
    """
    rows = []
    for number, request in enumerate(sent):
        exchange = request.exchange
        first_ns = exchange.first_ns
        last_ns = exchange.token_ns[-1] if exchange.token_ns else None
        succeeded = exchange.failure is None
        visible_tokens = (exchange.output_tokens or 0) - exchange.hidden_tokens
        is_streamed = len(arrivals(exchange.token_ns)) > 1
        rows.append(
            {
                "request": number,
                "prompt": exchange.index,
                "conversation": request.turn.conversation,
                "turn": request.turn.turn,
                "turns": request.turn.turns,
                "input_tokens": exchange.input_tokens,
                "input_tokens_expected": _expected_tokens(engine, request, number),
                "input_tokens_cached": exchange.cached_tokens,
                "input_tokens_shared": _shared_tokens(request),
                "output_tokens": exchange.output_tokens,
                "output_tokens_asked": exchange.max_tokens,
                "thinking_tokens": exchange.thinking_tokens,
                "thinking_differs": exchange.thinking_differs,
                "planned_monotonic_ns": exchange.planned_ns,
                "start_monotonic_ns": exchange.sent_ns or None,
                "first_token_monotonic_ns": first_ns,
                "last_token_monotonic_ns": last_ns,
                "end_monotonic_ns": exchange.end_ns or None,
                "lateness_s": exchange.lateness_s,
                "held_s": exchange.held_s,
                "time_to_first_token_s": _since(exchange.planned_ns, first_ns),
                "time_per_output_token_s": (last_ns - first_ns) / NS_PER_S / (visible_tokens - 1)
                if succeeded and is_streamed and first_ns and last_ns and visible_tokens > 1
                else None,
                "latency_s": _since(exchange.planned_ns, last_ns or exchange.end_ns)
                if succeeded
                else None,
                "token_monotonic_ns": np.frombuffer(exchange.token_ns, dtype=np.int64),
                "finish_reason": exchange.finish_reason,
                "failure": exchange.failure or (None if exchange.end_ns else "timed_out"),
                "failure_message": exchange.message,
                "resent": exchange.resent,
                "request_energy_unavailable": STEPS_UNKNOWN,
            }
        )
    return pa.Table.from_pylist(without_secrets_in(rows), schema=TRAFFIC_SCHEMA)


def arrivals(token_ns: Sequence[int]) -> NDArray[np.int64]:
    """Return the times at which output arrived; parts that came at once are one arrival."""
    times = np.asarray(token_ns, dtype=np.int64)
    return times[np.diff(times, prepend=-ARRIVAL_NS) >= ARRIVAL_NS]


def _expected_tokens(engine: "ServedEngine", request: "SentRequest", number: int) -> int | None:
    if engine.sends_token_ids or number < CHECKED_REQUESTS:
        return engine.expected_input_tokens(request.turn.request)
    return None


def _shared_tokens(request: "SentRequest") -> int:
    """Return how much of a prompt the traffic shares, with what a chat's template adds to it."""
    turn = request.turn
    template_tokens = (request.exchange.input_tokens or 0) - len(turn.request.prompt_token_ids)
    return turn.shared_tokens + max(0, template_tokens)


def _since(planned_ns: int, at_ns: int | None) -> float | None:
    return None if at_ns is None else (at_ns - planned_ns) / NS_PER_S
