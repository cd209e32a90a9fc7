"""A run as one flat row: the columns of ``run.parquet`` and ``runs.parquet``.

The fixed columns are in :data:`RUN_SCHEMA`; the swept settings follow, each under its dotted
key. Not observed is null. ``validity`` is a list of codes here and ``;``-joined text in CSV.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llenergymeasure.ids import canonical_json
from llenergymeasure.results.effective_settings import settings_in_force
from llenergymeasure.results.notes import notes_of
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.record import Clocks, Result
from llenergymeasure.results.serving import Latency, Serving
from llenergymeasure.units import MISSING

_TEXT = pa.string()
_WHOLE = pa.int64()
_REAL = pa.float64()
_CODES = pa.list_(pa.field("element", pa.string()))  # as Parquet names it: no cast on reading
_TYPES = {str: _TEXT, int: _WHOLE, float: _REAL, bool: pa.bool_(), list: _CODES}

SETTING_COLUMNS = ("backend", "model", "precision", "runner")
"""Fixed columns that are settings: part of an experiment's label where they differ."""

_LATENCIES = [name for name, each in Serving.model_fields.items() if each.annotation is Latency]
_IN_EVERY_RUN = ("time_to_first_token_p50_s", "request_latency_p50_s", "request_latency_p95_s")
"""Percentiles that runs without traffic have too: they stand with the record's performance."""

