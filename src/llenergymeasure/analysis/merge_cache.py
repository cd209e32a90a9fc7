"""Rows of runs that were read before, so that merging again reads only what is new.

One file beside the study's tables, ``.merged-rows.arrow``: the rows as they were read, each with
the size, inode and time stamps of the ``run.parquet`` it came from. A row counts only while all of
these are the same. The file is a cache and nothing else: whatever is wrong with it, the runs are
read anew.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

import llenergymeasure
from llenergymeasure.files import replacing
from llenergymeasure.results.table import RUN_SCHEMA
from llenergymeasure.units import NS_PER_S

CACHE_NAME = ".merged-rows.arrow"

SETTLED_NS = 2 * NS_PER_S
"""A file changed this shortly before it was read may change again without a newer time stamp: file
systems keep time in ticks of up to two seconds. Its row is not kept."""

Stamp = tuple[int, int, int, int]
"""Size, inode, time of the last change of content, and of the last change of anything."""

Place = tuple[int, int]
"""Which batch of the file, and which row of it."""

STAMP_COLUMNS = ("stamp_size", "stamp_inode", "stamp_modified_ns", "stamp_changed_ns")

_SCHEMA = pa.schema(
    [*RUN_SCHEMA, *((name, pa.int64()) for name in STAMP_COLUMNS)],
    metadata={
        **(RUN_SCHEMA.metadata or {}),
        b"llenergymeasure.version": llenergymeasure.__version__.encode(),
        b"llenergymeasure.pyarrow": pa.__version__.encode(),
    },
)


def stamp(path: str) -> Stamp | None:
    """Return what identifies a file's content without reading it; null if it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for each of 100,000 files costs seconds
    except (FileNotFoundError, NotADirectoryError):
        return None
    inode = found.st_ino - (1 << 64 if found.st_ino >= 1 << 63 else 0)  # as a signed number
    return found.st_size, inode, found.st_mtime_ns, found.st_ctime_ns


def is_settled(found: Stamp, read_ns: int) -> bool:
    """Return whether a later change of the file would show in its stamp.

    Args:
        found: its stamp before it was read.
        read_ns: when that was, by the wall clock.
    """
    return found[3] < read_ns - SETTLED_NS


class MergeCache:
    """The rows read before, to look up; one batch of them at a time is in memory."""

    def __init__(self, study_dir: Path) -> None:
        self._path = study_dir / CACHE_NAME
        self._places: dict[tuple[str, int], tuple[Place, Stamp]] = {}
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
        return found[0] if found is not None and found[1] == now else None

    def take(self, places: Sequence[Place]) -> pa.Table:
        """Return rows by their places, which are best in ascending order.

        Raises:
            pyarrow.ArrowException: the cache is damaged.
        """
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
        self._reader = pa.ipc.open_file(pa.memory_map(str(self._path)))
        if not self._reader.schema.equals(_SCHEMA, check_metadata=True):
            return
        names = ("experiment", "cycle", *STAMP_COLUMNS)
        options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.get_field_index(n) for n in names])
        keys = pa.ipc.open_file(pa.memory_map(str(self._path)), options=options)
        for number in range(keys.num_record_batches):
            batch = keys.get_batch(number)
            columns = [batch.column(name).to_pylist() for name in names]
            for row, (experiment, cycle, *found) in enumerate(zip(*columns, strict=True)):
                size, inode, modified_ns, changed_ns = found
                known = (size, inode, modified_ns, changed_ns)
                self._places[experiment, cycle] = (number, row), known


class MergeCacheWriter:
    """Writes the next cache beside the old one, and moves it in once all of it is written.

    Attributes:
        worthwhile: set to false where the old cache holds the same; it is then left alone.
    """

    def __init__(self, study_dir: Path) -> None:
        self._path = study_dir / CACHE_NAME
        self._files = ExitStack()
        self._writer: Any = None
        self.worthwhile = True

    def __enter__(self) -> "MergeCacheWriter":
        """Open the file; a folder that cannot be written to is merged without a cache."""
        try:
            temporary = self._files.enter_context(replacing(self._path))
        except OSError:
            return self
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_file(str(temporary), _SCHEMA, options=options)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Move the file in if nothing went wrong and it is worth it."""
        if self._writer is None:
            return
        self._writer.close()
        if kind is None and not self.worthwhile:
            kind, error = _Unwanted, _Unwanted()
        self._files.__exit__(kind, error, trace)

    def add(self, rows: pa.Table, stamps: Sequence[Stamp]) -> None:
        """Add rows with the stamps of their files."""
        if self._writer is None or not rows.num_rows:
            return
        for name, values in zip(STAMP_COLUMNS, zip(*stamps, strict=True), strict=True):
            rows = rows.append_column(name, pa.array(values, pa.int64()))
        rows = rows.replace_schema_metadata(_SCHEMA.metadata)
        self._writer.write_table(rows.combine_chunks())


class _Unwanted(Exception):  # noqa: N818 - no error: it takes a file back
    """Takes a temporary file back."""
