"""Writes docs/faults.md: every injected fault, what is recorded of it, and the test that holds it.

    python tests/run/faults_page.py

The rows of the one study come from the list that its test runs; the others name their tests.
"""

import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
sys.path[:0] = [str(ROOT / "tests")] if __name__ == "__main__" else []

from run.fault_list import Fault, faults  # noqa: E402 - found by the line above

STUDY = "tests/run/test_fault_study.py"
MORE = "tests/run/test_faults_more.py"
LOST = "tests/run/test_lost_disk.py"
PREFLIGHT = "tests/run/test_preflight.py"
GUARD = "tests/machine/test_guard.py"


@dataclass(frozen=True)
class Row:
    """One fault that has a test of its own.

    Attributes:
        text: what is done.
        recorded: what the outcome, or the caller, is told.
        code: the exit code of the run, or of the command where there is no run.
        then: what the next call does.
        test: ``file::test`` that holds it.
    """

    text: str
    recorded: str
    code: str
    then: str
    test: str


AGAIN = "makes it"
NOTHING = "nothing to do"

SINGLE = [
    Row(
        "the checkpoint is no checkpoint at all",
        "failed",
        "1",
        AGAIN,
        f"{MORE}::test_weights_that_are_no_checkpoint_at_all",
    ),
    Row("the model has no weights", "failed", "1", AGAIN, f"{MORE}::test_a_model_without_weights"),
    Row(
        "the model's `config.json` is damaged",
        "failed in `preflight`",
        "1",
        AGAIN,
        f"{MORE}::test_a_model_whose_configuration_is_damaged",
    ),
    Row(
        "the disk is full before the run",
        "failed, `PreflightError`",
        "1",
        AGAIN,
        f"{MORE}::test_a_full_disk_is_refused_before_the_run_and_then_it_runs",
    ),
    Row(
        "the disk fills while the window is open",
        "failed, as far as it can be written; else lost",
        "not 0",
        AGAIN,
        f"{MORE}::test_a_disk_that_fills_while_the_window_is_open",
    ),
    Row(
        "the disk with the results is lost while the window is open, and comes back",
        "lost: nothing could be written",
        "not 0",
        AGAIN,
        f"{LOST}::test_a_disk_that_is_lost_ends_the_run_and_the_next_call_makes_it",
    ),
    Row(
        "the results are on a read-only file system",
        "the workflow says so and starts nothing",
        "1",
        "makes all",
        f"{MORE}::test_results_on_a_file_system_that_is_read_only",
    ),
    Row(
        "the GPU is in use by another program",
        "failed, `PreflightError`, its process named",
        "1",
        AGAIN,
        f"{MORE}::test_a_card_in_use_by_another_program",
    ),
    Row(
        "the GPU stops answering in mid-run",
        "completed or failed; never 0 J",
        "0 or 1",
        "makes it if it failed",
        f"{MORE}::test_a_card_that_vanishes_costs_no_made_up_energy",
    ),
    Row(
        "the wall clock jumps a year, forth or back",
        "completed, window and energy unmoved",
        "0",
        NOTHING,
        "tests/run/test_clock_jump.py::test_a_run_over_which_the_clock_jumps",
    ),
    Row(
        "the workflow that asked for the run ends",
        "interrupted",
        "1",
        AGAIN,
        "tests/run/test_faults.py::test_a_run_ends_with_the_workflow_that_asked_for_it",
    ),
    Row(
        "a run takes longer than the study's limit",
        "failed, `TimeoutError`",
        "1",
        "makes it with a longer one",
        "tests/run/test_faults.py::test_a_run_over_its_limit_is_ended",
    ),
    Row(
        "Snakemake and its runs are killed at once",
        "lost",
        "none",
        "makes the rest, and only that",
        "tests/workflow/test_resume.py::test_everything_killed_in_mid_run",
    ),
    Row(
        "`llem run` is interrupted once, then twice",
        "the run at work ends whole; or interrupted",
        "130",
        "makes the rest, and only that",
        "tests/workflow/test_resume.py::test_first_interrupt_lets_the_run_end_and_the_second_ends_it",
    ),
    Row(
        "a second workflow is started on the same study",
        "it says who is at work and starts nothing",
        "1",
        NOTHING,
        "tests/workflow/test_resume.py::test_second_workflow_on_the_same_study_is_refused",
    ),
    Row(
        "one model of six is not there, twice",
        "failed; tables over what completed",
        "1",
        "makes it, and only it",
        "tests/workflow/test_resume.py::test_fail_fail_again_fixed_nothing",
    ),
    Row(
        "every run fails alike, under bare Snakemake",
        "three failed, the others refused at once",
        "1",
        "makes all, once it is mended",
        "tests/run/test_circuit.py::test_bare_snakemake_refuses_the_rest_and_the_next_call_does_it",
    ),
    Row(
        "every run fails alike, under `llem run`",
        "three failed, the study ended",
        "1",
        "begins anew",
        "tests/run/test_circuit.py::test_llem_stops_a_study_of_six_alike_after_three",
    ),
    Row(
        "the spec of a run cannot be read",
        "told on standard error",
        "2",
        "makes nothing",
        "tests/run/test_faults.py::test_a_spec_that_cannot_be_read_is_a_configuration_error",
    ),
    Row(
        "a run that holds a power limit is killed",
        "the guard puts the limit back",
        "none",
        "finds the card as delivered",
        f"{GUARD}::test_limits_come_back_however_the_supervisor_ends",
    ),
    Row(
        "the guard and the run it guards are killed",
        "the limit stays until the next start",
        "none",
        "puts it back first",
        f"{GUARD}::test_what_a_killed_guard_and_supervisor_left_is_mended_by_the_next_start",
    ),
    Row(
        "a GPU does not give its memory back",
        "`gpu_memory` in the outcome, who has it named",
        "unchanged",
        "is warned by its preflight",
        "tests/machine/test_release.py::test_memory_that_stays_is_told_with_who_has_it",
    ),
]

