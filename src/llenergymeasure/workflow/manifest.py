"""The manifest: every run's state at a glance, for people and ``llem status``.

Only a cache: the truth is each run's own ``result.json`` and ``outcome.json``.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llenergymeasure.files import write_text
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.units import MISSING
from llenergymeasure.workflow.stopping import precision


def run_state(folder: RunFolder) -> dict[str, Any]:
    """Return one run's status, and where it failed if it did."""
    if folder.result.is_file():
        return {"status": "completed"}
    if not folder.outcome.is_file():
        return {"status": MISSING}
    outcome = read_outcome(folder.outcome)
    error = outcome.error
    status = "lost" if outcome.status == "completed" else outcome.status
    return {
        "status": status,
        "attempt": outcome.attempt,
        "phase": outcome.phase,
        "error_class": None if error is None else error.class_,
        "error_message": None if error is None else error.message,
    }


def states(plan: Plan, folder: StudyFolder) -> list[dict[str, Any]]:
    """Return every planned run with its state, in the planned order."""
    return [
        {
            "experiment": run.experiment,
            "cycle": run.cycle,
            "order": run.order,
            **run_state(folder.run(run.experiment, run.cycle)),
        }
        for run in plan.runs
    ]


def quick_states(plan: Plan, folder: StudyFolder) -> list[dict[str, Any]]:
    """Return what :func:`states` does, looking at no more files than may have changed.

    What the manifest says is complete is believed where the run's folder is still there; a run
    without a folder was never started, or was removed. Only a record that somebody took out of
    its folder by hand is missed, until the workflow or :func:`states` looks again.
    """
    complete = _complete_before(folder)
    begun = {
        name: _names_in(folder.path / "runs" / name) for name in _names_in(folder.path / "runs")
    }
    found = []
    for run in plan.runs:
        state: dict[str, Any] = {"status": MISSING}
        if str(run.cycle) in begun.get(run.experiment, ()):
            if (run.experiment, run.cycle) in complete:
                state = {"status": "completed"}
            else:
                state = run_state(folder.run(run.experiment, run.cycle))
        named = {"experiment": run.experiment, "cycle": run.cycle, "order": run.order}
        found.append({**named, **state})
    return found


def _names_in(folder: Path) -> set[str]:
    """Return what stands in a folder; nothing where there is none."""
    try:
        return {entry.name for entry in os.scandir(folder)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _complete_before(folder: StudyFolder) -> set[tuple[str, int]]:
    """Return the runs that were complete when the manifest was written."""
    try:
        runs = json.loads(folder.manifest.read_bytes())["runs"]
        return {(run["experiment"], run["cycle"]) for run in runs if run["status"] == "completed"}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def count(runs: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return how many runs are in each state."""
    return dict(Counter(run["status"] for run in runs))


def told_precision(plan: Plan, folder: StudyFolder) -> dict[str, Any]:
    """Return how far a precision target is, as the manifest and ``llem status`` tell it."""
    found = precision(plan, folder)
    if found is None:
        return {}
    return {"precision_reached": found.reached, "precision": found.as_dict()}


def write_manifest(plan: Plan, folder: StudyFolder) -> list[dict[str, Any]]:
    """Bring the manifest up to date and return the runs' states."""
    runs = states(plan, folder)
    document = {
        "study": plan.study,
        "study_design_hash": plan.study_design_hash,
        **told_precision(plan, folder),
        "counts": count(runs),
        "runs": runs,
    }
    write_text(folder.manifest, json.dumps(document, indent=1) + "\n")
    return runs
