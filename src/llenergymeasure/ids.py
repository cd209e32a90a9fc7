"""Canonical JSON and the hashes that name experiments.

An experiment's id must not change when a later version adds an option, or results that were
paid for would be orphaned; hence only values that are set count, and numbers are normalised.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

HASH_VERSION = 1
"""Part of every hash: raised only when the meaning of a setting changes."""

ID_DIGITS = 12

_SCALARS = (str, bool, int)
"""Types that are their own canonical form; distinguished first, for plans hash a great many."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def normalise(value: Any) -> Any:
    """Return ``value`` with nulls and empty mappings dropped and whole floats as integers.

    Raises:
        ValueError: a number is not finite; it has no canonical JSON.
    """
    if value is None or type(value) in _SCALARS:
        return value
    if isinstance(value, dict | Mapping):
        items = {str(key): normalise(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None and item != {}}
    if isinstance(value, list | tuple):
        return [normalise(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no canonical form")
        return int(value) if value.is_integer() else value
    return value


def canonical_json(value: Any) -> str:
    """Return the one JSON text of ``value``: sorted keys, no spaces, nothing unset."""
    return _ENCODER.encode(normalise(value))


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def experiment_id(
    config: Mapping[str, Any], encoded: dict[tuple[str, str], str] | None = None
) -> str:
    """Return the first 12 hex digits of the hash of a resolved configuration.

    Args:
        config: the settings that define the experiment, without execution or runner settings
            and with local files given by content hash.
        encoded: settings as they are in canonical JSON, by name and ``repr``, kept from one of a
            study's experiments to the next: they have most of their settings in common.
    """
    encoded = {} if encoded is None else encoded
    parts = []
    for key in sorted(config):
        setting = key, repr(config[key])
        if setting not in encoded:
            value = canonical_json(config[key])
            encoded[setting] = "" if value in ("null", "{}") else f"{canonical_json(key)}:{value}"
        parts.append(encoded[setting])
    settings = ",".join(filter(None, parts))
    document = f'{{"config":{{{settings}}},"hash_version":{HASH_VERSION}}}'
    return hashlib.sha256(document.encode()).hexdigest()[:ID_DIGITS]


def study_design_hash(experiments: Iterable[str]) -> str:
    """Return the hash of the ordered experiment ids, as 64 hex digits."""
    return digest({"experiments": list(experiments), "hash_version": HASH_VERSION})
