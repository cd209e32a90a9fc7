"""A run as one flat row: the columns of ``run.parquet`` and ``runs.parquet``.

The fixed columns stand in :data:`RUN_SCHEMA`; the swept settings follow, each under its dotted
key. Not observed is null. ``validity`` is a list of codes here and ``;``-joined text in CSV.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from llenergymeasure.ids import canonical_json
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.record import Energy, Result, TokenSplit
from llenergymeasure.results.serving import TRAFFIC_REALS, traffic_columns
from llenergymeasure.units import MISSING

TABLE_VERSION = 1

_TEXT = pa.string()
_WHOLE = pa.int64()
_REAL = pa.float64()
_CODES = pa.list_(pa.field("element", pa.string()))  # as Parquet names it: no cast on reading

RUN_SCHEMA = pa.schema(
    [
        ("experiment", _TEXT),
        ("cycle", _WHOLE),
        ("order", _WHOLE),
        ("status", _TEXT),
        ("backend", _TEXT),
        ("kind", _TEXT),
        ("energy_gross_j", _REAL),
        ("energy_net_j", _REAL),
        ("energy_u95_j", _REAL),
        ("energy_net_u95_j", _REAL),
        ("energy_shared_u95_j", _REAL),
        ("energy_bound_j", _REAL),
        ("energy_u_sys_j", _REAL),
        ("energy_per_output_token_j", _REAL),
        ("energy_per_input_token_j", _REAL),
        ("energy_per_request_j", _REAL),
        ("energy_per_1000_requests_wh", _REAL),
        ("energy_prefill_per_input_token_j", _REAL),
        ("energy_decode_per_output_token_j", _REAL),
        ("energy_split_method", _TEXT),
        ("carbon_per_1000_requests_gco2e", _REAL),
        ("cost_per_1000_requests", _REAL),
        ("cost_currency", _TEXT),
        ("power_mean_w", _REAL),
        ("energy_source", _TEXT),
        ("energy_scopes", _CODES),
        ("energy_unavailable", _TEXT),
        ("input_tokens", _WHOLE),
        ("output_tokens", _WHOLE),
        ("requests", _WHOLE),
        ("output_tokens_per_request", _REAL),
        ("output_tokens_sd", _REAL),
        ("batches", _WHOLE),
        ("prompt_hash", _TEXT),
        ("output_tokens_per_s", _REAL),
        ("total_tokens_per_s", _REAL),
        ("requests_per_s", _REAL),
        ("batch_latency_mean_s", _REAL),
        ("request_latency_p50_s", _REAL),
        ("request_latency_p95_s", _REAL),
        ("time_to_first_token_p50_s", _REAL),
        *((name, _REAL) for name in TRAFFIC_REALS),
        ("requests_failed", _WHOLE),
        ("slo_attained", pa.bool_()),
        ("over_saturated", pa.bool_()),
        ("perplexity", _REAL),
        ("quality_score", _REAL),
        ("peak_memory_bytes", _WHOLE),
        ("memory_scope", _TEXT),
        ("weights_bytes", _WHOLE),
        ("kv_cache_bytes", _WHOLE),
        ("kv_cache_share_mean", _REAL),
        ("kv_cache_share_max", _REAL),
        ("gpu_utilization_percent", _REAL),
        ("memory_utilization_percent", _REAL),
        ("device_memory_used_max_bytes", _WHOLE),
        ("flops_per_output_token", _REAL),
        ("flops_prefill_per_request", _REAL),
        ("flops_decode_per_request", _REAL),
        ("energy_per_tflop_j", _REAL),
        ("mfu", _REAL),
        ("flops_method", _TEXT),
        ("flops_confidence", _TEXT),
        ("window_s", _REAL),
        ("validity", _CODES),
        ("runner", _TEXT),
        ("model", _TEXT),
        ("precision", _TEXT),
        ("gpu_name", _TEXT),
        ("gpu_uuid", _TEXT),
        ("driver_version", _TEXT),
        ("power_limit_w", _REAL),
        ("engine_version", _TEXT),
        ("llenergymeasure_version", _TEXT),
        ("host", _TEXT),
        ("slurm_job_id", _TEXT),
        ("slurm_partition", _TEXT),
        ("start_temperature_celsius", _REAL),
        ("started_monotonic_ns", _WHOLE),
        ("started_at", _TEXT),
        ("phase", _TEXT),
        ("error_class", _TEXT),
        ("error_message", _TEXT),
        ("attempt", _WHOLE),
        ("study", _TEXT),
        ("study_design_hash", _TEXT),
    ],
    metadata={"llenergymeasure.table_version": str(TABLE_VERSION)},
)


def run_row(result: Result, swept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat row of a finished run.

    Args:
        result: the run's record.
        swept: the swept settings by dotted key; those that are fixed columns already
            (``precision``, ``model``, …) are not repeated.
    """
    energy, tokens, speed = result.energy, result.tokens, result.performance
    row: dict[str, Any] = {
        "experiment": result.experiment,
        "cycle": result.cycle,
        "order": result.order,
        "status": result.status,
        "backend": result.backend,
        "kind": energy.kind,
        "energy_gross_j": energy.gross_j,
        "energy_net_j": energy.net_j,
        "energy_u95_j": energy.u95_j,
        "energy_net_u95_j": energy.net_u95_j,
        "energy_shared_u95_j": energy.shared_u95_j,
        "energy_bound_j": energy.bound_j,
        "energy_u_sys_j": energy.u_sys_j,
        "energy_per_output_token_j": energy.per_output_token_j,
        "energy_per_input_token_j": energy.per_input_token_j,
        "energy_per_request_j": energy.per_request_j,
        "energy_per_1000_requests_wh": energy.per_1000_requests_wh,
        **_apart(energy),
        "perplexity": result.quality and result.quality.perplexity,
        "quality_score": result.quality and result.quality.score,
        "power_mean_w": energy.power_mean_w,
        "energy_source": energy.source,
        "energy_scopes": sorted(set(energy.scopes)),
        "energy_unavailable": energy.unavailable,
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "requests": tokens.requests,
        "output_tokens_per_request": tokens.output / tokens.requests if tokens.requests else None,
        "output_tokens_sd": tokens.output_sd,
        "batches": result.batches,
        "prompt_hash": tokens.prompt_hash,
        **{name: value for name, value in speed.model_dump().items() if name in _NAMES},
        **traffic_columns(result.serving),
        "flops_per_output_token": result.flops.per_output_token,
        "flops_prefill_per_request": result.flops.prefill_per_request,
        "flops_decode_per_request": result.flops.decode_per_request,
        "energy_per_tflop_j": result.flops.energy_per_tflop_j,
        "mfu": result.flops.mfu,
        "flops_method": result.flops.method,
        "flops_confidence": result.flops.confidence,
        "window_s": result.window.duration_s,
        "validity": list(result.validity),
        "runner": result.runner,
        "model": _text(result.config.get("model")),
        "precision": _text(result.config.get("precision")),
        **_surroundings(result),
        "started_monotonic_ns": min(
            (phase.start_monotonic_ns for phase in result.phases),
            default=result.window.start_monotonic_ns,
        ),
        "study": result.study,
        "study_design_hash": result.study_design_hash,
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
    """Return the flat row of a planned run without a result.

    Args:
        planned: the run's entry in the plan.
        outcome: how its latest attempt ended; None if it was never started.
        swept: the swept settings by dotted key.
        study: the study's name.
        study_design_hash: the hash of the study's design.
    """
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


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """Return the setting under a dotted key, or None where it is not set."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def setting_columns(keys: Iterable[str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return the column of every swept key that is no fixed column already.

    A key that would take the name of another quantity (``n``, say, in the summary) stands as
    ``setting.<key>``.
    """
    taken = set(reserved)
    return {
        key: f"setting.{key}" if key in taken or (key in _NAMES and key not in _SETTINGS) else key
        for key in dict.fromkeys(keys)
        if key not in _SETTINGS
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


def row_schema(row: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of one row: the fixed columns and its settings."""
    settings = [name for name in row if name not in _NAMES]
    schema = RUN_SCHEMA
    for name in settings:
        schema = schema.append(pa.field(name, setting_array([row[name]]).type))
    return schema


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
        full[name] = value if value is None or isinstance(value, _CELLS) else _text(value)
    return full


def _apart(energy: Energy) -> dict[str, Any]:
    """Return prefill and decode, carbon and cost, where they are known."""
    split, place = energy.split or TokenSplit(), energy.footprint
    return {
        "energy_prefill_per_input_token_j": split.prefill_per_input_token_j,
        "energy_decode_per_output_token_j": split.decode_per_output_token_j,
        "energy_split_method": split.method,
        "carbon_per_1000_requests_gco2e": place and place.carbon_per_1000_requests_gco2e,
        "cost_per_1000_requests": place and place.cost_per_1000_requests,
        "cost_currency": place and place.currency,
    }


def _surroundings(result: Result) -> dict[str, Any]:
    """Return what the row says of machine and software, from the record's free parts."""
    free_parts = result.model_dump(mode="json", include={"environment", "provenance"})
    environment, provenance = free_parts["environment"], free_parts["provenance"]
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


_CELLS = (bool, int, float, str)
_NAMES = frozenset(RUN_SCHEMA.names)
_SETTINGS = frozenset({"backend", "model", "precision", "runner"})
"""Fixed columns that are settings themselves."""
