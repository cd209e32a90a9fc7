"""Prompts from a local file: JSON Lines, CSV or Parquet."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.workload.datasets.record import CHAT_COLUMNS, TEXT_COLUMNS, Record, Rows

_LONGEST_FIELD = 2**31 - 1


def read_file(path: Path) -> list[Record]:
    """Return the prompts of a file, in its order.

    Raises:
        ConfigurationError: the file cannot be read, or rows are malformed: up to ten of them are
            named by number.
    """
    only_a_file(path, "dataset")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise ConfigurationError(
            Problem(f"not a kind of file prompts are read from; known are {known}", file=path)
        )
    rows = Rows(path, path.name)
    try:
        reader(path, rows)
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file") from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror or error}") from error
    return rows.records()


def only_a_file(path: Path, key: str) -> None:
    """Refuse what has no end or would be waited for: a pipe, a device, a folder."""
    if path.exists() and not path.is_file():
        message = "is no file, but a folder, a pipe or a device; name a file"
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
            if not isinstance(values, Mapping):
                rows.problem(number, f"should be a mapping, not {type(values).__name__}")
                continue
            rows.add(number, values)


def _read_csv(path: Path, rows: Rows) -> None:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            _need_column(path, reader.fieldnames or ())
            for number, values in enumerate(reader, start=2):
                if None in values:
                    rows.problem(number, "has more fields than the header; quote commas in text")
                    continue
                rows.add(number, {key: value for key, value in values.items() if value != ""})
        except csv.Error as error:
            raise _unreadable(path, f"is not CSV: line {reader.line_num}: {error}") from error


def _read_parquet(path: Path, rows: Rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _need_column(path, names)
            wanted = {*TEXT_COLUMNS, *CHAT_COLUMNS, "source"}
            table = file.read(columns=[name for name in names if name in wanted])
    except pa.ArrowException as error:
        raise _unreadable(path, f"is not Parquet: {error}") from error
    for number, values in enumerate(table.to_pylist(), start=1):
        rows.add(number, values)


READERS: Mapping[str, Callable[[Path, Rows], None]] = {
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""Readers by the file name's ending."""


def _need_column(path: Path, names: object) -> None:
    columns = [str(name) for name in names] if isinstance(names, list | tuple) else []
    wanted = TEXT_COLUMNS + CHAT_COLUMNS
    if not set(columns) & set(wanted):
        found = ", ".join(columns) or "none"
        raise _unreadable(path, f"has no column {', '.join(wanted)}; its columns: {found}")


def _unreadable(path: Path, message: str) -> ConfigurationError:
    return ConfigurationError(Problem(message, key="dataset", file=path))
