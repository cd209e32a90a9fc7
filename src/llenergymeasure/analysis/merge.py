"""All runs of a study in one table: a walk along the plan, never a glob.

What the plan asks for and no file answers is a row too, with the reason; a folder that the plan
does not know is not looked at.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from llenergymeasure.analysis.temperatures import flag_start_temperatures
from llenergymeasure.errors import ResultsError
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.outcome import Outcome, OutcomeError, read_outcome
from llenergymeasure.results.table import (
    RUN_SCHEMA,
    failed_row,
    lookup,
    read_run_row,
    rows_table,
    setting_array,
    setting_columns,
)

BATCH_RUNS = 512
"""Rows gathered before they are packed: thousands of one-row chunks would cost 20 times more."""


def merge_runs(plan: Mapping[str, Any], study_dir: Path, *, tolerant: bool = False) -> pa.Table:
    """Return one row for every planned run, sorted by its place in the plan.

    The fixed columns come from each run's ``run.parquet``, the swept settings from the plan.
    ``order`` is the place in this plan; when a run really began is ``started_at``. What only all
    runs together show of one, an odd start temperature, is added to its ``validity``.

    Args:
        plan: ``plan.json``, parsed.
        study_dir: the study's folder.
        tolerant: take a run whose finished record cannot be read for ``lost`` and say why in
            its row, instead of stopping. For tables that are written after a failure.

    Raises:
        ResultsError: the plan lacks a part, or a finished run's record is damaged or another's.
    """
    try:
        planned = sorted(plan["runs"], key=lambda run: run["order"])
        keys = list(plan.get("swept") or [])
        study, design = plan["study"], plan["study_design_hash"]
    except (KeyError, TypeError) as error:
        raise ResultsError(f"the plan of {study_dir} is not one: it lacks {error}") from error
    folder = StudyFolder(study_dir)
    packed: list[pa.Table] = []
    batch: list[pa.Table] = []
    for run in planned:
        batch.append(_run_table(run, folder, study, design, tolerant=tolerant))
        if len(batch) == BATCH_RUNS:
            packed.append(pa.concat_tables(batch).combine_chunks())
            batch = []
    packed.append(pa.concat_tables([RUN_SCHEMA.empty_table(), *batch]).combine_chunks())
    table = flag_start_temperatures(pa.concat_tables(packed).combine_chunks())
    return _with_settings(table, planned, keys)


def _run_table(
    run: Mapping[str, Any], study_folder: StudyFolder, study: str, design: str, *, tolerant: bool
) -> pa.Table:
    folder = study_folder.run(run["experiment"], run["cycle"])
    if not folder.result.is_file():
        return _absent(run, _outcome(folder), study, design)
    try:
        table = read_run_row(folder.row)
        _check_owner(table, run, folder)
    except ResultsError as error:
        if not tolerant:
            raise
        damage = OutcomeError(class_="DamagedRecord", message=str(error))
        return _absent(run, Outcome(status="lost", error=damage), study, design)
    place = RUN_SCHEMA.get_field_index("order")
    return table.set_column(place, RUN_SCHEMA.field(place), pa.array([run["order"]], pa.int64()))


def _absent(run: Mapping[str, Any], outcome: Outcome | None, study: str, design: str) -> pa.Table:
    return rows_table([failed_row(run, outcome, {}, study=study, study_design_hash=design)])


def _outcome(folder: RunFolder) -> Outcome | None:
    """Return how a run without a record ended; None if it was never started."""
    if not folder.outcome.exists():
        return None
    outcome = read_outcome(folder.outcome)
    if outcome.status != "completed":
        return outcome
    gone = OutcomeError(
        class_="RecordGone", message="the run completed, but its result.json is not there"
    )
    return outcome.model_copy(update={"status": "lost", "error": gone})


def _check_owner(table: pa.Table, run: Mapping[str, Any], folder: RunFolder) -> None:
    found = (table["experiment"][0].as_py(), table["cycle"][0].as_py())
    asked = (run["experiment"], run["cycle"])
    if found != asked:
        raise ResultsError(
            f"{folder.row} is the record of run {found[0]}/{found[1]}, not of "
            f"{asked[0]}/{asked[1]}; move it back or delete its folder to measure anew"
        )


def _with_settings(
    table: pa.Table, planned: Sequence[Mapping[str, Any]], keys: list[str]
) -> pa.Table:
    for key, name in setting_columns(keys).items():
        values = [lookup(run.get("config") or {}, key) for run in planned]
        table = table.append_column(name, setting_array(values))
    return table
