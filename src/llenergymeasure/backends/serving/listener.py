"""Who listens on a port of this machine, by the kernel's own account."""

import ipaddress
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llenergymeasure.errors import BackendError
from llenergymeasure.processes import below, pids, stat_fields

_LISTENS = "0A"
"""TCP_LISTEN as ``/proc/net/tcp`` writes it (proc_pid_net(5))."""

_PROC = Path("/proc")
_STRANGER_S = 2.0
"""A stranger is one that stays: a process that is just ending keeps its sockets, and hides them."""

_LOOK_S = 0.1


@dataclass(frozen=True)
class Listener:
    """A socket that takes connections.

    Attributes:
        inode: its number, by which a process's open files name it.
        address: where it listens.
        uid: whose it is.
    """

    inode: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    uid: int

    @property
    def takes_ours(self) -> bool:
        """Whether a connection to 127.0.0.1 may reach it."""
        return self.address.is_unspecified or str(self.address) == "127.0.0.1"


def own_listener(port: int, root: int) -> bool:
    """Return whether a server that we started listens on its port; false while nobody does.

    Args:
        port: of 127.0.0.1.
        root: the process at the root of the server's, and leader of its group.

    Raises:
        BackendError: somebody else listens there, or the server lets other machines in.
    """
    since = time.monotonic()
    while strangers := _strangers(found := _listening(port), root):
        if time.monotonic() - since > _STRANGER_S:
            raise BackendError(
                f"port {port} of this machine was taken by another process, of user "
                f"{strangers[0].uid}, before the server; nothing was sent there. Run it again"
            )
        time.sleep(_LOOK_S)
    for each in found:
        if not each.address.is_loopback:
            raise BackendError(
                f"the server listens on {each.address}, where other machines reach it; set it to "
                "listen on 127.0.0.1 alone"
            )
    return any(each.takes_ours for each in found)


def server_root(base_url: str) -> int | None:
    """Return the process at the root of a running server's; None where it cannot be determined.

    That is the leader of the process group of whoever listens on the port, as servers start
    their workers next to or below themselves; the listener alone, where we are in that group too.
    """
    inodes = {each.inode for each in _listening(urlsplit(base_url).port or 80)}
    listener = min((pid for pid in pids() if inodes & _sockets(pid)), default=None)
    if listener is None:
        return None
    try:
        leader = os.getpgid(listener)
    except OSError:
        return listener
    ours = leader == os.getpgid(0) or not (_PROC / str(leader)).exists()
    return listener if ours else leader


def _strangers(found: Iterable[Listener], root: int) -> list[Listener]:
    """Return who takes our connections without being of the server's group or descent."""
    asked = [each for each in found if each.takes_ours]
    if not asked:
        return []
    every = {pid: fields for pid in pids() if (fields := stat_fields(pid))}
    own = {pid for pid, fields in every.items() if int(fields[2]) == root}
    inodes = {inode for pid in own | {root, *below({root}, every)} for inode in _sockets(pid)}
    return [each for each in asked if each.inode not in inodes]


def _listening(port: int) -> list[Listener]:
    """Return the sockets that listen on a port, of IPv4 and IPv6."""
    return [each for name in ("tcp", "tcp6") for each in _table(_PROC / "net" / name, port)]


def _table(path: Path, port: int) -> Iterator[Listener]:
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address, _, number = fields[1].partition(":")
        if fields[3] == _LISTENS and int(number, 16) == port:
            yield Listener(fields[9], _address(address), int(fields[7]))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address from the kernel's words of 32 bits, each in the machine's byte order."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    found = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's open sockets, as far as they may be seen."""
    try:
        links = [str(link.readlink()) for link in (_PROC / str(pid) / "fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}
