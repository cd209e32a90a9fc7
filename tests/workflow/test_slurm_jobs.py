"""What is asked of SLURM's commands and made of their answers; commands of our own answer."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from llenergymeasure.errors import PreflightError
from llenergymeasure.machine.cpu_share import AT_ONCE_VARIABLE
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run import pin
from llenergymeasure.workflow import slurm_jobs
from llenergymeasure.workflow.slurm_jobs import (
    QueuedJob,
    QueueWatch,
    cancel_jobs_and_wait,
    job_prefix,
    queued_jobs,
    waiting_lines,
    waiting_summary,
)
from llenergymeasure.workflow.snakemake_study import QUEUE_NOT_WATCHED, SnakemakeStudy
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from support.programs import program
from support.studies import write_study
from workflow.conftest import opened

JOB = QueuedJob("17", "llem-s-abc-1", "RUNNING")


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "small")


def line(folder: StudyFolder, number: int = 17, state: str = "PENDING", reason: str = "") -> str:
    """What squeue says of one of the study's jobs."""
    return f"{number}|{job_prefix(folder)}ab|{state}|{reason}|"


NEVER = ", which never ends by itself"
AWAY = "in use, or out of service; a pinned study's own job may be on it"
NO_NODE_NOW = (
    "by its MinNodes or MaxNodes the partition takes no job of one node, or its nodes are down for "
    "a while"
)
OTHERS_OR_A_PERSON_MAY_END = (
    *("QOSMaxJobsPerUserLimit", "QOSMaxGRESPerUser", "QOSMaxNodePerUserLimit"),
    *("AssocGrpGRES", "AssocMaxJobsLimit", "JobHeldUser"),
)
NO_NODE_GIVES = (
    *("PartitionConfig", "QOSMaxGRESPerJob", "QOSMaxCpuPerJobLimit", "QOSMaxMemoryPerNode"),
    *("QOSMinGRES", "AssocMaxGRESPerJob", "MaxMemPerLimit"),
)
HELD = (
    "launch failed requeued held",
    "launch failure limit exceeded requeued held",
    "JobHoldMaxRequeue",
)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", "not looked at by SLURM yet"),
        ("Priority", "other jobs come first (Priority)"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", f"the node that is asked for is {AWAY} (ReqN"),
        ("Nodes required for job are DOWN, DRAINED", f"the nodes that will do are {AWAY} (Nodes"),
        ("PartitionNodeLimit", f"{NO_NODE_NOW} (PartitionNodeLimit)"),
        ("BeginTime", "its time to begin has not come: after a requeue SLURM makes a pause (Begin"),
        *((reason, reason) for reason in OTHERS_OR_A_PERSON_MAY_END),
        *((reason, f"{reason}{NEVER}: no node of the partition") for reason in NO_NODE_GIVES),
        *((reason, f"{reason}{NEVER}: SLURM holds it") for reason in HELD),
    ],
)
@pytest.mark.parametrize("state", ["PENDING", "REQUEUE_HOLD"])
def test_why_a_job_waits_is_said_in_words(state: str, reason: str, words: str) -> None:
    job = QueuedJob("7", "llem-a", state, reason)
    (said,) = waiting_lines([job, JOB])
    assert said.startswith(f"1 job waits in SLURM's queue: {words}")
    assert (job.never_starts, NEVER in said) == (NEVER in words, NEVER in words)


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (
            ["ReqNodeNotAvail, UnavailableNodes:n1"],
            "1 job waits: the node that is asked for is in use, or out of service",
        ),
        (["PartitionNodeLimit"], f"1 job waits: {NO_NODE_NOW}"),
        (["Priority", "Priority"], "2 jobs wait: other jobs come first"),
        (["Priority", "Resources"], "2 jobs wait in the queue"),
        ([], ""),
    ],
)
def test_a_line_of_progress_says_it_in_a_few_words(reasons: list[str], words: str) -> None:
    jobs = [QueuedJob(str(n), "llem", "PENDING", each) for n, each in enumerate(reasons)]
    assert waiting_summary([*jobs, JOB]) == words


