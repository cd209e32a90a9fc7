"""What goes to a server's chat endpoint: messages, and variables of its template."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.prompts import build_workload, traffic_prompts
from llenergymeasure.workload.thinking import ThinkingMarks
from support.data_files import put
from support.serving_runs import experiment

CHAT = {"arrivals": "closed", "concurrency": 1, "endpoint": "chat"}
USER = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be kind."}


def engine(config: ExperimentConfig) -> ServedEngine:
    """A client of a server that is asked nothing."""
    process: Any = SimpleNamespace(ended=lambda: None, close=lambda: None)
    command = ServerCommand(argv=(), base_url="http://127.0.0.1:1/v1", model="sim")
    return ServedEngine(command, config, (), traffic_prompts(config), process)


def body_of(folder: Path, row: dict[str, Any], **more: Any) -> tuple[dict[str, Any], int]:
    """Return a request as the server gets it, and how many tokens are expected of its prompt."""
    data = str(put(folder / "prompts.jsonl", row))
    config = experiment(CHAT, dataset=data, n=1, max_input_tokens=64, **more)
    served = engine(config)
    turn = served.prompts.turn(0)
    _, _, content = served.encode(turn.request).content.partition(b"\r\n\r\n")
    expected = served.expected_input_tokens(turn.request)
    served.close()
    assert expected is not None
    assert any("sent as messages" in note for note in build_workload(config).notes)
    return json.loads(content), expected


@pytest.mark.parametrize(
    ("row", "more", "messages"),
    [
        (
            {"prompt": "Hello"},
            {"chat": {"system": "Be kind.", "arguments": {"a": 1}}},
            [SYSTEM, USER],
        ),
        # What the tokenizer puts before a text is no word of the user's.
        ({"prompt": "Hello"}, {}, [USER]),
        # A row's messages go through the server's template alone.
        ({"messages": [USER]}, {}, [USER]),
        ({"messages": [USER]}, {"chat": {}}, [USER]),
        ({"messages": [SYSTEM, USER]}, {"chat": {"system": "Be brief."}}, [SYSTEM, USER]),
    ],
    ids=["system and arguments", "plain", "messages", "messages as chat", "a system of its own"],
)
def test_a_prompt_is_sent_as_messages(
    tmp_path: Path, row: dict[str, Any], more: dict[str, Any], messages: list[dict[str, str]]
) -> None:
    body, expected = body_of(tmp_path, row, **more)
    assert body["messages"] == messages
    assert "prompt" not in body
    assert body.get("chat_template_kwargs") == more.get("chat", {}).get("arguments")
    assert expected > 4


@pytest.mark.parametrize("more", [{}, {"chat": {}}], ids=["messages", "messages as chat"])
def test_of_a_long_chat_the_last_message_is_cut_and_no_template_is_within_a_message(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    last = {"role": "user", "content": "energy of the model " * 50}
    messages = [USER, {"role": "assistant", "content": "Yes?"}, last]
    body, expected = body_of(tmp_path, {"messages": messages}, **more)
    *earlier, cut = body["messages"]
    assert earlier == messages[:2]
    assert cut["role"] == "user"
    assert last["content"].startswith(cut["content"])
    assert 60 <= expected <= 64


def test_a_prompt_that_opens_a_thought_is_known_as_such() -> None:
    served = engine(experiment({"arrivals": "closed", "concurrency": 1}))
    served._thinking = ThinkingMarks(frozenset({7}), frozenset({8}))
    request = served.warmup_requests()[0]
    variants = [replace(request, prompt_token_ids=ids) for ids in ((5, 7), (5, 7, 8), (5, 6))]
    opened = [served.encode(variant).opens_thought for variant in variants]
    assert opened == [True, False, False]
    served.close()
