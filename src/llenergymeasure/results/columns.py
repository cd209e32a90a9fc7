"""The columns of ``run.parquet`` and ``runs.parquet``, each declared once.

The fixed columns are in :data:`RUN_SCHEMA`; the swept settings follow, each under its dotted
key. Not observed is null. ``validity`` is a list of codes here and ``;``-joined text in CSV.
"""

from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llenergymeasure.results.record import Clocks, Result
from llenergymeasure.results.serving import Latency, Serving

ANALYSIS_VERSION = b"5"
"""Version of what is worked out of runs, which tables name; those of before it name none."""

TEXT = pa.string()
WHOLE = pa.int64()
REAL = pa.float64()
_CODES = pa.list_(pa.field("element", pa.string()))  # as Parquet names it: no cast on reading
_TYPES = {str: TEXT, int: WHOLE, float: REAL, bool: pa.bool_(), list: _CODES}

SETTING_COLUMNS = ("backend", "model", "precision", "runner")
"""Fixed columns that are settings: part of an experiment's label where they differ."""

_LATENCIES = [name for name, field in Serving.model_fields.items() if field.annotation is Latency]
_IN_EVERY_RUN = ("time_to_first_token_p50_s", "request_latency_p50_s", "request_latency_p95_s")
"""Percentiles that runs without traffic have too: they stand with the record's performance."""