COLUMNS: dict[str, str | pa.DataType] = {
    "experiment": "experiment",
    "cycle": "cycle",
    "order": "order",
    "status": _TEXT,
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
    "energy_decode_per_output_token_j": "energy.split.decode_per_output_token_j",
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
    "energy_method": _WHOLE,
    "energy_unavailable": "energy.unavailable",
    "input_tokens": "tokens.input",
    "input_tokens_cached": "tokens.input_cached",
    "output_tokens": "tokens.output",
    "output_tokens_came": "tokens.output_came",
    "thinking_tokens": "tokens.thinking",
    "requests": "tokens.requests",
    "requests_worked": "tokens.requests_worked",
    "output_tokens_per_request": _REAL,
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
    "model": _TEXT,
    "precision": _TEXT,
    "gpu_name": _TEXT,
    "gpu_uuid": _TEXT,
    "driver_version": _TEXT,
    "power_limit_w": _REAL,
    "engine_version": _TEXT,
    "settings_in_force": _TEXT,
    "llenergymeasure_version": _TEXT,
    "host": _TEXT,
    "slurm_job_id": _TEXT,
    "slurm_partition": _TEXT,
    "start_temperature_celsius": _REAL,
    "started_monotonic_ns": _WHOLE,
    "started_at": _TEXT,
    "phase": _TEXT,
    "error_class": _TEXT,
    "error_message": _TEXT,
    "attempt": _WHOLE,
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
        model = _kind(model.model_fields[parent].annotation)
    return model.model_fields[name]


def column_type(annotation: Any) -> pa.DataType:
    """Return the type of a column whose values have a Python type, or are null."""
    return _TYPES[_kind(annotation)]


def _kind(annotation: Any) -> Any:
    """Return the class of an annotation's values, None apart."""
    origin = get_origin(annotation)
    if origin is Literal:
        return str
    if origin is list or isinstance(annotation, type):
        return origin or annotation
    (kind,) = (part for part in get_args(annotation) if part is not NoneType)
    return _kind(kind)


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


def run_row(result: Result, swept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat row of a finished run.

    Args:
        result: the run's record.
        swept: the swept settings by dotted key; those that are fixed columns already
            (``precision``, ``model``, …) are not repeated.
    """
    tokens = result.tokens
    parts = {part: _part(result, part) for part in _PARTS}
    account = _mapping(result.environment.get("engine")).get("resolved_config")
    in_force = settings_in_force(swept, result.backend, account)
    row: dict[str, Any] = {
        **{name: _field(parts[part], field) for name, (part, field) in _SOURCES.items()},
        "status": result.status,
        "energy_scopes": sorted(set(result.energy.scopes)),
        "output_tokens_per_request": tokens.output_mean
        or (tokens.output / tokens.requests if tokens.requests else None),
        "notes": notes_of(result.provenance),
        "settings_in_force": canonical_json(in_force) if in_force else None,
        "model": _text(result.config.get("model")),
        "precision": _text(result.config.get("precision")),
        **_surroundings(result),
        "started_monotonic_ns": min(
            (phase.start_monotonic_ns for phase in result.phases),
            default=result.window.start_monotonic_ns,
        ),
    }
    return _completed_row(row, swept)


def failed_row(
    planned: Mapping[str, Any],
    outcome: Outcome | None,
    swept: Mapping[str, Any],
    *,
    study: str | None = None,
    study_design_hash: str | None = None,
) -> dict[str, Any]:
    """Return the flat row of a planned run without a result, which ended so or never began."""
    config = planned.get("config") or {}
    row: dict[str, Any] = {
        "experiment": planned["experiment"],
        "cycle": planned["cycle"],
        "order": planned["order"],
        "status": MISSING,
        "backend": planned.get("backend"),
        "runner": planned.get("runner"),
        "model": _text(config.get("model")),
        "precision": _text(config.get("precision")),
        "study": study,
        "study_design_hash": study_design_hash,
    }
    if outcome is not None:
        row["status"] = outcome.status
        row["phase"] = outcome.phase
        row["attempt"] = outcome.attempt
        row |= _place(outcome.host, outcome.job)
        row["started_at"] = outcome.started_at
        if outcome.error is not None:
            row["error_class"] = outcome.error.class_
            row["error_message"] = outcome.error.message
    return _completed_row(row, swept)


def setting_columns(keys: Iterable[str]) -> dict[str, str]:
    """Return the column of every swept key that is no fixed column already.

    A key that would take the name of another quantity stands as ``setting.<key>``.
    """
    return {
        key: f"setting.{key}" if key in _NAMES else key
        for key in dict.fromkeys(keys)
        if key not in SETTING_COLUMNS
    }


def setting_array(values: Sequence[Any]) -> pa.Array:
    """Return one setting's values as a column: booleans, numbers and text keep their type.

    Lists, mappings and mixtures of types become text: the value itself where it is text,
    canonical JSON otherwise.
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pa.array(values, pa.bool_() if kinds else _TEXT)
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pa.array(values, _WHOLE)
    if kinds in ({float}, {int, float}):
        return pa.array([None if value is None else float(value) for value in values], _REAL)
    return pa.array([_text(value) for value in values], _TEXT)


def rows_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table: the fixed columns, then the settings found in any row.

    A column that a row lacks is null in it.
    """
    fixed = pa.Table.from_pylist(list(rows), schema=RUN_SCHEMA)
    settings = dict.fromkeys(name for row in rows for name in row if name not in _NAMES)
    for name in settings:
        fixed = fixed.append_column(name, setting_array([row.get(name) for row in rows]))
    return fixed


def _completed_row(row: dict[str, Any], swept: Mapping[str, Any]) -> dict[str, Any]:
    full = {name: _finite(row.get(name)) for name in RUN_SCHEMA.names}
    for key, name in setting_columns(swept).items():
        value = swept[key]
        full[name] = value if isinstance(value, bool | int | float | str) else _text(value)
    return full


def _part(record: Any, path: str) -> Any:
    """Return the part at a dotted path of the record; None where it is absent."""
    for name in filter(None, path.split(".")):
        record = _field(record, name)
    return record


def _field(part: Any, name: str) -> Any:
    return None if part is None else getattr(part, name)


def _surroundings(result: Result) -> dict[str, Any]:
    """Return what the row says of machine and software, from the record's free parts."""
    environment, provenance = result.environment, result.provenance
    recording = _mapping(provenance.get("recording"))
    gpus = [_mapping(gpu) for gpu in environment.get("gpus") or []]
    versions = _mapping(_mapping(environment.get("engine")).get("versions"))
    return {
        "gpu_name": _joined(gpu.get("name") for gpu in gpus),
        "gpu_uuid": _joined(gpu.get("uuid") for gpu in gpus),
        "driver_version": _joined(gpu.get("driver") for gpu in gpus),
        "power_limit_w": _highest(gpus, "power_limit_w"),
        "engine_version": _joined(f"{name} {version}" for name, version in versions.items()),
        "llenergymeasure_version": _text(provenance.get("llenergymeasure_version")),
        **_place(_text(environment.get("host")), _mapping(environment.get("job"))),
        "start_temperature_celsius": _highest(gpus, "start_temperature_celsius"),
        "started_at": _text(recording.get("started_at")),
        "attempt": provenance.get("attempt"),
        "energy_method": provenance.get("energy_method"),
    }


def _place(host: str | None, job: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return where a run was: the machine by the scheduler's name for it, if it has one."""
    told = job or {}
    in_slurm = told.get("scheduler") == "slurm"
    return {
        "host": told.get("node") or host,
        "slurm_job_id": _text(told.get("id")) if in_slurm else None,
        "slurm_partition": _text(told.get("partition")) if in_slurm else None,
    }


def _highest(gpus: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [gpu.get(name) for gpu in gpus]
    return max((float(value) for value in values if isinstance(value, int | float)), default=None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _joined(values: Iterable[str | None]) -> str | None:
    """Return the distinct texts in order, comma-separated; None if there is none."""
    return ", ".join(dict.fromkeys(value for value in values if value)) or None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return canonical_json(value)
    except (TypeError, ValueError):
        return json.dumps(value, default=str)


def _finite(value: Any) -> Any:
    """Return None for a number that is not one: a record must not carry NaN as a value."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


_SOURCES = {
    name: source.rpartition(".")[::2] for name, source in COLUMNS.items() if isinstance(source, str)
}
_PARTS = frozenset(part for part, _ in _SOURCES.values())
"""Where in the record a column is: the part and its field; each part is looked up once a row."""

_NAMES = frozenset(RUN_SCHEMA.names)
