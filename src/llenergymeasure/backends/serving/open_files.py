"""How many files this process may open, and so how many connections: each is one."""

import contextlib
import resource
import sys

RESERVED = 128
"""Files that a process needs for other things than its requests: libraries, results, pages."""


def connections_allowed() -> int:
    """Raise the limit of open files as far as this user may; return the connections it allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - RESERVED)
