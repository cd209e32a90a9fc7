"""The study's tables on disk: ``runs.parquet``, ``summary.parquet`` and ``summary.csv``."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.analysis.summary import summarise
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import replacing
from llenergymeasure.results.layout import StudyFolder

RUNS_NAME = "runs.parquet"
SUMMARY_NAME = "summary.parquet"
SUMMARY_CSV_NAME = "summary.csv"
TABLE_NAMES = (RUNS_NAME, SUMMARY_NAME, SUMMARY_CSV_NAME)

PARTIAL_MTIME_S = 86_400
"""Time stamp of files written after a failure: 2 January 1970, older than any input.

Snakemake then makes them anew once the missing runs are there. 0 would read as missing, the
present time as finished.
"""


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
    runs = merge_runs(read_plan(StudyFolder(study_dir).plan), study_dir, tolerant=partial)
    summary = summarise(runs)
    write_file(study_dir / RUNS_NAME, lambda path: _write_parquet(runs, path), partial=partial)
    write_file(
        study_dir / SUMMARY_NAME, lambda path: _write_parquet(summary, path), partial=partial
    )
    write_file(
        study_dir / SUMMARY_CSV_NAME, lambda path: _write_csv(summary, path), partial=partial
    )


def read_plan(path: Path) -> dict[str, Any]:
    """Return ``plan.json``, parsed.

    Raises:
        ResultsError: it is absent or not a JSON object.
    """
    try:
        plan = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there; plan the study first") from None
    except ValueError as error:
        raise ResultsError(f"{path} is not JSON: {error}") from error
    if not isinstance(plan, Mapping):
        raise ResultsError(f"{path} holds {type(plan).__name__} where a plan is an object")
    return dict(plan)


def read_table(study_dir: Path, name: str) -> pa.Table:
    """Return one of the study's tables.

    Raises:
        ResultsError: it is absent or damaged.
    """
    path = study_dir / name
    try:
        return pq.ParquetFile(path).read()
    except FileNotFoundError:
        raise ResultsError(f"{path} is not there; merge the study's runs first") from None
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{path} cannot be read as Parquet: {error}") from error


def write_file(path: Path, write: Callable[[Path], object], *, partial: bool) -> None:
    """Let ``write`` fill a file beside ``path`` and move it in, back-dated if ``partial``."""
    with replacing(path) as temporary:
        write(temporary)
        if partial:
            os.utime(temporary, (PARTIAL_MTIME_S, PARTIAL_MTIME_S))


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_csv(table: pa.Table, path: Path) -> None:
    """Write a table as text: lists joined by ``;``, null as nothing, all text in quotes.

    An id such as ``123e45678901`` looks like a number: it is quoted, and readers that guess
    types (pandas, R) must still be told that ``experiment`` is text.
    """
    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            lists = table.column(place).to_pylist()
            joined = [None if codes is None else ";".join(codes) for codes in lists]
            table = table.set_column(place, field.name, pa.array(joined, pa.string()))
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="needed"))
