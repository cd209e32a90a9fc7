"""Reading a Parquet file that somebody else may have made: never more than it may take.

Parquet says the same value a billion times in a few bytes. So what a file would take in memory is
counted before it is there: values from the file's own metadata, texts while they are a dictionary.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import READ_LIMIT_BYTES, read_bytes

_VALUE_BYTES = 8


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
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error
    names = None if columns is None else list(columns)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        if rows is not None and file.metadata.num_rows != rows:
            raise ResultsError(f"{path} holds {file.metadata.num_rows} rows; it must have {rows}")
        chunks = _column_chunks(file.metadata)
        _check_bytes(path, sum(map(_value_bytes, chunks)))
        if sum(map(_most_text_bytes, chunks)) <= READ_LIMIT_BYTES:
            # A process that ends soon after Arrow's threads have read may abort: arrow#34314.
            return file.read(columns=names, use_threads=False)
        return _read_by_dictionary(file, content, path, names)
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"{path} cannot be read as Parquet: {reason}") from error


def _read_by_dictionary(
    file: pq.ParquetFile, content: bytes, path: Path | str, names: list[str] | None
) -> pa.Table:
    """Read texts as dictionaries, and write them out where there is room for them."""
    texts = {each.path_in_schema for each in _column_chunks(file.metadata) if _is_text(each)}
    compact = pq.ParquetFile(
        pa.BufferReader(content), metadata=file.metadata, read_dictionary=sorted(texts)
    )
    # By row group: texts in lists cannot be read as dictionaries in several pieces.
    taken, parts = 0, []
    for number in range(file.num_row_groups):
        try:
            part = compact.read_row_group(number, columns=names, use_threads=False)
        except pa.ArrowNotImplementedError:  # in lists, and too many kinds for one dictionary
            part = file.read_row_group(number, columns=names, use_threads=False)
        taken += sum(_text_bytes(chunk) for column in part.columns for chunk in column.chunks)
        _check_bytes(path, taken)
        parts.append(
            part.cast(pa.schema([file.schema_arrow.field(name) for name in part.column_names]))
        )
    return pa.concat_tables(parts).replace_schema_metadata(file.schema_arrow.metadata)


def _check_bytes(path: Path | str, taken: int) -> None:
    if taken > READ_LIMIT_BYTES:
        raise ResultsError(
            f"{path} would take {taken / 2**30:.1f} GiB of memory, and no file here comes near it; "
            "it is not read"
        )


def _column_chunks(metadata: pq.FileMetaData) -> list[pq.ColumnChunkMetaData]:
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [group.column(place) for group in groups for place in range(metadata.num_columns)]


def _is_text(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.physical_type == "BYTE_ARRAY")


def _value_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """Return what the values take at most, each text counted as one reference to it."""
    return int(chunk.num_values * _VALUE_BYTES + chunk.total_uncompressed_size)


def _most_text_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """Return what texts take at most: no text is longer than the pages that hold it."""
    return int(chunk.num_values * chunk.total_uncompressed_size) if _is_text(chunk) else 0


def _text_bytes(array: pa.Array) -> int:
    """Return the bytes of a column's texts when each stands for itself."""
    if pa.types.is_list(array.type):
        return _text_bytes(array.flatten())
    if not pa.types.is_dictionary(array.type):
        return 0
    lengths = pc.binary_length(array.dictionary).cast(pa.int64())
    return pc.sum(lengths.take(array.indices)).as_py() or 0
