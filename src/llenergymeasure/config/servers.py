"""Servers that a study names or starts: who started them, and where they may listen.

The standard library alone: a run's supervisor reads it too.
"""

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

READY_LIMIT_S = 1800.0
"""How long the start of a server may take."""

_LISTENER_ARGUMENTS = (
    *("host", "port", "uds", "fd", "config", "api_key", "grpc", "ssl_keyfile", "http_port"),
    *("grpc_port", "grpc_http_sidecar_port", "smg_http_sidecar_port", "gated_launch_port"),
    *("kv_events_config", "load_publish_endpoint"),
)
"""Arguments by which an engine's server would listen elsewhere than the run needs, or also there.

Command lines take them shortened too, and ``config`` names a file of any others.
"""


def is_external(config: Mapping[str, Any]) -> bool:
    """Return whether a server that already runs does the work, not a process of the run."""
    return config["backend"] == "openai" and not (config.get("openai") or {}).get("command")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is ``localhost`` or a loopback address; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_this_machine(host: str) -> bool:
    """Return whether ``host`` is known to be this machine, by a name or an address of its own.

    Nothing is sent to it. False where it is another, or a name that this machine does not go by.
    """
    name, own_name = host.rstrip(".").lower(), socket.gethostname().lower()
    if name in ("localhost", own_name):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        same_host = name.partition(".")[0] == own_name.partition(".")[0]
        return same_host and name == socket.getfqdn().lower()
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as route:
            route.connect((str(address), 9))  # a datagram socket's sends nothing
            return str(route.getsockname()[0]) == str(address)
    except OSError:
        return False


def is_listener(name: str) -> bool:
    """Return whether an argument configures the server's listener."""
    option = name.partition(".")[0].replace("-", "_").strip("_").lower()
    return any(argument.startswith(option) for argument in _LISTENER_ARGUMENTS)


def is_option(value: Any) -> bool:
    """Return whether a value would be read as an argument of its own on a command line."""
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(item, str) and item.startswith("--") for item in values)
