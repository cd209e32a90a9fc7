"""How a study was last started, so that ``llem resume`` can start it again in the same way."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import load_json, write_text
from llenergymeasure.redact import REMOVED
from llenergymeasure.results.layout import StudyFolder

CALL_NAME = ".call.json"

RUN_OPTION_SETTINGS = frozenset(
    {
        *("backend", "n", "precision", "dataset", "max_input_tokens"),
        *filter(None, (engine.names.requests_at_once for engine in ENGINES.values())),
        *("max_output_tokens", "weights", "protocol", "execution.n_cycles"),
        *("execution.cycle_order", "execution.experiment_gap_seconds"),
        "execution.cycle_gap_seconds",
    }
)
"""Settings that ``llem run`` overrides by its own options."""


class NotResumedError(ConfigurationError):
    """A study was run with settings that are not taken from a results folder."""


@dataclass(frozen=True)
class StudyCall:
    """One start of a study.

    Attributes:
        study_file: the file, absolute.
        settings: what the command line set over it, by dotted key.
        profile: the profile asked for.
        cwd: the folder that its paths are relative to; None if it is not known, or gone.
    """

    study_file: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    cwd: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """Return the call as text."""
        options = [f"{key}={value}" for key, value in self.settings.items()]
        options += [] if self.profile is None else [f"profile {self.profile}"]
        return " with ".join([str(self.study_file), *([", ".join(options)] if options else [])])


def store_call(folder: StudyFolder, call: StudyCall) -> list[str]:
    """Store in the results how a study was started; return a note if another study used them.

    Notification addresses are not stored: an address may be a secret.
    """
    path, earlier_file = folder.path / CALL_NAME, None
    with suppress(OSError, ValueError, KeyError, TypeError):
        earlier_file = Path(load_json(path)["study_file"])
    content = {
        "study_file": str(call.study_file.absolute()),
        "settings": {
            key: REMOVED if key.partition(".")[0] == "notify" else value
            for key, value in call.settings.items()
        },
        "profile": call.profile,
        "cwd": str(Path.cwd()),
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
    if earlier_file is None or not earlier_file.is_file() or earlier_file.samefile(call.study_file):
        return []
    return [
        f"Note: {folder.path} held the results of {earlier_file} until now, which has the same "
        f"name: its runs are kept, tables and report become those of {call.study_file}. Another "
        "`name` in one of the files keeps them apart"
    ]


def read_call(folder: StudyFolder) -> StudyCall | None:
    """Return how a study was last started; None if ``llem`` did not start it.

    A results folder may come from anybody: only the study and a fixed list of settings are taken
    from it, nothing that could run something else.

    Raises:
        NotResumedError: it was run with settings that none of our options sets.
        ConfigurationError: the study's file is gone, or another user started it.
    """
    path = folder.path / CALL_NAME
    try:
        stored = dict(load_json(path))
        cwd, profile = Path(stored.get("cwd", "")), stored["profile"]
        call = StudyCall(
            Path(stored["study_file"]),
            dict(stored["settings"]),
            None if profile is None else str(profile),
            cwd if cwd.is_absolute() and cwd.is_dir() else None,
        )
        owners = {path.stat().st_uid, folder.path.stat().st_uid}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not call.study_file.is_absolute():  # ours is always absolute
        return None
    if owners != {os.geteuid()}:
        message = f"somebody else ran this; look at its study, then: llem run {call.study_file}"
        raise ConfigurationError(Problem(message, file=folder.path))
    unknown = sorted(call.settings.keys() - RUN_OPTION_SETTINGS)
    if unknown:
        message = (
            f"was run with {', '.join(unknown)}, which no option of ours sets and a results folder "
            "may not: run the study by its file, with --set"
        )
        raise NotResumedError(Problem(message, file=path))
    if not call.study_file.is_file():
        message = "the study that was run here is gone; put it back, or run another file"
        raise ConfigurationError(Problem(message, file=call.study_file))
    return call


def last_started_study(root: Path) -> StudyFolder | None:
    """Return the study below ``root`` that ``llem`` started last; None if there is none."""
    calls = [(path.stat().st_mtime, path) for path in root.glob(f"*/{CALL_NAME}")]
    return StudyFolder(max(calls)[1].parent) if calls else None
