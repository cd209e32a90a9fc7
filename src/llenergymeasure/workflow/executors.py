"""Snakemake's executors, kept from losing what was measured and from forgetting jobs."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.whole import is_whole
from llenergymeasure.workflow.cluster import job_prefix


def adopt_executors(workflow: Any, folder: StudyFolder, say: Callable[[str], None]) -> bool:
    """Keep whole results and unanswered jobs; return whether runs are jobs on SLURM by their names.

    The executor of snakemake-executor-plugin-slurm names jobs after a random number, by which it
    asks for their states later; the study's name is put before it.
    """
    executor: Any = getattr(workflow.scheduler, "_executor", None)
    for each in (executor, getattr(workflow.scheduler, "_local_executor", None)):
        if each is not None:
            _keep_whole_results(each, say)
    number = getattr(executor, "run_uuid", None)
    if not isinstance(number, str):
        return False
    executor.run_uuid = f"{job_prefix(folder)}{number.rpartition('_')[2][:8]}"
    _keep_unanswered_jobs(executor)
    return True


def _keep_whole_results(executor: Any, say: Callable[[str], None]) -> None:
    """Let a job whose record is complete have succeeded, whatever became of its process.

    Snakemake deletes what a failed job has made. But a scheduler that was away may take a job that
    ended well for one over its time, and a run may be killed once its record is written.
    """
    report_error = executor.report_job_error

    def report(job: Any, *args: Any, **kwargs: Any) -> None:
        records = [Path(path) for path in job.job.output if Path(path).name == "result.json"]
        if records and all(is_whole(RunFolder(path.absolute().parent)) for path in records):
            say(f"{records[0].parent}: said to have failed, but its result is complete: kept")
            executor.report_job_success(job)
        else:
            report_error(job, *args, **kwargs)

    executor.report_job_error = report


def _keep_unanswered_jobs(executor: Any) -> None:
    """Let the executor look again at jobs of which a look has said nothing.

    Where SLURM does not answer it gives back no job, and Snakemake would wait for all of them for
    ever without asking again.
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
