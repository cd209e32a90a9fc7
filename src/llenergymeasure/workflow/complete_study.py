"""Runs Snakemake until a study is complete, and sends the notification of its end."""

from pathlib import Path

from llenergymeasure.config.study import Study
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK
from llenergymeasure.plan.trust import trust_lines
from llenergymeasure.report.formatting import count_text
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.manifest import open_runs
from llenergymeasure.workflow.notify import notify_of_end, warn_of_missing_variables
from llenergymeasure.workflow.precision_target import plan_study
from llenergymeasure.workflow.slurm_jobs import has_squeue
from llenergymeasure.workflow.snakemake_process import Call, Listener, SnakemakeProcess
from llenergymeasure.workflow.snakemake_profile import job_request, may_share
from llenergymeasure.workflow.snakemake_study import QUEUE_NOT_WATCHED, SERVERS_NOT_SHARED


def complete_study(
    study: Study, study_file: Path, folder: StudyFolder, view: Listener, call: Call, lock: int
) -> tuple[int, str]:
    """Make every missing run of a study, then tables and report.

    With a precision target Snakemake is called again while pilots ask for more cycles. Failed runs
    do not stop the other experiments' cycles; an interruption does.

    Args:
        study: the study, with its runners chosen.
        study_file: the same study's file, for Snakemake.
        folder: where its results go.
        view: gets messages and progress.
        call: how Snakemake is called.
        lock: the open file of the study's lock, which the caller holds.

    Returns:
        The exit code (0, 1, 130 or 143), and Snakemake's error if no failed run explains it.
    """
    plan = plan_study(study, folder)
    has_open_runs = open_runs(plan, folder) > 0
    if has_open_runs:
        warn_of_missing_variables(study.notify, view.say)
        for line in trust_lines(plan, study.notify):
            view.say(line)
        if not may_share(plan.execution, call.profile):
            view.say(SERVERS_NOT_SHARED)
        if (job := job_request(call.profile)) and job.executor == "slurm" and not has_squeue():
            view.say(QUEUE_NOT_WATCHED)
    while True:
        snakemake = SnakemakeProcess(study_file, plan, folder, view, lock)
        exit_code = snakemake.run(call)
        extended = plan_study(study, folder)
        if exit_code not in (EXIT_OK, EXIT_FAILED) or len(extended.runs) <= len(plan.runs):
            break
        plan = extended
        view.say(f"{count_text(open_runs(plan, folder), 'more run')} for the precision target")
    if has_open_runs:
        notify_of_end(study.notify, extended, folder, snakemake.circuit_message, view.say)
    return exit_code, snakemake.error_text
