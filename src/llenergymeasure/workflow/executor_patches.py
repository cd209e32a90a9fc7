"""Patches for Snakemake's executors, so that they neither delete results nor forget jobs."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import say
from llenergymeasure.workflow.slurm_jobs import job_prefix
from llenergymeasure.workflow.storage import Storage


def guard_executors(workflow: Any, folder: StudyFolder, storage: Storage | None = None) -> bool:
    """Keep complete results and unanswered jobs; return whether runs are named SLURM jobs.

    A run's files in a storage are fetched first.

    The executor of snakemake-executor-plugin-slurm names jobs by a random number, by which it later
    asks for their states; the study's name is put before it.
    """
    executor: Any = getattr(workflow.scheduler, "_executor", None)
    for job_executor in (executor, getattr(workflow.scheduler, "_local_executor", None)):
        if job_executor is not None:
            _keep_complete_results(job_executor, folder, storage)
    run_uuid = getattr(executor, "run_uuid", None)
    if not isinstance(run_uuid, str):
        return False
    executor.run_uuid = f"{job_prefix(folder)}{run_uuid.rpartition('_')[2][:8]}"
    _keep_unanswered_jobs(executor)
    return True


def _keep_complete_results(executor: Any, folder: StudyFolder, storage: Storage | None) -> None:
    """Report a job whose record is complete as successful, however its process ended.

    Snakemake deletes the outputs of a failed job. But a scheduler that did not answer may report a
    finished job as over its time, and a run may be killed after its record is written. The
    Snakemake inside such a job must not delete a run's files either (--keep-incomplete): a signal
    may end it after the run, and this process, or the next call, checks what is complete.
    """
    report_success, report_error = executor.report_job_success, executor.report_job_error
    get_job_args = executor.get_job_args

    def get_all_job_args(job: Any, **kwargs: Any) -> str:
        option = " --keep-incomplete" if _job_runs(job) else ""
        return f"{get_job_args(job, **kwargs)}{option}"

    def fetched_runs(job: Any) -> list[dict[str, str]]:
        runs = _job_runs(job.job)
        if storage is not None:
            storage.fetch(runs)
        return runs

    def on_success(job: Any) -> None:
        fetched_runs(job)
        report_success(job)

    def on_error(job: Any, *args: Any, **kwargs: Any) -> None:
        runs = [folder.run(run["experiment"], run["cycle"]) for run in fetched_runs(job)]
        all_complete = False
        with suppress(OSError):  # a record that cannot be read now does not count as complete
            all_complete = bool(runs) and all(is_complete(run) for run in runs)
        if all_complete:
            say(f"{runs[0].path}: said to have failed, but its result is complete: kept")
            executor.report_job_success(job)
        else:
            report_error(job, *args, **kwargs)

    executor.report_job_success, executor.report_job_error = on_success, on_error
    executor.get_job_args = get_all_job_args


def _job_runs(job: Any) -> list[dict[str, str]]:
    """Return the experiment and cycle of each run that a job makes."""
    jobs = job.jobs if job.is_group() else [job]
    return [dict(member.wildcards_dict) for member in jobs if "cycle" in member.wildcards_dict]


def _keep_unanswered_jobs(executor: Any) -> None:
    """Let the executor ask again for jobs that an answer did not mention.

    If SLURM does not answer, the executor returns no job, and Snakemake would wait forever without
    asking again.
    """
    check_jobs, ended_ids = executor.check_active_jobs, set()

    def recording(report: Callable[..., Any]) -> Callable[..., Any]:
        def reported(job: Any, *args: Any, **kwargs: Any) -> Any:
            ended_ids.add(id(job))
            return report(job, *args, **kwargs)

        return reported

    async def check_and_keep(active: Sequence[Any]) -> AsyncIterator[Any]:
        ended_ids.clear()
        answered_ids = set()
        async for job in check_jobs(active):
            answered_ids.add(id(job))
            yield job
        for job in active:
            if id(job) not in answered_ids | ended_ids:
                yield job

    executor.report_job_success = recording(executor.report_job_success)
    executor.report_job_error = recording(executor.report_job_error)
    executor.check_active_jobs = check_and_keep
