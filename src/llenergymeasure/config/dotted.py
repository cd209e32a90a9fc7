"""Settings by their dotted names."""

from collections.abc import Iterator, Mapping
from typing import Any


def value_at(settings: Mapping[str, Any], name: str) -> Any:
    """Return the value by a dotted name; None where there is none."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict | Mapping) else None
    return value


def nest(path: tuple[str, ...], value: Any) -> Any:
    """Return ``value`` in the sections that a path names."""
    for part in reversed(path):
        value = {part: value}
    return value


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting below sections with its dotted name."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
