"""How long the rest of a study may take: the plan's estimate, set right by the runs so far."""

import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.files import write_text
from llenergymeasure.plan import Estimates, Plan, make_plan
from llenergymeasure.plan.estimate import (
    FINISH_S,
    READ_BYTES_PER_S,
    Device,
    ModelAndDevice,
    ModelSize,
)
from llenergymeasure.processes import boot_id
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.notes import note_kind, record_notes
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.workflow.progress import (
    PARALLEL_RUNS_ON_CLUSTER,
    WRITE_TABLES_S,
    Progress,
    resting_runs,
)
from llenergymeasure.workload.load_study import study_from_mapping
from support.studies import SMALL

FAILED = {"status": "failed", "attempt": 1}
INTERRUPTED = {"status": "interrupted", "attempt": 1}
HERE = {"pid": os.getpid(), "host": socket.gethostname(), "boot_id": boot_id(), "error": None}


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path)


@pytest.fixture
def plan() -> Plan:
    """A plan of a short run and then a long one."""
    windows = [{"window": {"min_seconds": seconds}} for seconds in (10, 1000)]
    study = {"model": "tiny-llama", "protocol": "quick", "experiments": windows}
    execution = {"n_cycles": 1, "cycle_order": "sequential"}
    return make_plan(study_from_mapping({**study, "execution": execution}))


@pytest.fixture
def single() -> Plan:
    """A plan of one run."""
    return make_plan(study_from_mapping(SMALL))


def sessions(rates: list[int], n_cycles: int) -> Plan:
    """Return a plan whose runs of a cycle share a server."""
    study = {"model": "tiny-llama", "protocol": "quick", "serving": {"arrivals": "poisson"}}
    study |= {"sweep": {"serving.rate_per_s": rates}}
    execution = {"n_cycles": n_cycles, "share_server": True}
    return make_plan(study_from_mapping({**study, "execution": execution}))


def place_of(folder: StudyFolder, plan: Plan, place: int) -> RunFolder:
    return folder.run(plan.runs[place].experiment, plan.runs[place].cycle)


def leave(folder: StudyFolder, plan: Plan, place: int, outcome: dict[str, Any] | str) -> RunFolder:
    """Let a run begin, and leave this outcome."""
    run = place_of(folder, plan, place)
    write_text(run.attempts, "{}\n")
    write_text(run.outcome, outcome if isinstance(outcome, str) else json.dumps(outcome))
    return run


def end(folder: StudyFolder, plan: Plan, place: int) -> RunFolder:
    return leave(folder, plan, place, {"status": "completed", "pid": os.getpid()})


def test_before_the_first_end_it_is_the_plan_s_own_estimate(
    plan: Plan, folder: StudyFolder
) -> None:
    progress = Progress(plan, folder)
    assert progress.line().startswith("0/2 done; at least 17 min left")
    time_left = progress.time_left()
    assert time_left is not None
    runs_s = Estimates().plan(plan, measured=False).seconds
    assert time_left.seconds == pytest.approx(runs_s + WRITE_TABLES_S, abs=5)
    on_cluster = Progress(plan, folder, PARALLEL_RUNS_ON_CLUSTER)
    assert on_cluster.time_left() is None


def test_an_outcome_that_cannot_be_read_at_a_moment_is_looked_at_again(
    plan: Plan, folder: StudyFolder
) -> None:
    progress = Progress(plan, folder)
    first = place_of(folder, plan, 0).outcome
    first.mkdir(parents=True)
    leave(folder, plan, 1, '{"status": "comp')
    assert progress.newly_ended() == []
    first.rmdir()
    end(folder, plan, 0)
    end(folder, plan, 1)
    assert len(progress.newly_ended()) == 2


