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


@contextmanager
def within_memory(path: Path | str) -> Iterator[None]:
    """Let a file that is read in the block take no more memory than one that is written here.

    That is 8 GiB, or eight times what it takes of the disk. A small one may hold the same value a
    billion times, and what it says of itself may be untrue: so the kernel counts (RLIMIT_AS in
    getrlimit(2)). It does for the whole process, and for children that another thread starts then.

    Raises:
        OSError: it would take more.
    """
    allocated_bytes = _BLOCK_BYTES * Path(path).stat().st_blocks  # none where a file has holes
    with _MEMORY.lowered(max(files.READ_LIMIT_BYTES, 8 * allocated_bytes)):
        try:
            yield
        except MemoryError:
            soft, _ = resource.getrlimit(resource.RLIMIT_AS)
            reason = f"would take more than may be taken of memory (up to {soft / 2**30:.1f} GiB)"
            raise OSError(errno.ENOMEM, reason, str(path)) from None


class _MemoryLimit:
    """This process's limit of memory, lowered by the first that reads and restored by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._original = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    @contextmanager
    def lowered(self, headroom_bytes: int) -> Iterator[None]:
        """Hold the limit at what is in use now and so much more; further readers keep the first."""
        with self._lock:
            if self._readers == 0:
                self._lower(headroom_bytes)
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if self._readers == 0:
                    resource.setrlimit(resource.RLIMIT_AS, self._original)

    def _lower(self, headroom_bytes: int) -> None:
        self._original = soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit_bytes = used_bytes + headroom_bytes
        limit_bytes = limit_bytes if soft == resource.RLIM_INFINITY else min(limit_bytes, soft)
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))


_MEMORY = _MemoryLimit()
