"""Arguments by which an engine's server would listen elsewhere than where a run has it listen."""

from typing import Any

_ARGUMENTS = ("host", "port", "uds", "fd", "config", "api_key", "grpc", "ssl_keyfile", "http_port")
"""Command lines take them shortened too, and ``config`` names a file of any others."""


def moves_listener(name: str, value: Any) -> bool:
    """Return whether an argument is for the listener, or its value would be read as another's."""
    plain = name.replace("-", "_").strip("_").lower()
    values = value if isinstance(value, list | tuple) else [value]
    return any(each.startswith(plain) for each in _ARGUMENTS) or any(
        isinstance(each, str) and each.startswith("--") for each in values
    )