@pytest.mark.parametrize("outcome", [FAILED, ""])
def test_a_failure_is_known_behind_runs_that_never_began_and_whatever_a_clock_says(
    plan: Plan, folder: StudyFolder, outcome: dict[str, Any] | str
) -> None:
    """As those whose image cannot be started, which stay next in line; an empty outcome too."""
    progress = Progress(plan, folder, parallel_runs=1)
    assert not progress.any_failed
    run = leave(folder, plan, 1, outcome)
    os.utime(run.attempts, (1, 1))
    assert progress.newly_ended() == []
    assert progress.any_failed
    assert not Progress(plan, folder).any_failed  # of a later call it is none


def test_a_run_that_is_repeated_has_a_second_line_with_its_number(
    plan: Plan, folder: StudyFolder
) -> None:
    """Its first end, which SLURM's preemption or an earlier call's job wrote, counts no more."""
    progress = Progress(plan, folder, PARALLEL_RUNS_ON_CLUSTER)
    run = leave(folder, plan, 0, INTERRUPTED)
    (first,) = progress.newly_ended()
    assert first.line.startswith("[1/2]")
    assert progress.any_failed
    assert progress.newly_ended() == []
    assert progress.line().endswith(" left; 1 interrupted; no run seen under way")
    run.attempts.write_text('{"status": "running", "attempt": 1}\n' * 2)
    assert progress.newly_ended() == []  # its first outcome is still there for a moment
    run.outcome.write_text('{"status": "running", "attempt": 2}')
    assert progress.newly_ended() == []
    assert progress.line().startswith("0/2 done")
    assert "interrupted" not in progress.line()
    run.outcome.write_text('{"status": "completed", "attempt": 2}')
    run.result.write_text("{}")
    (second,) = progress.newly_ended()
    assert second.line.startswith("[1/2]")
    assert "interrupted" not in second.line
    assert progress.line().startswith("1/2 done")
    assert not progress.any_failed


@pytest.mark.parametrize("clock_s", [-3600, 3600])
def test_an_end_is_seen_whatever_the_clock_of_its_file_system_says(
    plan: Plan, folder: StudyFolder, clock_s: int
) -> None:
    def fail(attempt: int) -> None:
        run = leave(folder, plan, 0, {"status": "failed", "attempt": attempt})
        os.utime(run.outcome, (time.time() + clock_s + attempt,) * 2)

    fail(1)
    progress = Progress(plan, folder)
    assert progress.newly_ended() == []
    fail(2)
    (ended,) = progress.newly_ended()
    assert ended.line.startswith("[1/2]")


def test_a_long_run_to_come_counts_as_long(plan: Plan, folder: StudyFolder) -> None:
    progress = Progress(plan, folder)
    progress._started_ns -= 10**11  # which the short run took
    end(folder, plan, 0)
    assert len(progress.newly_ended()) == 1
    time_left = progress.time_left()
    assert time_left is not None
    assert not time_left.unknown
    short, long = (Estimates().run(run.config, measured=False).seconds for run in plan.runs)
    took_s = (progress._last_end_ns - progress._started_ns) / 1e9
    assert time_left.seconds - WRITE_TABLES_S == pytest.approx(took_s * long / short, rel=0.01)


def test_a_slow_run_takes_nothing_from_those_after_it(plan: Plan, folder: StudyFolder) -> None:
    progress = Progress(plan, folder)
    short, long = (Estimates().run(run.config, measured=False).seconds for run in plan.runs)
    progress._last_end_ns -= int(5 * short * 1e9)
    time_left = progress.time_left()
    assert time_left is not None
    assert "how slow the current run is" in time_left.unknown
    assert time_left.seconds >= 4.9 * long


def test_a_last_run_that_takes_longer_than_estimated_has_no_time_left(
    plan: Plan, folder: StudyFolder
) -> None:
    progress = Progress(plan, folder)
    progress._started_ns -= 10**12  # which the long run took
    end(folder, plan, 1)
    assert len(progress.newly_ended()) == 1
    leave(folder, plan, 0, {"status": "running", "attempt": 1})
    assert "left" in progress.line()
    progress._last_end_ns -= 10**15
    assert "left" not in progress.line()


