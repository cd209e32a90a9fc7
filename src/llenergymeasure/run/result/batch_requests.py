"""The requests of a window of batches as a table, one row each, and their totals."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from llenergymeasure.energy.batches import Batch
from llenergymeasure.results.record import Tokens
from llenergymeasure.units import NS_PER_S

REQUEST_ENERGY_FIELDS = [
    ("request_energy_j", pa.float64()),
    ("request_energy_u95_j", pa.float64()),
    ("request_energy_unavailable", pa.string()),
]
ENERGY_FIELDS = [
    ("batch_energy_j", pa.float64()),
    ("batch_energy_u95_j", pa.float64()),
    ("batch_energy_unavailable", pa.string()),
    *REQUEST_ENERGY_FIELDS,
]
"""Columns with the energy of each request's batch, and of the request itself."""

REQUEST_SCHEMA = pa.schema(
    [
        ("request", pa.int64()),
        ("prompt", pa.int64()),
        ("batch", pa.int64()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("thinking_tokens", pa.int64()),
        ("start_monotonic_ns", pa.int64()),
        ("first_token_monotonic_ns", pa.int64()),
        ("end_monotonic_ns", pa.int64()),
        ("latency_s", pa.float64()),
        ("time_to_first_token_s", pa.float64()),
        ("finish_reason", pa.string()),
        ("step_monotonic_ns", pa.list_(pa.int64())),
        *ENERGY_FIELDS,
    ]
)


def request_table(window: Mapping[str, Any]) -> pa.Table:
    """Return one row a request of the window, in the order they were made."""
    rows = []
    completions = zip(window["completions"], window["batch_of_request"], strict=True)
    for number, (completion, batch) in enumerate(completions):
        start_ns = completion["start_monotonic_ns"]
        first_ns = completion["first_token_monotonic_ns"]
        rows.append(
            {
                "request": number,
                "prompt": completion["index"],
                "batch": batch,
                "latency_s": (completion["end_monotonic_ns"] - start_ns) / NS_PER_S,
                "time_to_first_token_s": None
                if first_ns is None
                else (first_ns - start_ns) / NS_PER_S,
                **{name: completion[name] for name in REQUEST_SCHEMA.names if name in completion},
            }
        )
    return pa.Table.from_pylist(rows, schema=REQUEST_SCHEMA)


def batch_tokens(requests: pa.Table, prompt_hash: str) -> Tokens:
    """Return what went in and came out: of the table, which holds the window's requests alone."""
    lengths = requests["output_tokens"].to_pylist()
    # Tables of earlier versions have no such column.
    has_thinking = "thinking_tokens" in requests.column_names
    thinking = requests["thinking_tokens"].to_pylist() if has_thinking else []
    return Tokens(
        input=sum(requests["input_tokens"].to_pylist()),
        output=sum(lengths),
        thinking=sum(count or 0 for count in thinking) or None,
        requests=requests.num_rows,
        prompt_hash=prompt_hash,
        output_sd=length_sd(lengths),
    )


def length_sd(lengths: Sequence[int]) -> float | None:
    """Return the standard deviation of answers' lengths; None below two answers."""
    return statistics.stdev(lengths) if len(lengths) > 1 else None


def group_batches(requests: pa.Table) -> list[Batch]:
    """Return the window's batches by number from its requests; none of traffic's."""
    if "batch" not in requests.column_names:
        return []
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in requests.to_pylist():
        rows.setdefault(row["batch"], []).append(row)
    return [_batch(rows[number]) for number in sorted(rows)]


def _batch(rows: Sequence[Mapping[str, Any]]) -> Batch:
    first_tokens_ns = [row["first_token_monotonic_ns"] for row in rows]
    all_known = None not in first_tokens_ns
    ends_ns = [row["end_monotonic_ns"] for row in rows]
    return Batch(
        start_ns=min(row["start_monotonic_ns"] for row in rows),
        end_ns=max(ends_ns),
        first_token_ns=(min(first_tokens_ns), max(first_tokens_ns)) if all_known else None,
        input_tokens=sum(row["input_tokens"] for row in rows),
        output_tokens=sum(row["output_tokens"] for row in rows),
        requests=len(rows),
        thinking_tokens=sum(row.get("thinking_tokens") or 0 for row in rows),
        lengths=tuple((row["input_tokens"], row["output_tokens"]) for row in rows),
        steps_ns=tuple(rows[0].get("step_monotonic_ns") or ()),
        first_end_ns=min(ends_ns),
    )
