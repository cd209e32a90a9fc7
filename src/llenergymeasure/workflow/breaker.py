"""The circuit breaker: a study whose every run fails the same way is ended, and told why.

A missing driver or a model that cannot be reached fails each run alike; going through hundreds of
them costs hours and says nothing new. The circuit is broken once :data:`FEWEST_FAILURES` runs
of one call have failed with the same error, spread over as many different experiments where the
study has that many, while no run of the study has ever completed. Several cycles of one bad
experiment therefore end nothing, and neither does a study that has something to show.

``llem run`` watches for it. Bare Snakemake decides by its own ``--keep-going``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FEWEST_FAILURES = 3
"""Failures alike that end a study: two can be chance, a fourth says nothing new."""

_OF_ONE_RUN = re.compile(r"\bpid \d+|\b0x[0-9a-f]+\b|\b[0-9a-f]{12}\b(/\d+)?")
"""What differs between the same error of two runs: process ids, addresses, the runs' own ids."""


@dataclass(frozen=True)
class Broken:
    """Why the circuit broke.

    Attributes:
        runs: how many runs failed.
        error_class: the class of their error.
        message: what the first of them said.
    """

    runs: int
    error_class: str
    message: str

    def __str__(self) -> str:
        """Return it in words, for a person who wonders why the study stopped."""
        return (
            f"The first {self.runs} runs failed the same way, so the study is ended here: "
            f"{self.error_class}: {self.message}"
        )


def broken_circuit(
    ended: Iterable[Mapping[str, Any]], experiments: int, completed_before: bool
) -> Broken | None:
    """Return why the study should end; null while it may go on.

    Args:
        ended: the runs that this call has ended, each with ``experiment``, ``status`` and
            ``error`` (``class`` and ``message``) as in its outcome. Interrupted ones say nothing.
        experiments: how many the study has.
        completed_before: whether a run of the study was complete when this call began.
    """
    told = [each for each in ended if each["status"] in {"completed", "failed"}]
    if completed_before or any(each["status"] == "completed" for each in told):
        return None
    different = {each["experiment"] for each in told}
    if len(told) < FEWEST_FAILURES or len(different) < min(FEWEST_FAILURES, experiments):
        return None
    if len({_kind(each) for each in told}) != 1:
        return None
    error = told[0].get("error") or {}
    return Broken(len(told), str(error.get("class")), str(error.get("message", "")))


def _kind(ended: Mapping[str, Any]) -> tuple[str, str]:
    error = ended.get("error") or {}
    return str(error.get("class")), _OF_ONE_RUN.sub("…", str(error.get("message", "")))
