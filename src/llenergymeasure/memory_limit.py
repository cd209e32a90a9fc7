"""How much memory a file that somebody else may have made can take while it is read."""

import errno
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llenergymeasure import files

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