def test_jobs_are_not_taken_for_gone_while_squeue_fails(slurm: Path) -> None:
    program(slurm / "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(PreflightError, match="17"):
        cancel_jobs_and_wait([JOB])


def test_commands_that_hang_are_an_error(
    slurm: Path, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_jobs, "COMMAND_TIMEOUT_S", 0.2)
    for name in ("squeue", "scancel"):
        program(slurm / name, "exec sleep 5")
    with pytest.raises(PreflightError, match="squeue did not answer"):
        queued_jobs(folder)
    with pytest.raises(PreflightError, match="scancel 17 did not answer"):
        cancel_jobs_and_wait([JOB])


def test_other_jobs_of_the_user_may_have_comments_of_several_lines(
    slurm: Path, folder: StudyFolder
) -> None:
    program(slurm / "squeue", f"printf '9|mine|RUNNING|None|first\nsecond\n\n{line(folder)}\n'")
    assert [job.id for job in queued_jobs(folder)] == ["17"]


@pytest.mark.parametrize("name", ["SQUEUE_STATES", "SQUEUE_PARTITION", "SQUEUE_ACCOUNT"])
def test_what_a_user_lists_for_himself_hides_no_job_of_a_study(
    slurm: Path, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Hidden jobs would measure next to new ones, and be taken for gone while they wait."""
    program(slurm / "squeue", f"[ -n \"${name}\" ] || echo '{line(folder)}'")
    program(slurm / "scancel", f'[ -n "$SCANCEL_STATE" ] || touch {slurm}/cancelled')
    monkeypatch.setenv(name, "urgent")
    monkeypatch.setenv("SCANCEL_STATE", "RUNNING")
    jobs = queued_jobs(folder)
    assert [job.id for job in jobs] == ["17"]
    slurm_jobs.cancel_jobs(jobs)
    assert (slurm / "cancelled").exists()


def test_jobs_and_nodes_of_a_hidden_partition_are_seen(
    slurm: Path, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM lists them to those alone who ask for all (squeue(1), ``--all``)."""
    monkeypatch.delenv("SQUEUE_ALL", raising=False)
    program(slurm / "squeue", f"[ -z \"$SQUEUE_ALL\" ] || echo '{line(folder)}'")
    program(slurm / "sinfo", "[ -z \"$SINFO_ALL\" ] || echo 'n1|gpu:a100:2|idle|hidden'")
    assert [job.id for job in queued_jobs(folder)] == ["17"]
    assert [node.name for node in pin._nodes("hidden")] == ["n1"]


def test_a_configuration_that_is_not_found_for_a_while_is_no_empty_queue(
    slurm: Path, folder: StudyFolder
) -> None:
    """In SLURM's configless mode each command fetches it, and finds none while a name server is
    away."""
    error = "squeue: fatal: Could not establish a configuration source"
    program(slurm / "squeue", f"echo '{error}' >&2; exit 1")
    assert queued_jobs(folder) == []  # as on a machine without a cluster
    with pytest.raises(PreflightError, match="SLURM does not answer"):
        queued_jobs(folder, in_cluster=True)
    assert QueueWatch(folder)._has_work_left()


class StillWatchingError(Exception):
    """The watch has looked often enough to show that it goes on."""


@pytest.fixture
def watch(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[list[Any], str]]:
    """Watch the queue by a clock that does not wait; return its signals and its words."""
    clock_s, quiet_limit_s = [0.0], 2 * slurm_jobs.QUEUE_POLL_S
    signals: list[Any] = []
    # Other tests of this process may have left children, which are no rules.
    monkeypatch.setattr(slurm_jobs, "descendants", lambda _: [])

    def sleep(seconds: float) -> None:
        clock_s[0] += seconds
        if clock_s[0] > 2 * quiet_limit_s:
            raise StillWatchingError

    def watched() -> tuple[list[Any], str]:
        with monkeypatch.context() as patch:
            patch.setattr(
                slurm_jobs, "time", SimpleNamespace(monotonic=lambda: clock_s[0], sleep=sleep)
            )
            patch.setattr(slurm_jobs, "QUIET_LIMIT_S", quiet_limit_s)
            patch.setattr(slurm_jobs.os, "kill", lambda *words: signals.append(words))
            QueueWatch(folder).run()
        return signals, "".join(capsys.readouterr())

    return watched


def test_where_nothing_is_left_the_workflow_is_ended_and_says_why(slurm: Path, watch: Any) -> None:
    program(slurm / "squeue", "true")
    signals, said = watch()
    assert signals == [(os.getpid(), 15)]
    assert "the same call makes the rest" in said
    assert not (slurm / "cancelled").exists()


def test_a_job_that_can_never_start_is_named_once_and_ends_the_workflow(
    slurm: Path, folder: StudyFolder, watch: Any
) -> None:
    program(slurm / "squeue", f"echo '{line(folder, reason='PartitionConfig')}'")
    signals, said = watch()
    assert signals == [(os.getpid(), 15)]
    assert said.count(f"1 job waits in SLURM's queue: PartitionConfig{NEVER}") == 1
    assert "mem_mb" in said
    assert (slurm / "cancelled").read_text() == "17\n"  # Snakemake would wait for it for ever


@pytest.mark.parametrize(
    "squeue",
    [
        "echo '{resources}'",
        "echo '{no_node_now}'; [ -e {mark} ] || echo '{no_node_now}'; touch {mark}",
        "echo 'Unable to contact slurm controller' >&2; exit 1",
    ],
    ids=["a job in the queue", "nodes that may come back", "a controller that does not answer"],
)
def test_what_may_still_happen_is_waited_for(
    slurm: Path, folder: StudyFolder, watch: Any, squeue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "resources": line(folder, reason="Resources"),
        "no_node_now": line(folder, reason="PartitionNodeLimit"),
    }
    program(slurm / "squeue", squeue.format(**answers, mark=slurm / "mark"))
    with pytest.raises(StillWatchingError):
        watch()
    said = "".join(capsys.readouterr())
    assert said.count("in SLURM's queue: by its MinNodes or MaxNodes") == ("{mark}" in squeue)
    assert not (slurm / "cancelled").exists()


def test_a_rule_that_runs_here_is_waited_for(
    slurm: Path, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(slurm / "squeue", "true")
    monkeypatch.setattr(slurm_jobs, "descendants", lambda _: [4711])
    with pytest.raises(StillWatchingError):
        watch()


def test_snakemake_s_executor_does_not_see_what_a_user_lists_for_himself_either(
    slurm: Path, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(slurm / "squeue", "true")
    monkeypatch.setattr(QueueWatch, "start", lambda _: None)
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")
    for name in ("SQUEUE_ALL", "SINFO_ALL", "SCONTROL_ALL"):
        monkeypatch.setenv(name, "")  # and put back what is set
    opened(folder)._prepare_cluster(named_jobs=True)
    assert "SQUEUE_PARTITION" not in os.environ
    assert os.environ["SQUEUE_ALL"] == "1"
    assert "PATH" in os.environ


def test_where_jobs_cannot_be_listed_none_are_taken_for_gone(
    slurm: Path,
    folder: StudyFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watched: list[Any] = []
    monkeypatch.setattr(QueueWatch, "start", lambda watch: watched.append(watch))
    monkeypatch.setenv("PATH", str(slurm))  # scancel alone
    opened(folder)._prepare_cluster(named_jobs=True)
    assert not watched
    assert QUEUE_NOT_WATCHED in capsys.readouterr().err
    program(slurm / "squeue", ":")
    opened(folder)._prepare_cluster(named_jobs=True)
    assert [watch.daemon for watch in watched] == [True]  # it keeps no Snakemake from its end


def test_job_arrays_are_refused_before_anything_is_submitted(folder: StudyFolder) -> None:
    study = opened(folder, executor_settings=SimpleNamespace(array_jobs=["measure"]))
    with pytest.raises(PreflightError, match=r"--slurm-array-jobs.*leave it out"):
        study._prepare_cluster(named_jobs=True)


@pytest.mark.parametrize(
    ("extra", "asked"),
    [
        ("--exclusive", "--exclusive --nodelist=n1"),
        ("--nodelist=n3", None),
        ("--exclusive -w n3", None),
        ("-wn3", None),
        ("-F nodes.txt", None),
        ("--nodefile=nodes.txt", None),
    ],
)
def test_a_node_that_the_profile_names_is_not_chosen_again(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch, extra: str, asked: str | None
) -> None:
    plan = make_plan(study_from_mapping({"model": "tiny-llama", "execution": {"pin": "node"}}))
    monkeypatch.setattr(
        "llenergymeasure.workflow.snakemake_study.pin_options",
        lambda plan, *_: dict.fromkeys(plan.experiments, "--nodelist=n1"),
    )
    settings = SimpleNamespace(nodes=2, default_resources={"slurm_extra": f"'{extra}'"})
    study = opened(folder, resource_settings=settings, is_main_process=True)
    study._plan = plan
    assert study.resources().get("slurm_extra") == asked


@pytest.mark.parametrize(("local", "shares"), [(True, "4"), (False, None)])
def test_processors_are_shared_out_on_this_machine_and_not_within_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool, shares: str | None
) -> None:
    """``--jobs`` may be given on one machine too."""
    study = write_study(tmp_path, execution={"n_cycles": 1, "skip_preflight": True})
    plan, folder = make_plan(load_study(study)), StudyFolder(tmp_path / "results" / "small")
    workflow = SimpleNamespace(
        is_main_process=True,
        local_exec=local,
        storage_settings=SimpleNamespace(default_storage_provider=None),
        deployment_settings=SimpleNamespace(deployment_method=()),
        resource_settings=SimpleNamespace(resources={"gpu": 4}, cores=8, nodes=4),
    )
    monkeypatch.setattr("llenergymeasure.workflow.snakemake_study.guard_executors", mock.Mock())
    monkeypatch.setattr(SnakemakeStudy, "_prepare_cluster", mock.Mock())
    with mock.patch.dict(os.environ, {AT_ONCE_VARIABLE: "3"}):
        study_of_workflow = SnakemakeStudy(plan, folder, workflow)
        study_of_workflow.begin()
        study_of_workflow._lock.close()
        assert os.environ.get(AT_ONCE_VARIABLE) == shares
