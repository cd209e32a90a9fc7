"""Tokens of thought in what an engine writes, by the marks of the model's vocabulary."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.workload.thinking import ThinkingMarks
from llenergymeasure.workload.tokens import thinking_marks

BEGIN, END = 7, 8
MARKS = ThinkingMarks(frozenset({BEGIN}), frozenset({END}))


@pytest.mark.parametrize(
    ("prompt", "written", "thought"),
    [
        ([1, 2], [BEGIN, 3, 3, END, 4, 4], 4),
        ([1, BEGIN], [3, 3, END, 4], 3),
        ([1, BEGIN, END], [4, 4], 0),  # a template that asks for none
        ([1, BEGIN], [3, 3, 3], 3),  # cut off
        ([1, BEGIN, END, 1, BEGIN], [3, 3], 2),  # an earlier turn had its own
        ([1], [BEGIN, 3], 2),
        ([1], [4, 4], 0),
        ([1, BEGIN, 2], [3, 3], 2),  # with a line break behind it
        ([BEGIN, 5, 5, 5, 5, 5], [4, 4], 0),  # a question about the mark
    ],
)
def test_thought_ends_with_its_mark(prompt: list[int], written: list[int], thought: int) -> None:
    assert MARKS.count(prompt, written) == thought


@pytest.mark.parametrize(
    ("added", "marks"),
    [
        ([{"id": 7, "content": "<think>"}, {"id": 8, "content": "</think>"}], MARKS),
        ([{"id": 1, "content": "<s>"}], None),
        (None, None),
    ],
)
def test_the_marks_are_those_of_the_models_tokenizer(
    tmp_path: Path, added: Any, marks: ThinkingMarks | None
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    source: Any = SimpleNamespace(folder=tmp_path)

    assert thinking_marks(source) == marks
