"""Files of prompts and of traces, for tests that read them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.errors import ConfigurationError


def put(path: Path, content: Any) -> Path:
    """Write bytes or text as they are, and a row or rows as the file's name says."""
    kind, rows = path.suffix.lower(), content if isinstance(content, list) else [content]
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, "utf-8")
    elif kind == ".parquet":
        table = content if isinstance(content, pa.Table) else pa.Table.from_pylist(rows)
        pq.write_table(table, path)
    elif kind == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        path.write_text(json.dumps(content))
    return path


def check_refused(read: Callable[[Path], Any], path: Path, says: str) -> None:
    """Read a file, which is refused by its name and in words that match."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        read(path)
    assert str(path) in str(caught.value)
