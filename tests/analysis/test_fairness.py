"""Engines that were to do the same work: what the plan says, and what the runs then did."""

from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.analysis.fairness import unlike_work
from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.results.record import Tokens
from results.synthetic import make_plan, make_result, write_result

HASH, OTHER_HASH = "a" * 64, "b" * 64
BASE = {"model": "tiny-llama", "precision": "bf16", "max_output_tokens": 16}
CONFIGS = [
    {**BASE, "backend": "pytorch", "pytorch": {"batch_size": 8}},
    {**BASE, "backend": "vllm", "vllm": {"engine": {"max_num_seqs": 8}}},
    {**BASE, "backend": "sglang"},
]
DONE = Tokens(input=400, output=160, requests=10, prompt_hash=HASH)


def merged(folder: Path, configs: list[dict[str, Any]], *done: Tokens) -> list[dict[str, Any]]:
    """Return the merged rows of a study whose runs did this work, one cycle of each."""
    plan = make_plan(configs, [], cycles=1)
    for run, tokens in zip(plan["runs"], done, strict=True):
        write_result(folder, make_result(run, tokens=tokens))
    rows: list[dict[str, Any]] = merge_runs(plan, folder).to_pylist()
    return rows


def told(**changes: Any) -> Tokens:
    return DONE.model_copy(update=changes)


def test_runs_that_did_the_same_work_are_left_alone(tmp_path: Path) -> None:
    # Twice the passes in a longer window are the same work a request.
    longer = told(input=800, output=320, requests=20)
    for row in merged(tmp_path, CONFIGS, DONE, longer, DONE):
        assert row["validity"] == []
        assert row["differs_in"] is None


def test_the_odd_one_out_is_not_compared(tmp_path: Path) -> None:
    pytorch, vllm, sglang = merged(
        tmp_path, CONFIGS, DONE, told(prompt_hash=OTHER_HASH), told(input=800, requests=20)
    )
    assert pytorch["validity"] == ["not_comparable"]  # No two of the three agree.
    pytorch, vllm, sglang = merged(tmp_path, CONFIGS, DONE, told(prompt_hash=OTHER_HASH), DONE)
    assert pytorch["validity"] == sglang["validity"] == []
    assert vllm["validity"] == ["not_comparable"]
    assert vllm["differs_in"] == f"prompts: {OTHER_HASH[:12]} here, {HASH[:12]} there (pytorch)"


def test_of_two_engines_neither_is_right(tmp_path: Path) -> None:
    pytorch, vllm = merged(tmp_path, CONFIGS[:2], DONE, told(output=150))
    assert pytorch["validity"] == vllm["validity"] == ["not_comparable"]
    assert pytorch["differs_in"] == "output tokens a request: 16 here, 15 there (vllm)"
    assert vllm["differs_in"] == "output tokens a request: 15 here, 16 there (pytorch)"


def test_answers_that_may_end_early_are_not_counted(tmp_path: Path) -> None:
    configs = [{**config, "decoder": {"min_new_tokens": 4}} for config in CONFIGS[:2]]
    for row in merged(tmp_path, configs, DONE, told(output=150)):
        assert row["validity"] == []


def test_work_that_was_planned_otherwise_is_no_breach(tmp_path: Path) -> None:
    shorter = {**CONFIGS[1], "max_output_tokens": 8}
    for row in merged(tmp_path, [CONFIGS[0], shorter], DONE, told(output=80)):
        assert row["validity"] == []


def test_one_engine_is_not_held_against_itself(tmp_path: Path) -> None:
    twice = [CONFIGS[0], {**CONFIGS[0], "pytorch": {"batch_size": 1}}]
    for row in merged(tmp_path, twice, DONE, told(output=150)):
        assert row["validity"] == []


ROW = {"backend": "pytorch", "model": "m", "precision": "bf16", "prompt_hash": HASH}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({}, None),
        ({"backend": "vllm"}, None),
        ({"precision": "fp32"}, None),
        (
            {"backend": "vllm", "precision": "fp32", "prompt_hash": OTHER_HASH},
            "not comparable: precision is bf16 and fp32, "
            f"prompt_hash is {HASH[:12]} and {OTHER_HASH[:12]}",
        ),
    ],
)
def test_unlike_work_of_two_engines_is_told(other: dict[str, str], reason: str | None) -> None:
    assert unlike_work(ROW, {**ROW, **other}) == reason
