"""Answers of batches that are not as long as asked are said, as those of traffic are."""

from typing import Any

import pyarrow as pa
import pytest

from llenergymeasure.run.result.run_validity import batch_codes, count_other_lengths, cut_answers

EIGHT = {"model": "m", "backend": "vllm", "max_output_tokens": 8}


def sampled(**sampling: Any) -> dict[str, Any]:
    return EIGHT | {"vllm": {"sampling": sampling}}


@pytest.mark.parametrize(
    ("config", "tokens", "odd"),
    [
        (EIGHT, [8] * 200, 0),
        (EIGHT, [8] * 198 + [7] * 2, 0),  # 1 %
        (EIGHT, [8] * 197 + [7] * 3, 3),
        (EIGHT, [8, 9], 1),
        (EIGHT | {"answer_length": "natural"}, [1, 8], 0),
        (EIGHT | {"answer_length": "natural"}, [1, 9], 1),
        (EIGHT | {"decoder": {"min_new_tokens": 3}}, [2, 3], 1),
        (sampled(max_tokens=4), [4, 4], 0),
        (sampled(n=2), [16, 15], 1),
        (sampled(n=2, ignore_eos=False), [16, 2], 0),
    ],
)
def test_answers_of_other_lengths_are_counted(
    config: dict[str, Any], tokens: list[int], odd: int
) -> None:
    assert count_other_lengths(config, 8, pa.table({"output_tokens": tokens})) == odd


@pytest.mark.parametrize(
    ("tokens", "reasons", "codes"),
    [
        ([3, 3] * 50, ["stop"] * 100, set()),
        ([8] * 99 + [2], ["stop"] * 99 + ["abort"], set()),  # 1 %
        ([8] * 98 + [2, 3], ["stop"] * 98 + ["abort", "error"], {"failed_requests"}),
        ([8] * 98 + [0, 0], ["stop"] * 100, {"empty_answers"}),
        ([0] * 4, ["timeout", None, "stop", "abort"], {"empty_answers", "failed_requests"}),
    ],
)
def test_answers_of_a_batch_that_broke_off_or_are_empty_are_no_good_ones(
    tokens: list[int], reasons: list[str | None], codes: set[str]
) -> None:
    """Where answers end by themselves a short one is none the less what was asked for."""
    table = pa.table({"output_tokens": tokens, "finish_reason": reasons})
    config = EIGHT | {"answer_length": "natural"}
    found = batch_codes(config, 8, table, (), None)  # type: ignore[arg-type]
    assert set(found) == codes


@pytest.mark.parametrize(
    ("config", "cut", "ended", "told"),
    [
        (EIGHT | {"answer_length": "natural"}, 20, 0, "20 of 20"),
        (EIGHT | {"answer_length": "natural"}, 2, 18, "2 of 20"),
        (EIGHT | {"answer_length": "natural"}, 1, 19, None),
        (EIGHT | {"answer_length": "natural"}, 0, 0, None),
        (EIGHT, 20, 0, None),
    ],
)
def test_natural_answers_that_were_cut_off_are_said(
    config: dict[str, Any], cut: int, ended: int, told: str | None
) -> None:
    codes = cut_answers(config.get("answer_length"), ["length"] * cut + ["stop"] * ended)
    assert [text[: len(told or "")] for text in codes.values()] == ([told] if told else [])
