"""All runs of a study in one table: a walk along the plan, never a glob.

A finished run's row is made from its record, which has to be read anyway to know whether it is
whole. What the plan asks for and no file answers is a row too, with the reason; a folder that the
plan does not know is not looked at.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llenergymeasure.config.dotted import value_at
from llenergymeasure.energy.footprint import Declared
from llenergymeasure.errors import RecordVersionError, ResultsError
from llenergymeasure.plan.model import sections_of
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.outcome import without_result
from llenergymeasure.results.reading import result_of
from llenergymeasure.results.table import (
    RUN_SCHEMA,
    failed_row,
    rows_table,
    run_row,
    setting_array,
    setting_columns,
)
from llenergymeasure.results.whole import Damage, sound_record

BATCH_RUNS = 512
"""Rows packed at a time: as Python values all of a large study would take gigabytes."""

BAND_CELSIUS = 3.0
"""How far from the others' a run may start. NVML reports whole degrees; leakage power grows by some
per cent over this much."""

Planned = Mapping[str, Any]


def merge_runs(plan: Mapping[str, Any], study_dir: Path, *, tolerant: bool = False) -> pa.Table:
    """Return one row for every planned run, sorted by its place in the plan.

    The fixed columns come from each run's record, the swept settings from the plan, and carbon and
    cost from what the plan declares: it may be declared, or corrected, after a run. ``order`` is
    the place in this plan; when a run really began is ``started_at``. An odd start temperature,
    which only all runs together show, is added to a run's ``validity``.

    Raises:
        ResultsError: the plan lacks a part, or a finished run's record is damaged or another's.
    """
    try:
        planned: list[Planned] = sorted(plan["runs"], key=lambda run: run["order"])
        about = {name: plan[name] for name in ("study", "study_design_hash")}
    except (KeyError, TypeError) as error:
        raise ResultsError(f"the plan of {study_dir} is not one: it lacks {error}") from error
    keys = plan.get("swept") or ()
    study = StudyFolder(study_dir)
    tables = [RUN_SCHEMA.empty_table()]
    for at in range(0, len(planned), BATCH_RUNS):
        batch = planned[at : at + BATCH_RUNS]
        rows = [
            _row(run, study.run(run["experiment"], run["cycle"]), keys, about, tolerant=tolerant)
            for run in batch
        ]
        tables.append(rows_table(rows).select(RUN_SCHEMA.names))
    rows = pa.concat_tables(tables).combine_chunks()
    rows = _with_column(rows, "order", pa.array([run["order"] for run in planned], pa.int64()))
    rows = _with_footprint(rows, sections_of(plan).get("carbon") or {})
    return flag_start_temperatures(_with_settings(rows, planned, keys))


def _row(
    planned: Planned,
    folder: RunFolder,
    keys: Sequence[str],
    about: Mapping[str, Any],
    *,
    tolerant: bool,
) -> dict[str, Any]:
    reason = None
    if folder.result.exists():
        try:
            return _finished(folder, keys)
        except RecordVersionError:
            raise
        except ResultsError as error:
            if not tolerant:
                raise
            reason = str(error)
    return failed_row(planned, without_result(folder, reason), {}, **about)


def _finished(folder: RunFolder, keys: Sequence[str]) -> dict[str, Any]:
    found = sound_record(folder)
    if isinstance(found, Damage):
        raise ResultsError(f"{found}; running the study again measures it again")
    result = result_of(found, folder.result)
    return run_row(result, {key: value_at(result.config, key) for key in keys})


def _with_footprint(rows: pa.Table, carbon: Mapping[str, Any]) -> pa.Table:
    """Return the rows with carbon and cost by one declaration, whatever each run knew of it."""
    declared = Declared(**carbon)
    per_request_j = rows["energy_per_request_j"]
    for name, of_a_joule in (
        ("carbon_per_1000_requests_gco2e", declared.carbon_gco2e(1.0)),
        ("cost_per_1000_requests", declared.cost(1.0)),
    ):
        of_1000 = None if of_a_joule is None else 1000 * of_a_joule
        values = pc.multiply(per_request_j, pa.scalar(of_1000, pa.float64()))
        rows = _with_column(rows, name, values)
    currency = pa.scalar(declared.currency, pa.string())
    known = pc.if_else(pc.is_valid(per_request_j), currency, pa.scalar(None, pa.string()))
    return _with_column(rows, "cost_currency", known)


def _with_column(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = RUN_SCHEMA.get_field_index(name)
    return rows.set_column(place, RUN_SCHEMA.field(place), values)


def _with_settings(rows: pa.Table, planned: Sequence[Planned], keys: Sequence[str]) -> pa.Table:
    """Return the rows with the swept settings as columns, each of one type for the whole study."""
    configs = {run["experiment"]: run.get("config") or {} for run in planned}
    for key, name in setting_columns(keys).items():
        column = setting_array([value_at(config, key) for config in configs.values()])
        value_of = dict(zip(configs, column.to_pylist(), strict=True))
        values = [value_of[run["experiment"]] for run in planned]
        rows = rows.append_column(name, pa.array(values, column.type))
    return rows


def flag_start_temperatures(runs: pa.Table) -> pa.Table:
    """Return the runs with ``temperature_drift`` on those that began warmer or cooler than most.

    A warmer chip draws more for the same work. Only all runs of a study show which one is odd (the
    first of a morning): their records stay as they are.

    Each is compared with the median of all runs of the study on the same cards. Runs whose energy
    was not measured, or that have no temperature, are left as they are.
    """
    names = ("host", "gpu_uuid", "kind", "start_temperature_celsius", "validity")
    rows = runs.select(names).to_pylist()
    by_cards: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row["start_temperature_celsius"] is not None:
            by_cards[str(row["host"]), str(row["gpu_uuid"])].append(
                row["start_temperature_celsius"]
            )
    usual = {cards: statistics.median(values) for cards, values in by_cards.items()}
    flagged = [
        _with_code(row["validity"]) if _is_off(row, usual) else row["validity"] for row in rows
    ]
    field = RUN_SCHEMA.field("validity")
    place = runs.schema.get_field_index("validity")
    return runs.set_column(place, field, pa.array(flagged, field.type))


def _is_off(row: dict[str, object], usual: dict[tuple[str, str], float]) -> bool:
    started = row["start_temperature_celsius"]
    if not isinstance(started, float) or row["kind"] != "measured":
        return False
    return abs(started - usual[str(row["host"]), str(row["gpu_uuid"])]) > BAND_CELSIUS


def _with_code(codes: list[str] | None) -> list[str]:
    return sorted({*(codes or ()), "temperature_drift"})
