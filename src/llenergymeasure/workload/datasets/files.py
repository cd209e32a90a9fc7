"""Prompts from a local file: JSON, JSON Lines, CSV, Parquet, or lines of text."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import lfs_pointer_problem
from llenergymeasure.memory_limit import within_memory
from llenergymeasure.workload.datasets.record import (
    CHAT_COLUMNS,
    READ_COLUMNS,
    TEXT_COLUMNS,
    Dataset,
    Rows,
)

_MAX_FIELD_LENGTH = 2**31 - 1
_BATCH_ROWS = 64
"""Of a Parquet file, which may be a thousand times as large read as it is on the disk."""


def read_file(path: Path) -> Dataset:
    """Return the prompts of a file, in its order.

    Raises:
        ConfigurationError: the file cannot be read, or rows are malformed: up to ten of them are
            named by number.
    """
    check_is_file(path, "dataset")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        suffixes = ", ".join(READERS)
        raise ConfigurationError(
            Problem(f"not a kind of file prompts are read from; known are {suffixes}", file=path)
        )
    rows = Rows(path, path.name)
    try:
        with within_memory(path):
            reader(path, rows)
    except FileNotFoundError:
        raise _file_error(path, "there is no such file") from None
    except UnicodeDecodeError as error:
        raise _file_error(path, f"is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise _file_error(path, f"cannot be read: {error.strerror or error}") from error
    return rows.dataset()


def check_is_file(path: Path, key: str) -> None:
    """Refuse what has no end or would be waited for, and what is in a file's place.

    That is a pipe, a device, a folder; and a pointer that Git LFS has left.
    """
    message = lfs_pointer_problem(path) if path.is_file() else None
    if path.exists() and not path.is_file():
        message = "is no file, but a folder, a pipe or a device; name a file"
    if message is not None:
        raise ConfigurationError(Problem(message, key=key, file=path))


def _read_json_lines(path: Path, rows: Rows) -> None:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                rows.problem(number, f"is not JSON: {error}")
                continue
            _add(rows, number, values)


def _read_json(path: Path, rows: Rows) -> None:
    """Read a list of mappings, as ShareGPT's own file is, or what is JSON Lines after all."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        _read_json_lines(path, rows)
        return
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _file_error(path, f"is not JSON: {error}") from error
    for number, values in enumerate(content, start=1):
        _add(rows, number, values)


def _add(rows: Rows, number: int, values: object) -> None:
    if isinstance(values, Mapping):
        rows.add(number, values)
    else:
        rows.problem(number, f"should be a mapping, not {type(values).__name__}")


def _read_lines(path: Path, rows: Rows) -> None:
    """Read one prompt a line; empty lines are none."""
    with path.open(encoding="utf-8-sig") as stream:
        start = stream.read(4096)
        if 3 * start.count("\0") >= len(start) > 0:
            rows.problem(1, "holds NUL, as text in UTF-16 does; save it as UTF-8")
            return
        stream.seek(0)
        for number, line in enumerate(stream, start=1):
            if line.strip():
                rows.add(number, {"prompt": line.rstrip("\n")})


def _read_csv(path: Path, rows: Rows) -> None:
    csv.field_size_limit(_MAX_FIELD_LENGTH)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            _check_columns(path, reader.fieldnames or ())
            for number, values in enumerate(reader, start=2):
                if None in values:
                    rows.problem(number, "has more fields than the header; quote commas in text")
                    continue
                rows.add(number, {key: value for key, value in values.items() if value != ""})
        except csv.Error as error:
            raise _file_error(path, f"is not CSV: line {reader.line_num}: {error}") from error


def _read_parquet(path: Path, rows: Rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            columns = [name for name in names if name in READ_COLUMNS]
            batches = file.iter_batches(_BATCH_ROWS, columns=columns)
            all_values = (values for batch in batches for values in batch.to_pylist())
            for number, values in enumerate(all_values, start=1):
                rows.add(number, values)
    except MemoryError:
        raise
    except pa.ArrowException as error:
        raise _file_error(path, f"is not Parquet: {error}") from error


READERS: Mapping[str, Callable[[Path, Rows], None]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
}
"""Readers by the file name's ending."""


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    accepted = TEXT_COLUMNS + CHAT_COLUMNS
    if not set(columns) & set(accepted):
        present = ", ".join(columns) or "none"
        hint = "separate columns by commas" if ";" in present else "call the one to ask prompt"
        message = f"has no column {', '.join(accepted)}; its columns: {present}; {hint}"
        raise _file_error(path, message)


def _file_error(path: Path, message: str) -> ConfigurationError:
    return ConfigurationError(Problem(message, key="dataset", file=path))
