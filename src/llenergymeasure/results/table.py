"""A run as one flat row, and rows as a table."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from llenergymeasure.ids import canonical_json
from llenergymeasure.results.columns import COLUMNS, REAL, RUN_SCHEMA, SETTING_COLUMNS, TEXT, WHOLE
from llenergymeasure.results.effective_settings import settings_in_force
from llenergymeasure.results.notes import record_notes
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.record import Result, Tokens
from llenergymeasure.units import MISSING


def run_row(result: Result, swept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat row of a finished run.

    Args:
        result: the run's record.
        swept: the swept settings by dotted key; those that are fixed columns already
            (``precision``, ``model``, …) are not repeated.
    """
    parts = {part: _part(result, part) for part in _PARTS}
    reported_config = _mapping(result.environment.get("engine")).get("resolved_config")
    in_force = settings_in_force(swept, result.backend, reported_config)
    row: dict[str, Any] = {
        **{name: _field(parts[part], field) for name, (part, field) in _SOURCES.items()},
        "status": result.status,
        "energy_scopes": sorted(set(result.energy.scopes)),
        "output_tokens_per_request": _answer_length(result.tokens),
        "notes": record_notes(result.provenance),
        "settings_in_force": canonical_json(in_force) if in_force else None,
        "model": _text(result.config.get("model")),
        "precision": _text(result.config.get("precision")),
        **_machine_columns(result),
        "started_monotonic_ns": min(
            (phase.start_monotonic_ns for phase in result.phases),
            default=result.window.start_monotonic_ns,
        ),
    }
    settings = setting_columns(swept)
    return _full_row(row) | {name: _cell(swept[key]) for key, name in settings.items()}


def _answer_length(tokens: Tokens) -> float | None:
    """Return the mean output tokens of an answer; None if nothing came.

    Under traffic they are of the answers that ended in the window; where none did, of its work.
    """
    if tokens.output_mean is not None:
        return tokens.output_mean
    if tokens.requests:
        return tokens.output / tokens.requests
    return tokens.output / tokens.work if tokens.output and tokens.work else None


def failed_row(
    planned: Mapping[str, Any], outcome: Outcome | None, study: Mapping[str, str]
) -> dict[str, Any]:
    """Return the flat row of a planned run without a result, which ended so or never began.

    Args:
        planned: its entry in the plan.
        outcome: how it ended; None if it never began.
        study: the columns of its study.
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
        **study,
    }
    if outcome is not None:
        row["status"] = outcome.status
        row["phase"] = outcome.phase
        row["attempt"] = outcome.attempt
        row |= _host_columns(outcome.host, outcome.job)
        row["started_at"] = outcome.started_at
        if outcome.error is not None:
            row["error_class"] = outcome.error.class_
            row["error_message"] = outcome.error.message
    return _full_row(row)


def setting_columns(keys: Iterable[str]) -> dict[str, str]:
    """Return the column of every swept key that is no fixed column already.

    A key that would take the name of another quantity stands as ``setting.<key>``.
    """
    return {
        key: f"setting.{key}" if key in _FIXED_COLUMNS else key
        for key in dict.fromkeys(keys)
        if key not in SETTING_COLUMNS
    }


def setting_array(values: Sequence[Any]) -> pa.Array:
    """Return one setting's values as a column: booleans, numbers and text keep their type.

    Lists, mappings and mixtures of types become text: the value itself where it is text,
    canonical JSON otherwise.
    """
    types = {type(value) for value in values if value is not None}
    if types <= {bool}:
        return pa.array(values, pa.bool_() if types else TEXT)
    if types == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pa.array(values, WHOLE)
    if types in ({float}, {int, float}):
        return pa.array([None if value is None else float(value) for value in values], REAL)
    return pa.array([_text(value) for value in values], TEXT)


def rows_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a table: the fixed columns, then the settings found in any row.

    A column that a row lacks is null in it.
    """
    table = pa.Table.from_pylist(list(rows), schema=RUN_SCHEMA)
    settings = dict.fromkeys(name for row in rows for name in row if name not in _FIXED_COLUMNS)
    for name in settings:
        table = table.append_column(name, setting_array([row.get(name) for row in rows]))
    return table


def _full_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _finite(row.get(name)) for name in RUN_SCHEMA.names}


def _cell(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else _text(value)


def _part(record: Any, path: str) -> Any:
    """Return the part at a dotted path of the record; None where it is absent."""
    for name in filter(None, path.split(".")):
        record = _field(record, name)
    return record


def _field(part: Any, name: str) -> Any:
    return None if part is None else getattr(part, name)


def _machine_columns(result: Result) -> dict[str, Any]:
    """Return what the row says of machine and software, from the record's free parts."""
    environment, provenance = result.environment, result.provenance
    recording = _mapping(provenance.get("recording"))
    gpus = [_mapping(gpu) for gpu in environment.get("gpus") or []]
    versions = _mapping(_mapping(environment.get("engine")).get("versions"))
    return {
        "gpu_name": _join_distinct(gpu.get("name") for gpu in gpus),
        "gpu_uuid": _join_distinct(gpu.get("uuid") for gpu in gpus),
        "driver_version": _join_distinct(gpu.get("driver") for gpu in gpus),
        "power_limit_w": _highest(gpus, "power_limit_w"),
        "engine_version": _join_distinct(f"{name} {version}" for name, version in versions.items()),
        "model_commit": _text(_mapping(provenance.get("workload")).get("model_commit")),
        "llenergymeasure_version": _text(provenance.get("llenergymeasure_version")),
        **_host_columns(_text(environment.get("host")), _mapping(environment.get("job"))),
        "start_temperature_celsius": _highest(gpus, "start_temperature_celsius"),
        "started_at": _text(recording.get("started_at")),
        "attempt": provenance.get("attempt"),
        "energy_method": provenance.get("energy_method"),
    }


def _host_columns(host: str | None, job: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return where a run was: the machine by the scheduler's name for it, if it has one."""
    job_record = job or {}
    is_slurm = job_record.get("scheduler") == "slurm"
    return {
        "host": job_record.get("node") or host,
        "slurm_job_id": _text(job_record.get("id")) if is_slurm else None,
        "slurm_partition": _text(job_record.get("partition")) if is_slurm else None,
    }


def _highest(gpus: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [gpu.get(name) for gpu in gpus]
    return max((float(value) for value in values if isinstance(value, int | float)), default=None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _join_distinct(values: Iterable[str | None]) -> str | None:
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

_FIXED_COLUMNS = frozenset(RUN_SCHEMA.names)
