"""What goes to a server's chat endpoint: messages, and variables of its template."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.workload.thinking import ThinkingMarks
from support.serving_runs import engine, experiment

SERVING = {"arrivals": "closed", "concurrency": 1, "endpoint": "chat"}


def body_of(folder: Path, row: dict[str, Any], **more: Any) -> tuple[dict[str, Any], int | None]:
    """Return a request as the server gets it, and how many tokens are expected of its prompt."""
    data = folder / "prompts.jsonl"
    data.write_text(json.dumps(row) + "\n")
    config = experiment(SERVING, dataset=str(data), n=1, max_input_tokens=64, **more)
    served = engine(config)
    try:
        turn = served.prompts.turn(0)
        _, _, content = served.encode(turn.request).content.partition(b"\r\n\r\n")
        return json.loads(content), served.expected_input_tokens(turn.request)
    finally:
        served.close()


def test_a_plain_prompt_is_a_user_s_message_behind_the_system_s(tmp_path: Path) -> None:
    chat = {"system": "Be kind.", "arguments": {"enable_thinking": False}}
    body, expected = body_of(tmp_path, {"prompt": "Hello"}, chat=chat)
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
    ]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "prompt" not in body
    assert expected is not None
    assert expected > 4


def test_what_the_tokenizer_puts_before_a_text_is_no_word_of_the_user_s(tmp_path: Path) -> None:
    body, _ = body_of(tmp_path, {"prompt": "Hello"})
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_a_prompt_that_opens_a_thought_is_known_as_such() -> None:
    served = engine(experiment({"arrivals": "closed", "concurrency": 1}))
    served._thinking = ThinkingMarks(frozenset({7}), frozenset({8}))
    try:
        request = served.warmup_requests()[0]
        variants = [replace(request, prompt_token_ids=ids) for ids in ((5, 7), (5, 7, 8), (5, 6))]
        assert [served.encode(variant).opens_thought for variant in variants] == [
            True,
            False,
            False,
        ]
    finally:
        served.close()


@pytest.mark.parametrize("more", [{}, {"chat": {}}])
def test_of_a_long_chat_the_last_message_is_cut_and_no_template_is_within_a_message(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "energy of the model " * 50},
    ]
    body, expected = body_of(tmp_path, {"messages": messages}, **more)
    *earlier, last = body["messages"]
    assert earlier == messages[:2]
    assert last["role"] == "user"
    assert messages[2]["content"].startswith(last["content"])
    assert expected is not None
    assert 60 <= expected <= 64


@pytest.mark.parametrize("more", [{}, {"chat": {}}])
def test_a_row_s_messages_go_through_one_template_alone(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    body, _ = body_of(tmp_path, {"messages": messages}, **more)
    assert body["messages"] == messages
    assert "chat_template_kwargs" not in body
