"""Rows of runs that were read before, so that merging again reads only what is new.

One file beside the study's tables, ``.merged-rows.arrow``: the rows as they were read, each with
the stamp of the run's files it came from, and the SHA-256 of all that at the end. A row counts only
while its stamp is the same, and the file only while its hash holds. It is a cache and nothing else:
whatever is wrong with it, the runs are read again.
"""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

import llenergymeasure
from llenergymeasure.files import replacing, sha256
from llenergymeasure.results.table import RUN_SCHEMA
from llenergymeasure.results.whole import Stamp

CACHE_NAME = ".merged-rows.arrow"

Place = tuple[int, int]
"""Which batch of the file, and which row of it."""

STAMP = "stamp"

_HASH_BYTES = 32

_SCHEMA = pa.schema(
    [*RUN_SCHEMA, (STAMP, pa.string())],
    metadata={
        **(RUN_SCHEMA.metadata or {}),
        b"llenergymeasure.version": llenergymeasure.__version__.encode(),
        b"llenergymeasure.pyarrow": pa.__version__.encode(),
    },
)


class MergeCache:
    """The rows read before, to look up; one batch of them at a time is in memory."""

    def __init__(self, study_dir: Path) -> None:
        self._path = study_dir / CACHE_NAME
        self._places: dict[tuple[str, int], tuple[Place, str]] = {}
        self._reader: Any = None
        self._batch: tuple[int, pa.Table] | None = None
        try:
            self._index()
        except (OSError, pa.ArrowException):
            self._places, self._reader = {}, None

    def __len__(self) -> int:
        """Return how many rows it holds."""
        return len(self._places)

    def find(self, experiment: str, cycle: int, now: Stamp) -> Place | None:
        """Return where a run's row is, if its file is still the one it was read from."""
        found = self._places.get((experiment, cycle))
        return found[0] if found is not None and found[1] == now.digest else None

    def take(self, places: Sequence[Place]) -> pa.Table:
        """Return rows by their places, which are best in ascending order."""
        parts, start = [RUN_SCHEMA.empty_table()], 0
        while start < len(places):
            batch = places[start][0]
            end = start
            while end < len(places) and places[end][0] == batch:
                end += 1
            rows = pa.array([row for _, row in places[start:end]], pa.int64())
            parts.append(self._read(batch).take(rows))
            start = end
        return pa.concat_tables(parts)

    def _read(self, number: int) -> pa.Table:
        if self._batch is None or self._batch[0] != number:
            whole = pa.Table.from_batches([self._reader.get_batch(number)])
            rows = whole.select(RUN_SCHEMA.names).replace_schema_metadata(RUN_SCHEMA.metadata)
            self._batch = number, rows
        return self._batch[1]

    def _index(self) -> None:
        content = self._content()
        if content is None:
            return
        self._reader = pa.ipc.open_file(content)
        if not self._reader.schema.equals(_SCHEMA, check_metadata=True):
            return
        names = ("experiment", "cycle", STAMP)
        options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.get_field_index(n) for n in names])
        keys = pa.ipc.open_file(content, options=options)
        for number in range(keys.num_record_batches):
            batch = keys.get_batch(number)
            columns = [batch.column(name).to_pylist() for name in names]
            for row, (experiment, cycle, stamp) in enumerate(zip(*columns, strict=True)):
                self._places[experiment, cycle] = (number, row), stamp

    def _content(self) -> Any:
        """Return the file's bytes without the hash at their end; None where it does not hold.

        Arrow believes what it maps: a flipped bit would be another number, or a crash.
        """
        whole = pa.memory_map(str(self._path)).read_buffer()
        length = whole.size - _HASH_BYTES
        if length < 0:
            return None
        content = whole.slice(0, length)
        found = hashlib.sha256(content).digest()
        return content if found == whole.slice(length).to_pybytes() else None


class MergeCacheWriter:
    """Writes the next cache beside the old one, and moves it in once all of it is written.

    Attributes:
        worthwhile: set to false where the old cache holds the same; it is then left alone.
    """

    def __init__(self, study_dir: Path) -> None:
        self._path = study_dir / CACHE_NAME
        self._files = ExitStack()
        self._writer: Any = None
        self._temporary: Path | None = None
        self.worthwhile = True

    def __enter__(self) -> "MergeCacheWriter":
        """Open the file; a folder that cannot be written to is merged without a cache."""
        try:
            self._temporary = self._files.enter_context(replacing(self._path))
        except OSError:
            return self
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(str(self._temporary), _SCHEMA, options=options)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Move the file in if nothing went wrong and it is worth it."""
        if self._writer is None or self._temporary is None:
            return
        self._writer.close()
        if kind is None and self.worthwhile:
            content = bytes.fromhex(sha256(self._temporary))
            with self._temporary.open("ab") as stream:
                stream.write(content)
        if kind is None and not self.worthwhile:
            kind, error = _Unwanted, _Unwanted()
        self._files.__exit__(kind, error, trace)

    def add(self, rows: pa.Table, stamps: Sequence[Stamp]) -> None:
        """Add rows with the stamps of their files."""
        if self._writer is None or not rows.num_rows:
            return
        digests = [each.digest for each in stamps]
        rows = rows.append_column(STAMP, pa.array(digests, pa.string()))
        rows = rows.replace_schema_metadata(_SCHEMA.metadata)
        self._writer.write_table(rows.combine_chunks())


class _Unwanted(Exception):  # noqa: N818 - no error: it takes a file back
    """Takes a temporary file back."""
