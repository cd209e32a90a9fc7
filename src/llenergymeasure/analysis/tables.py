"""The study's tables on disk: runs, summary, and what relates experiments to each other.

The same runs give the same bytes: rows have a fixed order, and no clock, path or host goes into
the files. The version of pyarrow does, for another one may lay out the same values differently.
"""

import functools
import math
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from llenergymeasure.analysis.comparison_tables import SCHEMAS, experiment_labels, relate
from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import SUMMARY_SCHEMA, summarise
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import load_json, replacing
from llenergymeasure.parquet import read_parquet
from llenergymeasure.results.columns import ANALYSIS_VERSION, RUN_SCHEMA
from llenergymeasure.results.layout import (
    PARTIAL_MTIME_S,
    RUNS_NAME,
    SUMMARY_NAME,
    TABLE_NAMES,
    StudyFolder,
)
from llenergymeasure.results.outcome import DAMAGED
from llenergymeasure.screen import printable

DERIVED_DIGITS = 12
"""Significant digits of derived values: the last few differ between processors."""

ANALYSIS_KEY = b"llenergymeasure.analysis"

ROWS_PER_GROUP = 65_536
"""Rows written at once."""

_SCHEMAS: dict[str, pa.Schema] = {
    RUNS_NAME: RUN_SCHEMA,
    SUMMARY_NAME: SUMMARY_SCHEMA,
    **{f"{name}.parquet": schema for name, schema in SCHEMAS.items()},
}


def write_tables(study_dir: Path, *, partial: bool) -> None:
    """Merge the study's runs and write its tables, each whole or not at all.

    The same runs give the same bytes: no clock, path or host goes into the files.

    Args:
        study_dir: the study's folder, with its ``plan.json``.
        partial: the study did not finish; damaged records become rows, and the files get
            :data:`PARTIAL_MTIME_S`.

    Raises:
        ResultsError: the plan or a finished run's record cannot be read.
    """
    plan = read_plan(StudyFolder(study_dir).plan)
    runs = merge_runs(plan, study_dir, tolerant=partial)
    study = StudyRuns(runs, plan)
    summary = summarise(study)
    labels = experiment_labels(summary.select(["experiment", "label"]).to_pylist())
    related = relate(study, labels)
    tables = {"summary": _round_columns(summary)}
    tables |= {name: _round_columns(table) for name, table in related.items()}
    for file_name in TABLE_NAMES:
        if file_name == RUNS_NAME:
            continue
        name, _, suffix = file_name.rpartition(".")
        write = _write_csv if suffix == "csv" else _write_parquet
        fill = functools.partial(write, tables[name])
        write_file(study_dir / file_name, fill, partial=partial)
    # Last: by this one it is seen whether the tables know every run.
    fill = functools.partial(_write_parquet, runs)
    write_file(study_dir / RUNS_NAME, fill, partial=partial)


def read_plan(path: Path) -> dict[str, Any]:
    """Return ``plan.json``, parsed.

    Raises:
        ResultsError: it is absent or not a JSON object.
    """
    try:
        plan = load_json(path)
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there; plan the study first") from None
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(plan, Mapping):
        raise ResultsError(f"{path} holds {type(plan).__name__} where a plan is an object")
    return dict(plan)


def read_table(study_dir: Path, name: str) -> pa.Table:
    """Return one of the study's tables; a column that its writer did not know yet is null.

    Raises:
        ResultsError: it is absent or damaged.
    """
    path = study_dir / name
    if not path.exists():
        root = shlex.quote(str(study_dir))
        hint = f"llem report {root} merges the study's runs, llem status {root} says how far it is"
        raise ResultsError(f"{path} is not there; {hint}")
    table = read_parquet(path)
    for field in _SCHEMAS.get(name, ()):
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def outdated_reason(study_dir: Path) -> str | None:
    """Return what a study's tables do not know yet and what to do; None where they know all.

    Raises:
        ResultsError: the plan or the table of runs is absent or damaged.
    """
    folder = StudyFolder(study_dir)
    planned = {(run["experiment"], run["cycle"]) for run in read_plan(folder.plan)["runs"]}
    columns = ["experiment", "cycle", "status", "error_class"]
    if not (study_dir / RUNS_NAME).exists():
        return None
    runs = read_parquet(study_dir / RUNS_NAME, columns).to_pylist()
    merged = {(run["experiment"], run["cycle"]) for run in runs}
    new = sum(
        folder.run(run["experiment"], run["cycle"]).result.is_file()
        for run in runs
        if run["status"] != "completed" and run["error_class"] != DAMAGED
    )
    if merged != planned:
        what = f"the tables of {study_dir} know {len(merged & planned)} of {len(planned)} planned"
        what += " runs" + f" and {len(merged - planned)} others" * bool(merged - planned)
    elif new:
        runs_have = "run of {} has" if new == 1 else "runs of {} have"
        what = f"{new} {runs_have.format(study_dir)} completed since its tables were written"
    else:
        return None
    return f"{what}; llem report {shlex.quote(str(study_dir))} writes them from all there is"


def write_file(path: Path, write: Callable[[Path], object], *, partial: bool) -> None:
    """Let ``write`` fill a file next to ``path`` and move it in, back-dated if ``partial``."""
    with replacing(path) as temporary:
        write(temporary)
        if partial:
            os.utime(temporary, (PARTIAL_MTIME_S, PARTIAL_MTIME_S))


def _round_columns(table: pa.Table) -> pa.Table:
    """Return the table with its real columns to :data:`DERIVED_DIGITS` significant digits."""
    for index, field in enumerate(table.schema):
        if not pa.types.is_floating(field.type):
            continue
        values = [_round_to_digits(value) for value in table.column(index).to_pylist()]
        table = table.set_column(index, field, pa.array(values, field.type))
    return table


def _round_to_digits(value: float | None) -> float | None:
    """Return a value rounded; null for one that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DERIVED_DIGITS}g}")


def _write_parquet(table: pa.Table, path: Path) -> None:
    writer = {b"llenergymeasure.pyarrow": pa.__version__, ANALYSIS_KEY: ANALYSIS_VERSION}
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), **writer}
    ).combine_chunks()
    pq.write_table(table, path, compression="zstd", row_group_size=ROWS_PER_GROUP)


def _write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as text: lists joined by ``;``, null as nothing, all text in quotes.

    An id such as ``123e45678901`` looks like a number: it is quoted, and readers that guess
    types (pandas, R) must still be given that ``experiment`` is text.
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            lists = table.column(index).to_pylist()
            joined = [None if items is None else ";".join(map(str, items)) for items in lists]
            table = table.set_column(index, field.name, pa.array(joined, pa.string()))
    csv.write_csv(harmless(table), path, csv.WriteOptions(quoting_style="needed"))


def harmless(table: pa.Table) -> pa.Table:
    """Return a table whose texts no spreadsheet takes for a formula and no terminal obeys."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = [text and harmless_text(text) for text in table.column(index).to_pylist()]
            table = table.set_column(index, field, pa.array(texts, pa.string()))
    return table


_FORMULA_STARTS = (*"=+-@\t\n", *"＝＋－＠")  # noqa: RUF001 - spreadsheets take the wide ones too
"""What a formula begins with. Source: OWASP, "CSV Injection"."""


def harmless_text(text: str) -> str:
    """Return a cell's text: none that is a formula, or steers what shows it."""
    safe = printable(text)
    return f"'{safe}" if safe.startswith(_FORMULA_STARTS) else safe
