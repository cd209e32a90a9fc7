"""Servers that a study names or starts: whose they are, and where they may listen.

The standard library alone: a run's supervisor reads it too.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

READY_LIMIT_S = 1800.0
"""How long the start of a server may take."""

_ARGUMENTS = (
    *("host", "port", "uds", "fd", "config", "api_key", "grpc", "ssl_keyfile", "http_port"),
    *("grpc_port", "grpc_http_sidecar_port", "smg_http_sidecar_port", "gated_launch_port"),
    *("kv_events_config", "load_publish_endpoint"),
)
"""By which an engine's server would listen elsewhere than where a run has it listen, or there too.

Command lines take them shortened too, and ``config`` names a file of any others.
"""


def is_external(config: Mapping[str, Any]) -> bool:
    """Return whether a server that runs already does the work, so that none of it is the run's."""
    return config["backend"] == "openai" and not (config.get("openai") or {}).get("command")


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is ``localhost`` or a loopback address; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_listener(name: str) -> bool:
    """Return whether an argument is for the listener."""
    plain = name.partition(".")[0].replace("-", "_").strip("_").lower()
    return any(each.startswith(plain) for each in _ARGUMENTS)


def is_option(value: Any) -> bool:
    """Return whether a value would be read as an argument of its own on a command line."""
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, str) and each.startswith("--") for each in values)
