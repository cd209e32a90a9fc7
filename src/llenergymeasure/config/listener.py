"""Arguments by which an engine's server would listen elsewhere than where a run has it listen."""

from typing import Any

_ARGUMENTS = ("host", "port", "uds", "fd", "config", "api_key", "grpc", "ssl_keyfile", "http_port")
"""Command lines take them shortened too, and ``config`` names a file of any others."""


def is_listener(name: str) -> bool:
    """Return whether an argument is for the listener."""
    plain = name.replace("-", "_").strip("_").lower()
    return any(each.startswith(plain) for each in _ARGUMENTS)


def is_option(value: Any) -> bool:
    """Return whether a value would be read as an argument of its own on a command line."""
    values = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, str) and each.startswith("--") for each in values)
