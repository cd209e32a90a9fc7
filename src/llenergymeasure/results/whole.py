"""Whether a run's result is whole: its record is there and vouches for the files beside it."""

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