CHECKS = [
    ("a package of the backend is missing", "error", "test_missing_packages_are_named_once"),
    ("several things are wrong", "all errors at once", "test_all_problems_come_at_once"),
    ("the hub does not have the model, or gates it", "error, told apart", "HUB"),
    ("`HF_HUB_OFFLINE`, and the model is not in the cache", "error", "OFFLINE"),
    ("the hub cannot be reached", "error", "UNREACHABLE"),
    (
        "a GPU is asked for and hidden",
        "error",
        "test_a_card_that_is_asked_for_and_hidden_is_an_error",
    ),
    ("a GPU does not answer", "error", "test_a_card_that_does_not_answer_is_an_error"),
    ("others compute on the GPU", "error, with their pids", "test_strangers_are_named_and_refused"),
    (
        "memory of the GPU is in use, by nobody named",
        "warning",
        "test_memory_that_nobody_is_named_for_is_told",
    ),
    (
        "the model is too large for the GPU",
        "error",
        "test_a_model_too_large_for_the_card_is_refused",
    ),
    (
        "the model is too large for the machine",
        "error",
        "test_a_model_too_large_for_the_machine_is_refused_with_the_sum",
    ),
    (
        "the cache for batch and lengths is too large",
        "error",
        "test_the_cache_counts_towards_memory",
    ),
    (
        "the model's weights are a pointer of Git LFS, or some of their files are missing",
        "error, with the file",
        "test_weights_that_git_left_as_a_pointer_are_refused",
    ),
    (
        "a sequence is longer than the model's positions",
        "error",
        "test_a_sequence_longer_than_learned_positions_is_refused",
    ),
    (
        "MIG, no persistence mode, ECC off or about to change, slowed by heat",
        "warning each",
        "test_everything_about_a_card_that_is_not_as_delivered_is_told",
    ),
    (
        "power limit or clocks are not at their default",
        "warning each",
        "test_limits_that_are_not_the_default_are_told",
    ),
]
_ELSEWHERE = {
    "HUB": "tests/workload/test_hub.py::test_why_a_model_cannot_be_had",
    "OFFLINE": "tests/workload/test_hub.py::test_offline_is_said",
    "UNREACHABLE": "tests/workload/test_hub.py::test_unreachable_is_said",
}

HEAD = """\
# Faults, injected

Each of these is done to a real run, study or simulated card by a test. What holds for all of them:
the outcome says what happened, no process is left behind, no result that was finished is lost or
made again, and the next call of the workflow does what is missing.

## In one study

A study of {experiments} experiments, in each of which another fault is injected while Snakemake
makes them, is then called again. The second call makes those that have no result, once each, and
leaves the others as they are. `{study}` holds each row; the page is
written from the list that the test runs.

| # | fault | status | exit code | the outcome says | next call |
|---|---|---|---|---|---|
"""

MIDDLE = """
## One by one

| # | fault | recorded | exit code | next call | test |
|---|---|---|---|---|---|
"""

TAIL = """
## Checks before a run

An error fails the run in phase `preflight`, with exit code 1 and before any GPU time; a warning is
recorded with the result, and the run goes on.

| # | what is wrong | found as | test |
|---|---|---|---|
"""


def named_tests() -> list[str]:
    """Return every test that the page names, as ``file::test``."""
    return [row.test for row in SINGLE] + [_check(name) for _, _, name in CHECKS]


def page() -> str:
    """Return the page."""
    injected = faults(Path("torn"), Path("numberless"))
    text = HEAD.format(experiments=len(injected) + 1, study=STUDY)
    number = count(1)
    for fault in injected:
        text += (
            f"| {next(number)} | {fault.text} | {fault.status} | {_code(fault)} | {_says(fault)} | "
        )
        text += f"{NOTHING if fault.kept else AGAIN} |\n"
    text += MIDDLE
    for row in SINGLE:
        text += f"| {next(number)} | {row.text} | {row.recorded} | {row.code} | {row.then} | "
        text += f"`{_short(row.test)}` |\n"
    text += TAIL
    for what, found, name in CHECKS:
        text += f"| {next(number)} | {what} | {found} | `{_short(_check(name))}` |\n"
    return text


def _check(name: str) -> str:
    return _ELSEWHERE.get(name, f"{PREFLIGHT}::{name}")


def _short(test: str) -> str:
    return test.removeprefix("tests/")


def _code(fault: Fault) -> str:
    return "none" if fault.code is None else str(fault.code)


def _says(fault: Fault) -> str:
    parts = [f"phase `{fault.phase}`"] if fault.phase and not fault.kept else []
    if fault.says:
        parts.append(f"validity `{fault.says}`" if fault.kept else f"“{fault.says}”")
    return ", ".join(parts) or ("whole" if fault.kept else "why")


if __name__ == "__main__":
    PAGE.write_text(page())
