"""``run.parquet``: one run's row as a file, quick to read where there are thousands of them.

Decoding a hundred columns of one value each takes Parquet's reader most of a millisecond. So the
row is also in the file's key-value metadata, as JSON: a copy that counts only while a checksum
over it and over the columns' pages holds. Whoever rewrites the file makes the copy void, and the
columns are decoded.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure.errors import ResultsError
from llenergymeasure.files import read_bytes, replacing
from llenergymeasure.parquet import decode_parquet
from llenergymeasure.results.table import RUN_SCHEMA, rows_table

Row = dict[str, Any]
"""A row's values by column."""

_FORMAT: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
}
"""How a single row is best written: pages without compression, dictionaries or statistics, which
only cost there."""

_NULLS: Row = dict.fromkeys(RUN_SCHEMA.names)
_KEY = "llenergymeasure.row"
_MARK = f"row of schema {zlib.crc32(str(RUN_SCHEMA).encode()):08x}, checksum, length: ".encode()
"""A copy made for other columns or types is not found by it."""

_CHECKSUM_DIGITS, _LENGTH_DIGITS = 8, 8
_START, _END = len(b"PAR1"), len(b"....PAR1")
"""What stands before the pages, and after the footer: its length among it (Parquet's format)."""


def write_run_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write one run's row to ``run.parquet``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(row_content(row))


def row_content(row: Mapping[str, Any]) -> bytes:
    """Return what ``run.parquet`` holds of a row."""
    table = rows_table([row])
    # The columns' pages come first, and are the same whatever the footer says.
    pages = _pages(_written(table))
    fixed = table.select(RUN_SCHEMA.names).to_pylist()[0]
    known = {name: value for name, value in fixed.items() if value is not None}
    copy = json.dumps(known, allow_nan=False, separators=(",", ":")).encode()
    checksum = zlib.crc32(copy, zlib.crc32(pages))
    text = _MARK + f"{checksum:08x}{len(copy):08d}".encode() + copy
    return _written(table, {_KEY: text.decode()})


def read_run_row(path: Path | str) -> Row:
    """Return the fixed columns of one ``run.parquet``.

    Raises:
        ResultsError: the file is absent, damaged, does not hold exactly one row, or a column
            holds another type.
    """
    content = _content(path)
    row = _copy(content)
    if row is None:
        (row,) = _conformed(decode_parquet(content, path, rows=1), path).to_pylist()
    return row


def read_written_row(path: Path | str) -> pa.Table:
    """Return the columns of one ``run.parquet`` as they stand, those of the version that wrote it.

    Raises:
        ResultsError: the file is absent, damaged, or does not hold exactly one row.
    """
    return decode_parquet(_content(path), path, rows=1)


def _content(path: Path | str) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from error


def _conformed(table: pa.Table, path: Path | str) -> pa.Table:
    """Return ``table`` with exactly the fixed columns, in their order and types; null if absent."""
    names = set(table.column_names)
    columns = []
    for field in RUN_SCHEMA:
        if field.name not in names:
            columns.append(pa.nulls(1, field.type))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise ResultsError(f"{path}: column {field.name}: {error}") from error
    return pa.Table.from_arrays(columns, schema=RUN_SCHEMA)


def _copy(content: bytes) -> Row | None:
    """Return the copy in the file's metadata; null where there is none that holds.

    It is found by its mark: taking the footer apart would cost as much as decoding the columns.
    """
    footer = _footer(content)
    at = content.rfind(_MARK, footer)
    if at < 0:
        return None
    checksum = at + len(_MARK)
    length = checksum + _CHECKSUM_DIGITS
    start = length + _LENGTH_DIGITS
    try:
        expected = int(content[checksum:length], 16)
        copy = content[start : start + int(content[length:start])]
    except ValueError:
        return None
    if zlib.crc32(copy, zlib.crc32(_pages(content))) != expected:
        return None
    return {**_NULLS, **json.loads(copy)}


def _pages(content: bytes) -> bytes:
    return content[_START : _footer(content)]


def _footer(content: bytes) -> int:
    """Return where the footer begins."""
    end = max(len(content) - _END, 0)
    return max(end - int.from_bytes(content[end : end + 4], "little"), 0)


def _written(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **_FORMAT) as writer:
        writer.write_table(table)
        if metadata:
            writer.add_key_value_metadata(metadata)
    return bytes(sink.getvalue())
