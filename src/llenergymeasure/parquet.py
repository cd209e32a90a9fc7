"""Reading a Parquet file that somebody else may have made: never more than it may take."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import read_bytes
from llenergymeasure.memory_limit import within_memory


def read_parquet(
    path: Path | str, columns: Sequence[str] | None = None, *, rows: int | None = None
) -> pa.Table:
    """Return the table that a Parquet file holds.

    Args:
        path: the file.
        columns: those to read, all where None.
        rows: how many it must have; any number where None.

    Raises:
        ResultsError: it is not there, cannot be read, is damaged, has another number of rows, or
            would take more memory than anything that is ever written here.
    """
    try:
        content = read_bytes(path)
        with within_memory(path):
            file = pq.ParquetFile(pa.BufferReader(content))
            if rows is not None and file.metadata.num_rows != rows:
                row_count = file.metadata.num_rows
                raise ResultsError(f"{path} holds {row_count} rows; it must have {rows}")
            # A process that ends soon after Arrow's threads have read may abort: arrow#34314.
            table = file.read(None if columns is None else list(columns), use_threads=False)
            for column in table.columns:
                _check_decoded_size(column)
            return table
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResultsError(f"{path} cannot be read: {reason}") from error
    except (KeyError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"{path} cannot be read as Parquet: {reason}") from error


def _check_decoded_size(column: pa.ChunkedArray) -> None:
    """Fail where there is no room for a column's texts once each stands for itself."""
    column_type = column.type
    if pa.types.is_dictionary(column_type):
        column.cast(column_type.value_type)
    elif pa.types.is_nested(column_type) and "dictionary<" in str(column_type):
        raise pa.ArrowNotImplementedError(f"no column here is of the type {column_type}")
