"""``llem status``: what is done, running, failed or missing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from llenergymeasure.cli.clean import OWNER as CLEANER
from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import JsonOption, StudyArgument, note, print_json
from llenergymeasure.errors import PreflightError, ResultsError
from llenergymeasure.files import load_text, lock_holder
from llenergymeasure.plan import Plan
from llenergymeasure.report.formatting import count_text, plain
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.notes import distinct, noted_in, record_notes
from llenergymeasure.results.record_files import read_result
from llenergymeasure.screen import printable
from llenergymeasure.workflow.manifest import count_states, precision_fields, states
from llenergymeasure.workflow.precision_target import precision
from llenergymeasure.workflow.progress import phase_in_words
from llenergymeasure.workflow.slurm_jobs import QueuedJob, mark_waiting, queued_jobs, waiting_lines
from llenergymeasure.workflow.snakemake_log import failed_jobs
from llenergymeasure.workflow.snakemake_process import LOG_NAME

QUEUE_TIMEOUT_S = 5.0
TOUCHED_S = 60.0
"""Within which Snakemake touches a failed job's outcome, after it has written the error."""
MAX_RUNS_WITH_NOTES = 200
"""Finished runs whose notes a look at the state reads: of 10,000 it would take seconds."""


def status(
    study: StudyArgument = None,
    as_json: JsonOption = False,
    full: Annotated[
        bool, typer.Option("--full", help="read every run's files, not only changed ones")
    ] = False,
) -> None:
    """Print what is done, running, failed or missing."""
    folder = study_folder(study)
    plan = Plan.read(folder.plan)
    runs, holder = states(plan, folder, full=full), lock_holder(folder.lock)
    jobs: list[QueuedJob] = []
    try:
        jobs = queued_jobs(folder, QUEUE_TIMEOUT_S)
    except PreflightError as error:
        note(f"{error}: what waits in its queue is not known")
    runs = _with_reasons(mark_waiting(runs, jobs), folder)
    if as_json:
        head = {
            "study": plan.study,
            "counts": count_states(runs),
            **precision_fields(plan, folder, runs),
        }
        head["notes"] = [text for text, _ in distinct(_notes(folder, runs))]
        print_json({**head, "runs": runs})
        return
    counts = ", ".join(f"{number} {state}" for state, number in sorted(count_states(runs).items()))
    print(f"{plan.study}: {count_text(len(runs), 'run')}: {counts}")
    open_count = sum(run["status"] != "completed" for run in runs)
    precision_state = precision(plan, folder, open_count)
    if precision_state is not None:
        print(precision_state)
    for line in waiting_lines(jobs):
        print(line)
    if holder and all(run["status"] != "running" for run in runs):
        activity = "no run is under way at the moment" if open_count else "makes tables and report"
        is_cleaning = holder.startswith(f"{CLEANER} ")
        print(f"{holder} is going on" + f", and {activity}" * (not is_cleaning))
    for line in _run_lines(plan, folder, runs):
        print(line)
    for text, count in distinct(_notes(folder, runs)):
        print(printable(f"  Note: {text}" + (f" ({noted_in(count)})" if count > 1 else "")))


def _run_lines(plan: Plan, folder: StudyFolder, runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what each current run does, and how each that left no result ended and where."""
    for run in runs:
        label = plain(plan.label(plan.run(run["experiment"], run["cycle"])), 120)
        if run["status"] == "running":
            yield f"  {label}: {plain(phase_in_words(run['phase'] or 'starting'), 80)}"
        elif run["status"] in {"failed", "interrupted", "lost"} or run.get("error_class"):
            reason = plain(f"{run['error_class']}: {run['error_message']}", 1000)
            yield f"  {label}: {run['status']}: {reason}"
            files = folder.run(run["experiment"], run["cycle"])
            yield f"    log: {files.log}" if files.log.is_file() else f"    folder: {files.path}"


def _with_reasons(runs: list[dict[str, Any]], folder: StudyFolder) -> list[dict[str, Any]]:
    """Return the states of runs, with what the last call knew of those that said nothing."""
    log = folder.path / LOG_NAME
    silent_runs = [run for run in runs if run.get("error_class") in ("NeverBegan", "ProcessGone")]
    reasons: dict[str, str] = {}
    with suppress(OSError):  # another user's may not be read
        if silent_runs and log.is_file():
            reasons = dict(failed_jobs(load_text(log)))
    for run in silent_runs:
        reason = reasons.get(f"{run['experiment']}/{run['cycle']}")
        with suppress(OSError):  # one that begins just now has no outcome
            ended_s = folder.run(run["experiment"], run["cycle"]).outcome.stat().st_mtime
            if reason and ended_s - log.stat().st_mtime < TOUCHED_S:  # else in another call
                never_began = run["error_class"] == "NeverBegan"
                prefix = "the run never began: " if never_began else f"{run['error_message']}; "
                run["error_message"] = f"{prefix}{reason}; see {log}"
    return runs


def _notes(folder: StudyFolder, runs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield the notes of finished runs: of the first ones, as most hold for all of a study."""
    finished = [run for run in runs if run["status"] == "completed"]
    for run in finished[:MAX_RUNS_WITH_NOTES]:
        with suppress(ResultsError):
            result = read_result(folder.run(run["experiment"], run["cycle"]).result)
            yield record_notes(result.provenance)
