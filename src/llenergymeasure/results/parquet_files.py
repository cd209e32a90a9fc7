"""Reading Parquet files of a results folder, and writing ``run.parquet``, one run's row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import read_bytes, replacing
from llenergymeasure.results.table import rows_table

_FORMAT: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
}
"""How a single row is best written: pages without compression, dictionaries or statistics, which
only cost there."""


def write_run_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write one run's row to ``run.parquet``, whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(rows_table([row]), temporary, **_FORMAT)


def read_run_row(path: Path) -> dict[str, Any]:
    """Return the columns of one ``run.parquet`` as they stand, those of the version that wrote it.

    Raises:
        ResultsError: the file is absent, damaged, or does not hold exactly one row.
    """
    table = read_parquet(path)
    if table.num_rows != 1:
        raise ResultsError(f"{path} holds {table.num_rows} rows where a run has one")
    (row,) = table.to_pylist()
    return dict(row)


def read_parquet(path: Path) -> pa.Table:
    """Return the table in a file.

    Raises:
        ResultsError: the file is absent or damaged.
    """
    try:
        return pq.ParquetFile(pa.BufferReader(read_bytes(path))).read()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"{path} cannot be read as Parquet: {reason}") from error
