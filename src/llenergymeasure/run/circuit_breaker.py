"""The circuit breaker: a study whose every run fails the same way is ended, with the reason.

A missing driver or a model that cannot be reached fails each run alike; going through hundreds of
them costs hours and says nothing new. The circuit is broken once :data:`MIN_FAILURES` runs
of one call have failed with the same error, spread over as many different experiments where the
study has that many, while no run of the study has ever completed. Several cycles of one bad
experiment therefore end nothing, and neither does a study that has something to show.

The workflow closes the circuit when it begins, with a file in the study's folder; each run that
fails writes a line into it, and a run that completes removes it. A run that finds the circuit
broken refuses at once. The file is of one call of the workflow: the next one starts again, so that
a study continues as soon as the cause is fixed. (Standard library only.)
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.errors import LlemError
from llenergymeasure.files import open_file, read_bytes, write_text
from llenergymeasure.processes import identity

MIN_FAILURES = 3
"""Failures alike that end a study: two can be chance, a fourth says nothing new."""

_RUN_SPECIFIC = re.compile(r"\bpid \d+|\b0x[0-9a-f]+\b|\b[0-9a-f]{12}\b(/\d+)?")
"""What differs between the same error of two runs: process ids, addresses, the runs' own ids."""


class CircuitBrokenError(LlemError):
    """This run was not started because those before it all failed the same way."""


class Circuit:
    """The circuit of one study's folder."""

    def __init__(self, path: Path) -> None:
        """Take its file; without the file nothing is counted and the circuit never breaks."""
        self._path = path

    def close(self, experiments: int) -> None:
        """Begin to count failures, for a workflow that starts without a completed run."""
        header = {
            "experiments": experiments,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": identity(os.getpid()),
        }
        write_text(self._path, json.dumps(header) + "\n")

    def remove(self) -> None:
        """Stop counting: a run completed, or the workflow is over."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def add_failure(self, experiment: str, error: Mapping[str, Any]) -> None:
        """Note how a run failed. An error in writing is ignored: the circuit only saves time."""
        line = json.dumps({"experiment": experiment, "error": dict(error)}) + "\n"
        with contextlib.suppress(OSError, LlemError):
            handle = open_file(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)

    def broken_reason(self) -> str | None:
        """Return the reason why no more runs should start; None while they may."""
        try:
            header, *failures = [json.loads(line) for line in read_bytes(self._path).splitlines()]
            workflow_may_live = _workflow_may_live(header)
            failed_experiments = {failure["experiment"] for failure in failures}
            error_kinds = {_error_kind(failure) for failure in failures}
            min_experiments = min(MIN_FAILURES, header["experiments"])
        except (OSError, ValueError, LookupError, TypeError):
            return None
        if len(failures) < MIN_FAILURES or len(failed_experiments) < min_experiments:
            return None
        if len(error_kinds) > 1 or not workflow_may_live:
            return None
        error = failures[0].get("error") or {}
        return (
            f"The first {len(failures)} runs failed the same way, so the study is ended here: "
            f"{error.get('class')}: {error.get('message', '')}"
        )

    def refuse_if_broken(self) -> None:
        """Raise if the circuit is broken.

        Raises:
            CircuitBrokenError: the runs before it all failed the same way.
        """
        reason = self.broken_reason()
        if reason is not None:
            raise CircuitBrokenError(f"{reason}. Call the workflow again once that is fixed")


def _error_kind(failure: Mapping[str, Any]) -> tuple[str, str]:
    error = failure.get("error") or {}
    return str(error.get("class")), _RUN_SPECIFIC.sub("…", str(error.get("message", "")))


def _workflow_may_live(header: Mapping[str, Any]) -> bool:
    """Return whether the workflow that began it may be alive; on another host it is assumed."""
    on_other_host = header["host"] != socket.gethostname()
    return bool(on_other_host or header["process"] == identity(header["pid"]))
