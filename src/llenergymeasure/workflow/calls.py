"""How a study was last started, so that it can be taken up again with the same words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import write_text
from llenergymeasure.results.layout import StudyFolder

NAME = ".call.json"


@dataclass(frozen=True)
class StudyCall:
    """One start of a study.

    Attributes:
        study_file: the file, absolute.
        settings: what the command line set over it, by dotted key.
        profile: the profile asked for.
    """

    study_file: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None


def remember(folder: StudyFolder, call: StudyCall) -> None:
    """Keep how a study was started, in its results."""
    content = {
        "study_file": str(call.study_file.absolute()),
        "settings": dict(call.settings),
        "profile": call.profile,
    }
    write_text(folder.path / NAME, json.dumps(content, indent=1) + "\n")


def recall(folder: StudyFolder) -> StudyCall | None:
    """Return how a study was last started; null if it was not by ``llem``.

    Raises:
        ConfigurationError: the study's file is gone.
    """
    try:
        stored = json.loads((folder.path / NAME).read_text())
        call = StudyCall(Path(stored["study_file"]), stored["settings"], stored["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not call.study_file.is_file():
        message = "the study that was run here is gone; put it back, or run another file"
        raise ConfigurationError(Problem(message, file=call.study_file))
    return call


def last_called(root: Path) -> StudyFolder | None:
    """Return the study below ``root`` that ``llem`` started last; null if there is none."""
    found = [(path.stat().st_mtime, path) for path in root.glob(f"*/{NAME}")]
    return StudyFolder(max(found)[1].parent) if found else None
