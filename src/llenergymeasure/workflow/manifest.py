"""The manifest: every run's state, for people and ``llem status``.

Only a cache: the truth is each run's own ``result.json`` and ``outcome.json``. It also keeps the
stamps of complete runs' files: reading all files of 10,000 runs takes twelve seconds, checking
their stamps less than one.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from llenergymeasure.files import load_json, sha256, write_text
from llenergymeasure.plan import Plan
from llenergymeasure.results.complete import Stamp, first_fault, stamp
from llenergymeasure.results.layout import PARTIAL_MTIME_S, TABLE_NAMES, RunFolder, StudyFolder
from llenergymeasure.results.outcome import OutcomeError, without_result
from llenergymeasure.units import MISSING
from llenergymeasure.workflow.precision_target import precision


def run_state(folder: RunFolder) -> dict[str, Any]:
    """Return one run's status, and where it failed if it did.

    Raises:
        RecordVersionError: another version of this program wrote its record.
    """
    damaged = None
    if folder.result.exists():
        fault = first_fault(folder)
        if fault is None:
            return {"status": "completed"}
        damaged = f"{fault.file}: {fault.what}"
    outcome = without_result(folder, damaged)
    if outcome is None:
        return {"status": MISSING}
    error = outcome.error or OutcomeError()
    return {
        "status": outcome.status,
        "attempt": outcome.attempt,
        "phase": outcome.phase,
        "error_class": error.class_,
        "error_message": error.message,
    }


def states(plan: Plan, folder: StudyFolder, *, full: bool = False) -> list[dict[str, Any]]:
    """Return every planned run with its state, in the planned order.

    Args:
        plan: the runs.
        folder: the study's.
        full: read every finished run's files, not only those that changed since the manifest was
            written.

    Raises:
        RecordVersionError: another version of this program wrote a record.
    """
    stamps = {} if full else _previous(folder, "whole")
    return [state for state, _ in _states(plan, folder, stamps, tolerant=True)]


def open_runs(plan: Plan, folder: StudyFolder) -> int:
    """Return how many runs of a plan have no result yet, or a damaged one."""
    return sum(run["status"] != "completed" for run in states(plan, folder))


def _states(
    plan: Plan, folder: StudyFolder, stamps: Mapping[str, str], *, tolerant: bool = False
) -> Iterator[tuple[dict[str, Any], Stamp | None]]:
    """Yield every run's state, and the stamp of a complete one."""
    now_ns = time.time_ns()
    for run in plan.runs:
        run_folder = folder.run(run.experiment, run.cycle)
        current = stamp(str(run_folder.path), now_ns)
        if current is not None and stamps.get(f"{run.experiment}/{run.cycle}") == current.digest:
            state: dict[str, Any] = {"status": "completed"}
        else:
            try:
                state = run_state(run_folder)
            except OSError as error:
                if not tolerant:  # the caller would set runs aside and measure them again
                    raise
                state = _unreadable(error)
        if state["status"] != "completed":
            current = None
        identity = {"experiment": run.experiment, "cycle": run.cycle, "order": run.order}
        yield {**identity, **state}, current


def _unreadable(error: OSError) -> dict[str, Any]:
    return {
        "status": "lost",
        "attempt": None,
        "phase": None,
        "error_class": type(error).__name__,
        "error_message": f"cannot be read: {error}",
    }


def _previous(folder: StudyFolder, name: str) -> dict[str, str]:
    """Return the manifest's stamps or hashes of the runs that were complete when it was written.

    Stamps are compared with the files, so a damaged manifest cannot make a run complete.
    """
    try:
        return dict(load_json(folder.manifest)[name])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def count_states(runs: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Return how many runs are in each state."""
    return dict(Counter(run["status"] for run in runs))


def precision_fields(
    plan: Plan, folder: StudyFolder, runs: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Return the state of the precision target, for the manifest and ``llem status``."""
    state = precision(plan, folder, sum(run["status"] != "completed" for run in runs))
    return {} if state is None else {"precision_reached": state.reached, "precision": asdict(state)}


def write_manifest(plan: Plan, folder: StudyFolder) -> list[dict[str, Any]]:
    """Bring the manifest up to date and return the runs' states.

    If a run was replaced, as from a backup, tables get the oldest time stamp, since the run's files
    may be older than the tables.
    """
    stamps, hashes = _previous(folder, "whole"), _previous(folder, "records")
    runs: list[dict[str, Any]] = []
    complete: dict[str, Stamp] = {}
    for state, current in _states(plan, folder, stamps):
        runs.append(state)
        if current is not None:
            complete[f"{state['experiment']}/{state['cycle']}"] = current
    records = {
        name: hashes[name]
        if name in hashes and stamps.get(name) == current.digest
        else sha256(folder.path / "runs" / name / "result.json")
        for name, current in complete.items()
    }
    document = {
        "study": plan.study,
        "study_design_hash": plan.study_design_hash,
        **precision_fields(plan, folder, runs),
        "counts": count_states(runs),
        "runs": runs,
        "whole": {name: current.digest for name, current in complete.items() if current.is_settled},
        "records": records,
    }
    if any(hashes.get(name, digest) != digest for name, digest in records.items()):
        # First, in case this process is killed before the manifest is written.
        for table in (*TABLE_NAMES, "report.html"):
            with suppress(FileNotFoundError):
                os.utime(folder.path / table, (PARTIAL_MTIME_S, PARTIAL_MTIME_S))
    write_text(folder.manifest, json.dumps(document, indent=1) + "\n")
    return runs
