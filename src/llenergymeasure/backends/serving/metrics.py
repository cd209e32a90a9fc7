"""What a server says of itself while it works: its queue, and its cache's share in use."""

import math
from collections.abc import Mapping

_SHARES = frozenset({"kv_cache_share"})


def read_gauges(text: str, names: Mapping[str, str]) -> dict[str, float]:
    """Return the gauges found in a page of metrics, by our names.

    The format is Prometheus' text exposition, 0.0.4. A gauge with several sets of labels (one an
    engine process) adds up where it counts requests, and is averaged where it is a share.
    """
    wanted = {theirs: ours for ours, theirs in names.items()}
    found: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name = line.partition("{")[0].partition(" ")[0]
        ours = wanted.get(name)
        if ours is None:
            continue
        value = _value(line)
        if value is not None:
            found.setdefault(ours, []).append(value)
    return {
        ours: sum(values) / (len(values) if ours in _SHARES else 1)
        for ours, values in found.items()
    }


def _value(line: str) -> float | None:
    """Return a sample's value, which follows its labels; a time stamp may follow it."""
    rest = line.rpartition("}")[2] if "{" in line else line.partition(" ")[2]
    try:
        value = float(rest.split()[0])
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) else None
