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
    for each in (executor, getattr(workflow.scheduler, "_local_executor", None)):
        if each is not None:
            _keep_whole_results(each, folder, storage)
    number = getattr(executor, "run_uuid", None)
    if not isinstance(number, str):
        return False
    executor.run_uuid = f"{job_prefix(folder)}{number.rpartition('_')[2][:8]}"
    _keep_unanswered_jobs(executor)
    return True


def _keep_whole_results(executor: Any, folder: StudyFolder, storage: Storage | None) -> None:
    """Report a job whose record is complete as successful, however its process ended.

    Snakemake deletes the outputs of a failed job. But a scheduler that did not answer may report a
    finished job as over its time, and a run may be killed after its record is written. The
    Snakemake inside such a job must not delete a run's files either (--keep-incomplete): a signal
    may end it after the run, and this process, or the next call, checks what is complete.
    """
    report_success, report_error = executor.report_job_success, executor.report_job_error
    arguments = executor.get_job_args

    def arguments_of(job: Any, **kwargs: Any) -> str:
        kept = " --keep-incomplete" if _runs_of(job) else ""
        return f"{arguments(job, **kwargs)}{kept}"

    def runs_of(job: Any) -> list[dict[str, str]]:
        runs = _runs_of(job.job)
        if storage is not None:
            storage.bring(runs)
        return runs

    def succeeded(job: Any) -> None:
        runs_of(job)
        report_success(job)

    def failed(job: Any, *args: Any, **kwargs: Any) -> None:
        runs = [folder.run(run["experiment"], run["cycle"]) for run in runs_of(job)]
        whole = False
        with suppress(OSError):  # a record that cannot be read now does not count as complete
            whole = bool(runs) and all(is_complete(run) for run in runs)
        if whole:
            say(f"{runs[0].path}: said to have failed, but its result is complete: kept")
            executor.report_job_success(job)
        else:
            report_error(job, *args, **kwargs)

    executor.report_job_success, executor.report_job_error = succeeded, failed
    executor.get_job_args = arguments_of


def _runs_of(job: Any) -> list[dict[str, str]]:
    """Return the experiment and cycle of each run that a job makes."""
    each = job.jobs if job.is_group() else [job]
    return [dict(one.wildcards_dict) for one in each if "cycle" in one.wildcards_dict]


def _keep_unanswered_jobs(executor: Any) -> None:
    """Let the executor ask again for jobs that an answer did not mention.

    If SLURM does not answer, the executor returns no job, and Snakemake would wait forever without
    asking again.
    """
    look, ended = executor.check_active_jobs, set()

    def noting(report: Callable[..., Any]) -> Callable[..., Any]:
        def reported(job: Any, *args: Any, **kwargs: Any) -> Any:
            ended.add(id(job))
            return report(job, *args, **kwargs)

        return reported

    async def look_and_keep(active: Sequence[Any]) -> AsyncIterator[Any]:
        ended.clear()
        said = set()
        async for job in look(active):
            said.add(id(job))
            yield job
        for job in active:
            if id(job) not in said | ended:
                yield job

    executor.report_job_success = noting(executor.report_job_success)
    executor.report_job_error = noting(executor.report_job_error)
    executor.check_active_jobs = look_and_keep
