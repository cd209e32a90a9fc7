"""A run's record and row as files: ``result.json`` of every version so far, and ``run.parquet``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import ValidationError

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import load_json, replacing
from llenergymeasure.parquet import read_parquet
from llenergymeasure.results.complete import check_version
from llenergymeasure.results.record import Result
from llenergymeasure.results.table import rows_table

_ROW_FORMAT: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
}
"""How a single row is best written: pages without compression, dictionaries or statistics, which
only cost there."""


def read_result(path: Path) -> Result:
    """Return the record at ``path``.

    A field that came after the record was written reads as null. Fields that this version does not
    know, of a later one with the same form, are passed over.

    Raises:
        ResultsError: there is no such file, or it holds no record that this version reads.
    """
    try:
        stored = load_json(path)
    except OSError as error:
        raise ResultsError(f"{path}: no record can be read: {error.strerror}") from None
    except ValueError as error:
        raise ResultsError(f"{path}: is no JSON: {error}") from None
    check_version(stored, path)
    return parse_result(stored, path)


def parse_result(stored: dict[str, Any], path: Path) -> Result:
    """Return a parsed record, its unknown fields left out.

    Raises:
        ResultsError: it lacks something, or holds another type.
    """
    try:
        return Result.model_validate(stored)
    except ValidationError as error:
        faults = error.errors()
    for fault in faults:
        key_path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] != "extra_forbidden":
            raise ResultsError(f"{path}: is no record: {key_path}: {fault['msg']}")
        *parents, name = fault["loc"]
        part: Any = stored
        for parent in parents:
            part = part[parent]
        del part[name]
    return Result.model_validate(stored)


def write_run_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write one run's row to ``run.parquet``, whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(rows_table([row]), temporary, **_ROW_FORMAT)


def read_run_row(path: Path) -> dict[str, Any]:
    """Return the columns of one ``run.parquet`` as they stand, those of the version that wrote it.

    Raises:
        ResultsError: the file is absent, damaged, or does not hold exactly one row.
    """
    (row,) = read_parquet(path, rows=1).to_pylist()
    return dict(row)
