"""``run.parquet``: one run's row as a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llenergymeasure.files import replacing
from llenergymeasure.parquet import read_parquet
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
    (row,) = read_parquet(path, rows=1).to_pylist()
    return dict(row)
