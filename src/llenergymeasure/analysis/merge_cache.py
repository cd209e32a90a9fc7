"""Rows of runs that were read before, so that merging again reads only what is new.

One file next to the study's tables, ``.merged-rows.arrow``: the rows as they were read, each with
the stamp of the run's files it came from, and the SHA-256 of all that at the end. A row counts only
while its stamp is the same, and the file only while its hash holds. It is a cache and nothing else:
whatever is wrong with it, the runs are read again.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

import llenergymeasure
from llenergymeasure.files import read_bytes, replacing
from llenergymeasure.ids import canonical_json
from llenergymeasure.memory_limit import within_memory
from llenergymeasure.results.columns import ANALYSIS_VERSION, RUN_SCHEMA
from llenergymeasure.results.complete import Stamp

CACHE_NAME = ".merged-rows.arrow"

_KEY_COLUMNS = ("experiment", "cycle", "stamp")
_HASH_BYTES = hashlib.sha256().digest_size


CacheKey: TypeAlias = tuple[str, int, str]
"""A run's experiment and cycle, and the digest of its files' stamp."""


def _schema(swept: Sequence[str]) -> pa.Schema:
    """Return the schema of a cache's rows; its metadata says what made them."""
    return pa.schema(
        [*RUN_SCHEMA, ("stamp", pa.string())],
        metadata={
            **(RUN_SCHEMA.metadata or {}),
            b"llenergymeasure.version": llenergymeasure.__version__.encode(),
            b"llenergymeasure.analysis": ANALYSIS_VERSION,
            b"llenergymeasure.pyarrow": pa.__version__.encode(),
            b"llenergymeasure.swept": canonical_json(list(swept)).encode(),
        },
    )


def read_cache(study_dir: Path, swept: Sequence[str]) -> tuple[pa.Table, dict[CacheKey, int]]:
    """Return the rows that were read before, and where each run's is, by what it was read from.

    Rows that were made for a study that swept other settings do not count.
    """
    stored = _read_stored(study_dir / CACHE_NAME, _schema(swept))
    keys = zip(*(stored[name].to_pylist() for name in _KEY_COLUMNS), strict=True)
    rows = stored.select(RUN_SCHEMA.names).replace_schema_metadata(RUN_SCHEMA.metadata)
    return rows, {key: row for row, key in enumerate(keys)}


def _read_stored(path: Path, schema: pa.Schema) -> pa.Table:
    """Return the content of the file; no rows if its hash is wrong.

    Arrow does not check what it reads: a flipped bit would give another number, or a crash.
    """
    try:
        content = read_bytes(path)
        payload = content[:-_HASH_BYTES]
        if hashlib.sha256(payload).digest() == content[-_HASH_BYTES:]:
            with within_memory(path):
                table = pa.ipc.open_file(payload).read_all()
                if table.schema.equals(schema, check_metadata=True):
                    table.validate(full=True)
                    return table
    except (OSError, pa.ArrowException):
        pass
    return schema.empty_table()


def write_cache(
    study_dir: Path, rows: pa.Table, stamps: Sequence[Stamp], swept: Sequence[str]
) -> None:
    """Keep rows with the stamps of their files; a folder that cannot be written to has no cache.

    Rows whose files may still change unnoticed get none, so that they are read again.
    """
    digests = pa.array([stamp.digest if stamp.is_settled else "" for stamp in stamps], pa.string())
    schema = _schema(swept)
    stored = rows.append_column("stamp", digests).replace_schema_metadata(schema.metadata)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_table(stored.combine_chunks())
    content = sink.getvalue()
    with suppress(OSError), replacing(study_dir / CACHE_NAME) as temporary:
        temporary.write_bytes(content)
        with temporary.open("ab") as stream:
            stream.write(hashlib.sha256(content).digest())