COLUMNS: dict[str, str | pa.DataType] = {
    "experiment": "experiment",
    "cycle": "cycle",
    "order": "order",
    "status": TEXT,
    "backend": "backend",
    "kind": "energy.kind",
    "energy_gross_j": "energy.gross_j",
    "energy_net_j": "energy.net_j",
    "energy_u95_j": "energy.u95_j",
    "energy_net_u95_j": "energy.net_u95_j",
    "energy_shared_u95_j": "energy.shared_u95_j",
    "energy_bound_j": "energy.bound_j",
    "energy_u_sys_j": "energy.u_sys_j",
    "energy_node_j": "energy.node.gross_j",
    "energy_node_u95_j": "energy.node.gross_u95_j",
    "energy_node_ratio": "energy.node.ratio",
    "energy_node_ratio_low": "energy.node.ratio_low",
    "energy_node_ratio_high": "energy.node.ratio_high",
    "energy_per_output_token_j": "energy.per_output_token_j",
    "energy_per_input_token_j": "energy.per_input_token_j",
    "energy_per_request_j": "energy.per_request_j",
    "energy_per_1000_requests_wh": "energy.per_1000_requests_wh",
    "energy_prefill_per_input_token_j": "energy.split.prefill_per_input_token_j",
    "energy_prefill_u95_j": "energy.split.prefill_u95_j",
    "energy_decode_per_output_token_j": "energy.split.decode_per_output_token_j",
    "energy_decode_u95_j": "energy.split.decode_u95_j",
    "energy_split_method": "energy.split.method",
    "energy_thinking_j": "energy.thinking.thinking_j",
    "energy_thinking_u95_j": "energy.thinking.thinking_u95_j",
    "energy_answer_j": "energy.thinking.answer_j",
    "energy_answer_u95_j": "energy.thinking.answer_u95_j",
    "energy_thinking_method": "energy.thinking.method",
    "carbon_per_1000_requests_gco2e": "energy.footprint.carbon_per_1000_requests_gco2e",
    "cost_per_1000_requests": "energy.footprint.cost_per_1000_requests",
    "cost_currency": "energy.footprint.currency",
    "power_mean_w": "energy.power_mean_w",
    "energy_source": "energy.source",
    "energy_scopes": "energy.scopes",
    "energy_method": WHOLE,
    "energy_unavailable": "energy.unavailable",
    "input_tokens": "tokens.input",
    "input_tokens_cached": "tokens.input_cached",
    "output_tokens": "tokens.output",
    "output_tokens_came": "tokens.output_came",
    "thinking_tokens": "tokens.thinking",
    "requests": "tokens.requests",
    "requests_worked": "tokens.requests_worked",
    "output_tokens_per_request": REAL,
    "output_tokens_sd": "tokens.output_sd",
    "batches": "batches",
    "prompt_hash": "tokens.prompt_hash",
    "output_tokens_per_s": "performance.output_tokens_per_s",
    "total_tokens_per_s": "performance.total_tokens_per_s",
    "requests_per_s": "performance.requests_per_s",
    "batch_latency_mean_s": "performance.batch_latency_mean_s",
    "request_latency_p50_s": "performance.request_latency_p50_s",
    "request_latency_p95_s": "performance.request_latency_p95_s",
    "time_to_first_token_p50_s": "performance.time_to_first_token_p50_s",
    **{
        f"{latency}_{share}": f"serving.{latency}.{share}"
        for latency in _LATENCIES
        for share in Latency.model_fields
        if f"{latency}_{share}" not in _IN_EVERY_RUN
    },
    "offered_requests_per_s": "serving.offered_requests_per_s",
    "goodput_requests_per_s": "serving.goodput_requests_per_s",
    "slo_share": "serving.slo_share",
    "energy_per_good_request_j": "serving.energy_per_good_request_j",
    "in_flight_mean": "serving.in_flight_mean",
    "waiting_mean": "serving.waiting_mean",
    "idle_power_w": "serving.idle_power_w",
    "gaps_duration_s": "serving.gaps.duration_s",
    "gaps_energy_j": "serving.gaps.energy_j",
    "gaps_u95_j": "serving.gaps.u95_j",
    "gaps_waiting_energy_j": "serving.gaps.waiting_energy_j",
    "send_lateness_p99_s": "serving.send_lateness_p99_s",
    "client_cpu_share": "serving.client_cpu_share",
    "requests_failed": "serving.requests_failed",
    "slo_attained": "serving.slo_attained",
    "over_saturated": "serving.over_saturated",
    "perplexity": "quality.perplexity",
    "quality_score": "quality.score",
    "quality_correct": "quality.correct",
    "quality_items": "quality.items",
    "quality_texts_sha256": "quality.texts_sha256",
    "quality_tasks": "quality.tasks",
    "quality_command": "quality.command",
    "peak_memory_bytes": "performance.peak_memory_bytes",
    "memory_scope": "performance.memory_scope",
    "weights_bytes": "performance.weights_bytes",
    "kv_cache_bytes": "performance.kv_cache_bytes",
    "kv_cache_share_mean": "performance.kv_cache_share_mean",
    "kv_cache_share_max": "performance.kv_cache_share_max",
    "gpu_utilization_percent": "performance.gpu_utilization_percent",
    "memory_utilization_percent": "performance.memory_utilization_percent",
    "device_memory_used_max_bytes": "performance.device_memory_used_max_bytes",
    **{name: f"clocks.{name}" for name in Clocks.model_fields},
    "flops_per_output_token": "flops.per_output_token",
    "flops_prefill_per_request": "flops.prefill_per_request",
    "flops_decode_per_request": "flops.decode_per_request",
    "energy_per_tflop_j": "flops.energy_per_tflop_j",
    "mfu": "flops.mfu",
    "flops_method": "flops.method",
    "flops_confidence": "flops.confidence",
    "window_s": "window.duration_s",
    "validity": "validity",
    "notes": _CODES,
    "runner": "runner",
    "model": TEXT,
    "precision": TEXT,
    "gpu_name": TEXT,
    "gpu_uuid": TEXT,
    "driver_version": TEXT,
    "power_limit_w": REAL,
    "engine_version": TEXT,
    "model_commit": TEXT,
    "settings_in_force": TEXT,
    "llenergymeasure_version": TEXT,
    "host": TEXT,
    "slurm_job_id": TEXT,
    "slurm_partition": TEXT,
    "start_temperature_celsius": REAL,
    "started_monotonic_ns": WHOLE,
    "started_at": TEXT,
    "phase": TEXT,
    "error_class": TEXT,
    "error_message": TEXT,
    "attempt": WHOLE,
    "study": "study",
    "study_design_hash": "study_design_hash",
}
"""Every fixed column: the field of the record that it is, or its type where it is worked out here.

A field gives the column its type, its value and its meaning.
"""


def record_field(path: str) -> FieldInfo:
    """Return the field of the record at a dotted path."""
    model: type[BaseModel] = Result
    *parents, name = path.split(".")
    for parent in parents:
        model = _value_class(model.model_fields[parent].annotation)
    return model.model_fields[name]


def column_type(annotation: Any) -> pa.DataType:
    """Return the type of a column whose values have a Python type, or are null."""
    return _TYPES[_value_class(annotation)]


def _value_class(annotation: Any) -> Any:
    """Return the class of an annotation's values, None apart."""
    origin = get_origin(annotation)
    if origin is Literal:
        return str
    if origin is list or isinstance(annotation, type):
        return origin or annotation
    (kind,) = (part for part in get_args(annotation) if part is not NoneType)
    return _value_class(kind)


RUN_SCHEMA = pa.schema(
    [
        (
            name,
            column_type(record_field(source).annotation) if isinstance(source, str) else source,
        )
        for name, source in COLUMNS.items()
    ],
    metadata={"llenergymeasure.table_version": "1"},
)
