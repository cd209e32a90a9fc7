"""What Snakemake's executors are kept from: forgetting jobs, and losing what was measured."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from llenergymeasure.plan.make_plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.executor_patches import guard_executors
from llenergymeasure.workload.load_study import load_study
from support.programs import program
from support.studies import snakemake, write_study

WHOLE = Path(__file__).parents[1] / "results/fixtures/measured_v1/runs/8914e7a2493a/1"


@dataclass(frozen=True)
class Info:
    """A submitted job."""

    name: str
    job: SimpleNamespace


def info(name: str, *run: str) -> Info:
    wildcards = dict(zip(("experiment", "cycle"), run, strict=False))
    return Info(name, SimpleNamespace(wildcards_dict=wildcards, is_group=lambda: False))


class Executor:
    """Does with jobs as snakemake-executor-plugin-slurm does."""

    run_uuid = "snakemake_01234567"

    def __init__(self) -> None:
        self.answer: dict[str, str] | None = None
        self.succeeded: list[str] = []
        self.failed: list[str] = []

    def get_job_args(self, _: SimpleNamespace) -> str:
        return "--attempt 1"

    def report_job_success(self, job: Info) -> None:
        self.succeeded.append(job.name)

    def report_job_error(self, job: Info, msg: str) -> None:
        self.failed.append(f"{job.name} {msg}")

    async def check_active_jobs(self, active: Sequence[Info]) -> AsyncIterator[Info]:
        for job in active if self.answer is not None else ():
            state = (self.answer or {}).get(job.name, "RUNNING")
            if state == "COMPLETED":
                self.report_job_success(job)
            elif state == "TIMEOUT":
                self.report_job_error(job, msg="over its time")
            else:
                yield job

    def still_active(self, jobs: Sequence[Info], answer: dict[str, str] | None) -> str:
        async def look() -> str:
            self.answer = answer
            return "".join([job.name async for job in self.check_active_jobs(jobs)])

        return asyncio.run(look())


def adopted(folder: Path) -> Executor:
    executor = Executor()
    workflow = SimpleNamespace(scheduler=SimpleNamespace(_executor=executor))
    assert guard_executors(workflow, StudyFolder(folder))
    return executor


def test_jobs_of_which_slurm_says_nothing_are_asked_for_again(tmp_path: Path) -> None:
    executor = adopted(tmp_path)
    assert executor.run_uuid.startswith(f"llem-{tmp_path.name}-"[:40])
    assert executor.run_uuid.endswith("-01234567")
    jobs = [info(name) for name in "abc"]
    assert executor.still_active(jobs, None) == "abc"
    assert executor.still_active(jobs, {"a": "COMPLETED", "b": "TIMEOUT"}) == "c"
    assert executor.still_active(jobs, {}) == "abc"
    assert (executor.succeeded, executor.failed) == (["a"], ["b over its time"])


def test_a_whole_result_is_kept_whatever_the_scheduler_says_of_its_job(tmp_path: Path) -> None:
    study, experiment = StudyFolder(tmp_path), WHOLE.parent.name
    for cycle in "12":
        shutil.copytree(WHOLE, study.run(experiment, cycle).path)
    study.run(experiment, "2").row.write_bytes(b"cut")
    jobs = [info("a", experiment, "1"), info("b", experiment, "2")]
    executor = adopted(tmp_path)
    assert executor.still_active(jobs, {"a": "TIMEOUT", "b": "TIMEOUT"}) == ""
    assert executor.succeeded == ["a"]
    assert executor.failed == ["b over its time"]


def test_a_job_that_is_ended_once_its_run_is_over_deletes_no_record(tmp_path: Path) -> None:
    """In SLURM's job a Snakemake waits for another one by srun, which a signal ends with an error.

    The workflow's own process, or the next call, sees whether the record is whole.
    """
    plan = make_plan(load_study(write_study(tmp_path)))
    folder, run = StudyFolder(tmp_path / "results/small"), plan.runs[0]
    folder.path.mkdir(parents=True)
    folder.plan.write_bytes(plan.to_json_bytes())
    result = folder.run(run.experiment, run.cycle).result
    program(tmp_path / "srun", f"mkdir -p {result.parent}\necho {{}} > {result}\nexit 143")
    job = info("a", run.experiment, str(run.cycle)).job
    process = snakemake(
        tmp_path,
        *("--configfile", "study.yaml", "--mode", "remote", "--executor", "slurm-jobstep"),
        *("--jobs", "1", "--no-hooks", "--nolock", "--force", "--target-jobs"),
        f"measure:cycle={run.cycle},experiment={run.experiment}",
        *adopted(tmp_path).get_job_args(job).split(),
        variables={
            "LLEM_PLAN": str(folder.plan),
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        },
    )
    assert process.returncode == 1
    assert "Error in rule measure" in process.stderr, process.stderr
    assert result.is_file()
    assert adopted(tmp_path).get_job_args(info("summary").job) == "--attempt 1"