def test_a_session_has_one_start_and_what_is_measured_takes_its_end_alone(
    folder: StudyFolder, tmp_path: Path
) -> None:
    plan = sessions([1, 2, 4, 8], n_cycles=1)
    slow = Estimates(lambda _: ModelAndDevice(ModelSize(8e9, 1e12, 32), Device("card", 1e15, 3e12)))
    load_s = 1e12 / READ_BYTES_PER_S
    progress = Progress(plan, folder, estimates=slow)
    time_left = progress.time_left()
    assert time_left is not None
    assert not time_left.unknown
    assert time_left.seconds == pytest.approx(
        slow.plan(plan, measured=False).seconds + WRITE_TABLES_S, abs=5
    )
    assert load_s < time_left.seconds < 2 * load_s

    runs = [leave(folder, plan, place, {"status": "running", **HERE}) for place in (0, 1)]
    runs[1].work.mkdir()
    Marks(runs[1].marks)._write("start", "measure", time.monotonic_ns())
    assert f"{plan.label(plan.runs[1])}: measuring" in progress.line()
    runs[1].stream.touch()
    runs[1].engine.write_text("{}")
    runs[1].outcome.unlink()
    end(folder, plan, 0)
    assert len(progress.newly_ended()) == 1
    second, third, fourth = (estimate.seconds for estimate in progress._estimates.values())
    assert (second, fourth) == (FINISH_S, FINISH_S)
    assert load_s < third < 2 * load_s  # it was not measured, and starts its own for both

    progress._quality = {"texts": "texts.txt"}  # killed before they were looked at
    (alone,) = progress._estimate([(plan.runs[1].experiment, plan.runs[1].cycle)]).values()
    assert alone.seconds > load_s

    apart = Progress(plan, StudyFolder(tmp_path / "apart"), estimates=slow, share=False).time_left()
    assert apart is not None
    assert apart.seconds > 4 * load_s  # each starts its own


