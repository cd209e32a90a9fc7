"""Whether an experiment's server is somebody else's (standard library only)."""

from collections.abc import Mapping
from typing import Any


def is_external(config: Mapping[str, Any]) -> bool:
    """Return whether a server that runs already does the work, so that none of it is the run's."""
    return config["backend"] == "openai" and not (config.get("openai") or {}).get("command")
