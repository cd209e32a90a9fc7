"""Reading a file that somebody else may have made: never more memory than it may take."""

import errno
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llenergymeasure import files
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import read_bytes

_BLOCK_BYTES = 512
"""Of st_blocks, whatever the file system (stat(2))."""

_ONE_AT_A_TIME = threading.RLock()
"""The limit is the whole process's: threads that read wait for each other."""


@contextmanager
def within_memory(path: Path | str) -> Iterator[None]:
    """Let a file that is read in the block take no more memory than one that is written here.

    That is 8 GiB, or eight times what it takes of the disk. A small one may hold the same value a
    billion times, and what it says of itself may be untrue: so the kernel counts (RLIMIT_AS in
    getrlimit(2)). It does for the whole process, and for children that another thread starts then.

    Raises:
        OSError: it would take more.
    """
    taken_bytes = _BLOCK_BYTES * Path(path).stat().st_blocks  # none where a file has holes
    with _ONE_AT_A_TIME:
        found = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = used + max(files.READ_LIMIT_BYTES, 8 * taken_bytes)
        most = most if soft == resource.RLIM_INFINITY else min(most, soft)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
        try:
            yield
        except MemoryError:
            reason = f"would take more than may be taken of memory (up to {most / 2**30:.1f} GiB)"
            raise OSError(errno.ENOMEM, reason, str(path)) from None
        finally:
            resource.setrlimit(resource.RLIMIT_AS, found)


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
    names = None if columns is None else list(columns)
    try:
        content = read_bytes(path)
        with within_memory(path):
            file = pq.ParquetFile(pa.BufferReader(content))
            if rows is not None and file.metadata.num_rows != rows:
                held = file.metadata.num_rows
                raise ResultsError(f"{path} holds {held} rows; it must have {rows}")
            # A process that ends soon after Arrow's threads have read may abort: arrow#34314.
            table = file.read(columns=names, use_threads=False)
            for column in table.columns:
                _check_written_out(column)
            return table
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResultsError(f"{path} cannot be read: {reason}") from error
    except (KeyError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"{path} cannot be read as Parquet: {reason}") from error


def _check_written_out(column: pa.ChunkedArray) -> None:
    """Fail where there is no room for a column's texts once each stands for itself."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column.cast(kind.value_type)
    elif pa.types.is_nested(kind) and "dictionary<" in str(kind):
        raise pa.ArrowNotImplementedError(f"no column here is of the type {kind}")
