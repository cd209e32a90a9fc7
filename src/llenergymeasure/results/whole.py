"""Whether a run's result is whole, or all of it but the result has been measured."""

import json

from llenergymeasure.files import sha256
from llenergymeasure.results.layout import RunFolder


def is_whole(folder: RunFolder) -> bool:
    """Return whether a run's record is there and its siblings have the hashes it names."""
    try:
        names = json.loads(folder.result.read_text())["files"]
        return bool(names) and all(
            sha256(folder.path / name) == digest for name, digest in names.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_measured(folder: RunFolder) -> bool:
    """Return whether a run's window was measured whole, and only its result is still missing."""
    if is_whole(folder) or not folder.stream.is_file():
        return False
    try:
        return isinstance(json.loads(folder.engine.read_text()), dict)
    except (OSError, ValueError):
        return False