def test_after_a_run_of_a_session_its_own_runs_alone_are_estimated_again(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sessions([1, 2, 4], n_cycles=5)
    progress = Progress(plan, folder)
    order = list(progress._estimates)
    end(folder, plan, 0)
    looked_at: list[object] = []
    monkeypatch.setattr(
        "llenergymeasure.workflow.progress.is_reusable",
        lambda run, _quality: bool(looked_at.append(run)),
    )
    assert len(progress.newly_ended()) == 1
    assert len(looked_at) == 2
    assert list(progress._estimates) == order[1:]
    assert progress._estimates == progress._estimate(progress._open)


def test_a_run_that_ended_without_a_word_is_said_to_be_lost_and_why(
    single: Plan, folder: StudyFolder
) -> None:
    progress = Progress(single, folder)
    outcome = {"status": "running", "phase": "measure", **HERE, "pid": 2**22 + 1}
    leave(folder, single, 0, outcome)
    (ended_run,) = progress.newly_ended()
    assert ended_run.line.endswith(
        "lost in measure: ProcessGone: its process 4194305 ended without a word (killed?)"
    )


def test_what_a_run_s_preflight_warned_of_is_passed_on(plan: Plan, folder: StudyFolder) -> None:
    progress = Progress(plan, folder)
    warned = {"preflight": [{"message": "has ECC off"}], "workload": {"notes": ["prompts cut"]}}
    end(folder, plan, 0).result.write_text(json.dumps({"provenance": warned}))
    (ended_run,) = progress.newly_ended()
    assert ended_run.notes == ("has ECC off", "prompts cut")


def test_it_says_what_it_waits_for_once_nothing_more_is_to_begin(
    single: Plan, folder: StudyFolder
) -> None:
    progress = Progress(single, folder, PARALLEL_RUNS_ON_CLUSTER)
    expected = "0/1 done; no run under way, waiting for the cluster's word"
    assert len(expected) < 60
    assert progress.line("waiting until what runs has ended", "1 job waits") == expected
    assert Progress(single, folder).line("waiting until") == "0/1 done; waiting until"
    end(folder, single, 0)
    progress.newly_ended()
    line = progress.line(queue="1 job waits")  # of the last look: it has ended since
    assert line.endswith("1/1 done; waiting for the cluster's word")
    assert len(line) < 60


def test_where_no_run_is_under_way_it_says_what_the_jobs_wait_for(
    plan: Plan, folder: StudyFolder
) -> None:
    progress = Progress(plan, folder, PARALLEL_RUNS_ON_CLUSTER)
    assert progress.line() == "0/2 done; no run seen under way"
    queue = "1 job waits in SLURM's queue: other jobs come first (Priority)"
    assert progress.line(queue=queue) == f"0/2 done; {queue}"
    end(folder, plan, 0)
    progress.newly_ended()
    assert " left" in progress.line()
    assert progress.line(queue=queue) == f"1/2 done; {queue}"  # how long, nobody knows
    leave(folder, plan, 1, {"status": "running", "pid": os.getpid(), "host": "node-1"})
    assert "queue" not in progress.line(queue=queue)


def test_what_ends_of_an_earlier_call_is_no_run_of_this_one(
    single: Plan, folder: StudyFolder
) -> None:
    leave(folder, single, 0, {"status": "running", "attempt": 1, "host": "node-1"})
    progress = Progress(single, folder, PARALLEL_RUNS_ON_CLUSTER)
    run = leave(folder, single, 0, INTERRUPTED)
    assert progress.newly_ended() == []
    assert "interrupted" not in progress.line()
    run.outcome.write_text(json.dumps({"status": "failed", "attempt": 2}))
    (ended_run,) = progress.newly_ended()
    assert ended_run.line.startswith("[1/1] ")
    assert "1 failed" in progress.line()


def test_a_note_with_other_figures_is_the_same_note() -> None:
    busy = (
        "at the start other processes used {} % of the CPUs: {}; more than 5 % makes a run slower"
    )
    first = note_kind(busy.format(84, "timeout (pid 19443), python (pid 20549)"))
    assert first == note_kind(busy.format(7, "llem (pid 12)"))
    assert first == note_kind(busy.format(9, "tmux: server (pid 3), a;b (pid 4)"))
    assert first != note_kind("GPU-1 has ECC off")
    failed = "failed_requests: {} of 9 requests failed, more than 1 %; the first: HTTP 500: req-{}"
    assert note_kind(failed.format(9, "ab")) == note_kind(failed.format(7, "cd"))


def test_a_stranger_s_process_adds_no_line_by_its_name() -> None:
    """Its name, which it sets itself, may hold what would be another run's line."""
    warning = {"message": "at the start others used 9 % of the CPUs: x\n[9/9] 0.1 J (pid 7); more"}
    (note,) = record_notes({"preflight": [warning], "workload": {"notes": []}})
    assert "\n" not in note
    assert note_kind(note) == note_kind("at the start others used 7 % of the CPUs: y (pid 5); more")


def test_runs_go_by_their_settings_and_each_phase_is_said_once(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = {"precision": ["fp32"], "pytorch": [{"batch_size": 1}, {"attn_implementation": "sdpa"}]}
    plan = make_plan(study_from_mapping({**SMALL, "sweep": sweep}))
    names = [plan.label(run) for run in plan.runs]
    assert names == ["batch_size=1, cycle 1", "attn_implementation=sdpa, cycle 1"]
    progress = Progress(plan, folder)
    run = leave(folder, plan, 0, {"status": "running", **HERE})
    run.work.mkdir()
    Marks(run.marks)._write("start", "load", time.monotonic_ns())
    assert [line[: line.index(";")] for line in progress.phases()] == [f"[1/2] {names[0]}: loading"]
    assert progress.phases() == []
    assert "=None" not in progress.line()
    for number in (errno.ENOENT, errno.ESTALE):  # the run ended just now, and its marks are gone

        def gone(path: Path, number: int = number) -> bytes:
            raise OSError(number, os.strerror(number), str(path))

        with monkeypatch.context() as patch:
            patch.setattr("llenergymeasure.run.engine.phase_marks.read_bytes", gone)
            assert progress.line().endswith(f"; {names[0]}")
            assert resting_runs(plan, folder) == []
