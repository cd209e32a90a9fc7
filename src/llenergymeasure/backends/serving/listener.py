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
from llenergymeasure.processes import descendant_pids, pids, stat_fields

_LISTEN_STATE = "0A"
"""TCP_LISTEN as ``/proc/net/tcp`` writes it (proc_pid_net(5))."""

_PROC = Path("/proc")
_STRANGER_LIMIT_S = 2.0
"""A stranger is one that stays: a process that is just ending keeps its sockets, and hides them."""

_POLL_S = 0.1


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
    def accepts_loopback(self) -> bool:
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
    start_s = time.monotonic()
    while strangers := _strangers(listeners := _listeners(port), root):
        if time.monotonic() - start_s > _STRANGER_LIMIT_S:
            raise BackendError(
                f"port {port} of this machine was taken by another process, of user "
                f"{strangers[0].uid}, before the server; nothing was sent there. Run it again"
            )
        time.sleep(_POLL_S)
    for listener in listeners:
        if not listener.address.is_loopback:
            raise BackendError(
                f"the server listens on {listener.address}, where other machines reach it; set it "
                "to listen on 127.0.0.1 alone"
            )
    return any(listener.accepts_loopback for listener in listeners)


def server_root(base_url: str) -> int | None:
    """Return the process at the root of a running server's; None where it cannot be determined.

    That is the leader of the process group of whoever listens on the port, as servers start
    their workers next to or below themselves; the listener alone, where we are in that group too.
    """
    inodes = {socket.inode for socket in _listeners(urlsplit(base_url).port or 80)}
    listener = min((pid for pid in pids() if inodes & _socket_inodes(pid)), default=None)
    if listener is None:
        return None
    try:
        leader = os.getpgid(listener)
    except OSError:
        return listener
    if leader == os.getpgid(0) or not (_PROC / str(leader)).exists():
        return listener
    return leader


def _strangers(listeners: Iterable[Listener], root: int) -> list[Listener]:
    """Return who takes our connections without being of the server's group or descent."""
    reachable = [listener for listener in listeners if listener.accepts_loopback]
    if not reachable:
        return []
    processes = {pid: fields for pid in pids() if (fields := stat_fields(pid))}
    members = {pid for pid, fields in processes.items() if int(fields[2]) == root}
    members |= {root, *descendant_pids({root}, processes)}
    inodes = {inode for pid in members for inode in _socket_inodes(pid)}
    return [listener for listener in reachable if listener.inode not in inodes]


def _listeners(port: int) -> list[Listener]:
    """Return the sockets that listen on a port, of IPv4 and IPv6."""
    return [*_read_table(_PROC / "net" / "tcp", port), *_read_table(_PROC / "net" / "tcp6", port)]


def _read_table(path: Path, port: int) -> Iterator[Listener]:
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        address, _, number = fields[1].partition(":")
        if fields[3] == _LISTEN_STATE and int(number, 16) == port:
            yield Listener(fields[9], _parse_address(address), int(fields[7]))


def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address from the kernel's words of 32 bits, each in the machine's byte order."""
    words = (int(text[start : start + 8], 16) for start in range(0, len(text), 8))
    address = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    ipv4_address = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return ipv4_address or address


def _socket_inodes(pid: int) -> set[str]:
    """Return the inodes of a process's open sockets, as far as they may be seen."""
    try:
        links = [str(link.readlink()) for link in (_PROC / str(pid) / "fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}
