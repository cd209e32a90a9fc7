"""Runs without a result: why, and what a person can do about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llenergymeasure.report.formatting import plain

MESSAGE_LIMIT = 600

_MEMORY = (
    "Model and batch did not fit into memory: lower the batch size or the number of concurrent "
    "sequences, shorten prompts or outputs, or choose a smaller precision."
)
_PACKAGE = (
    "A package is missing where the run was made: install the backend's requirements file from "
    "envs/, or run in the backend's image."
)
_FETCH = (
    "Model or data set could not be fetched: check its name, the network and the access token, or "
    "name a local copy."
)
_REFUSED = (
    "The engine refused a setting or could not load the model: the message names it; change it in "
    "the study."
)
_METER = "A sensor or the recorder failed: try it alone with `llem meter -- sleep 5`."
_RECORD = (
    "Its files were removed or damaged after it completed: bring them back, or delete the run's "
    "folder and run the study again."
)
_JOB = (
    "Nothing was measured: run the study again. If nobody ended it and it happens twice, look at "
    "snakemake.log in the study's folder: it has the message, or names the log of the job itself."
)
_ADVICE_BY_CLASS = {
    "NeverBegan": _JOB,
    "ProcessGone": "Ended without a word, as after a power cut, or a kill for want of memory; in "
    "an image file also where its job was cancelled or over its time. Run the study again, and "
    "look at the log if it happens twice; on SLURM also at the job's own, in "
    ".snakemake/slurm_logs, for CANCELLED or a limit.",
    "RecordGone": _RECORD,
    "DamagedRecord": _RECORD,
    "OutOfMemoryError": _MEMORY,
    "MemoryError": _MEMORY,
    "TimeoutError": "Longer than a run may take: raise execution.run_timeout_seconds, or give the "
    "run less to do.",
    "ModuleNotFoundError": _PACKAGE,
    "ImportError": _PACKAGE,
    "GatedRepoError": _FETCH,
    "RepositoryNotFoundError": _FETCH,
    "HfHubHTTPError": _FETCH,
    "LocalEntryNotFoundError": _FETCH,
    "ConnectionError": _FETCH,
    "PermissionError": "The user of the run may not do this: check the rights on the file or "
    "device it names.",
    "PreflightError": "The machine was not fit for the run; nothing was measured. Fix what the "
    "message names.",
    "MeterError": _METER,
    "NVMLError": _METER,
    "ConfigurationError": _REFUSED,
    "BackendError": _REFUSED,
}
"""What to do, by the error's class; its message is only for people."""

_ADVICE_BY_STATUS = {
    "running": "Still running when these tables were written.",
    "missing": "Never started: run the study again.",
    "interrupted": "Stopped from outside: do what the message asks for, if anything, and run the "
    "study again.",
    "lost": "Ended without a word, as after a power cut or a kill: run the study again, and "
    "look at the log if it happens twice.",
}
_DEFAULT_ADVICE = "Look at the log, fix the cause, and run the study again."


@dataclass(frozen=True)
class Failure:
    """Runs that have no result for the same reason.

    Attributes:
        status: how they ended.
        phase: the phase they were in; None if unknown.
        error_class: the error's class; None if there was none.
        message: what the error said, on one line.
        advice: what to do.
        runs: ``(experiment, cycle)`` of each.
    """

    status: str
    phase: str | None
    error_class: str | None
    message: str | None
    advice: str
    runs: tuple[tuple[str, int], ...]

    @property
    def reason(self) -> str:
        """Return status, phase and error as one line."""
        phase = f" in {self.phase}" if self.phase else ""
        error = ": ".join(part for part in (self.error_class, self.message) if part)
        return f"{self.status}{phase}" + (f": {error}" if error else "")


def failures(runs: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """Return the runs without a result, grouped by reason."""
    runs_by_reason: dict[tuple[str, str | None, str | None, str | None], list[tuple[str, int]]] = {}
    for run in runs:
        if run["status"] == "completed":
            continue
        key = (run["status"], _line(run["phase"]), _line(run["error_class"]), run["error_message"])
        runs_by_reason.setdefault(key, []).append((run["experiment"], run["cycle"]))
    return [
        Failure(
            status,
            phase,
            error_class,
            None if message is None else plain("; ".join(message.splitlines()), MESSAGE_LIMIT),
            advise(status, error_class),
            tuple(members),
        )
        for (status, phase, error_class, message), members in runs_by_reason.items()
    ]


def _line(text: str | None) -> str | None:
    return None if text is None else plain(text)


def advise(status: str, error_class: str | None) -> str:
    """Return what to do about a run that ended this way."""
    if status in {"failed", "lost", "missing"} and error_class in _ADVICE_BY_CLASS:
        return _ADVICE_BY_CLASS[error_class]
    return _ADVICE_BY_STATUS.get(status, _DEFAULT_ADVICE)
