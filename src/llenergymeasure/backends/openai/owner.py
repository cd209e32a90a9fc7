"""Which processes on this machine a running server is made of, so that they are not strangers."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

_LISTENS = "0A"
"""TCP_LISTEN as ``/proc/net/tcp`` writes it (proc_pid_net(5))."""


def server_root(base_url: str, proc: Path = Path("/proc")) -> int | None:
    """Return the process at the root of the server's; null where it cannot be told.

    That is the leader of the process group of whoever listens on the port, as servers start
    their workers beside or below themselves; the listener alone, where we are in that group too.

    Args:
        base_url: of a server on this machine.
        proc: where processes are described.
    """
    port = urlsplit(base_url).port or 80
    sockets = set(_listening(port, proc))
    listener = _holder(sockets, proc) if sockets else None
    if listener is None:
        return None
    try:
        leader = os.getpgid(listener)
    except OSError:
        return listener
    ours = leader == os.getpgid(0) or not (proc / str(leader)).exists()
    return listener if ours else leader


def _listening(port: int, proc: Path) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port, of IPv4 and IPv6."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holder(inodes: set[str], proc: Path) -> int | None:
    """Return the process started first of those that hold one of the sockets."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    found = []
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            links = {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except OSError:
            continue
        if links & wanted:
            found.append(int(folder.name))
    return min(found, default=None)
