"""Streams as servers write them: split anywhere, with and without usage, broken off."""

import json
from typing import Any

import pytest

from llenergymeasure.backends.serving.engine import read_gauges
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange
from support.cpu_time import cpu_s

USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
END = {"choices": [{"text": "", "finish_reason": "length"}]}


def text(content: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"text": content, "finish_reason": reason}]}


DONE = b"data: [DONE]\n\n"


def stream(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def read(
    *events: Any, done_mark: bool = True, complete: bool = True, piece_bytes: int | None = None
) -> Exchange:
    body = stream(*events) + (DONE if done_mark else b"")
    pieces = [(100, body)]
    if piece_bytes is not None:
        pieces = [
            (100 + offset, body[offset : offset + piece_bytes])
            for offset in range(0, len(body), piece_bytes)
        ]
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=4)
    list(read_answer(exchange, pieces, complete=complete))
    return exchange


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 64, None])
def test_events_split_anywhere_are_the_same(piece_bytes: int | None) -> None:
    exchange = read(text("a"), text("b", "length"), USAGE, piece_bytes=piece_bytes)
    assert exchange.failure is None
    assert (exchange.input_tokens, exchange.output_tokens) == (3, 2)
    assert len(exchange.token_ns) == 2


def test_a_part_has_the_time_of_its_last_byte() -> None:
    event, usage = stream(text("a", "stop")), stream(USAGE) + DONE
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=4)
    pieces = [(100, event[:5]), (200, event[5:-1]), (250, event[-1:] + usage)]
    list(read_answer(exchange, pieces, complete=True))
    assert list(exchange.token_ns) == [200]
    assert exchange.end_ns == 250


def test_a_long_answer_is_read_in_steps_between_which_others_bytes_get_their_time() -> None:
    usage_event = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2000}}
    body = stream(*[text("a")] * 2000, END, usage_event) + DONE
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=2000)
    steps = list(read_answer(exchange, [(100, body)], complete=True))
    assert (exchange.failure, exchange.output_tokens) == (None, 2000)
    assert len(steps) > 200


def test_an_answer_is_whole_by_its_own_mark_or_by_http_and_a_reason() -> None:
    assert read(text("a"), text("b"), USAGE, complete=False).failure is None
    assert read(text("a"), text("b", "stop"), USAGE, done_mark=False).failure is None


@pytest.mark.parametrize(
    ("parts", "tokens", "first"),
    [
        (["", "a", "b", "c"], 3, 1),  # before anything was computed
        (["", "a", "b", "c"], 4, 0),  # half a character
        (["", "a", "b"], 4, 1),  # several tokens a part: nothing needs the empty one
        (["", "", ""], 3, 0),  # a server that sends no text
    ],
)
def test_an_empty_part_before_the_first_text_is_a_token_where_one_is_missing(
    parts: list[str], tokens: int, first: int
) -> None:
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": tokens}}
    pieces = [(index, stream(text(part))) for index, part in enumerate(parts)]
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=4)
    list(read_answer(exchange, [*pieces, (9, stream(usage) + DONE)], complete=True))
    assert exchange.first_ns == first


@pytest.mark.parametrize("name", ["reasoning", "reasoning_text", "thinking", "thinking_blocks"])
def test_thought_of_any_name_is_output_and_thought(name: str) -> None:
    deltas = [{name: "let me"}, {name: ["see"]}, {"content": "a b"}]
    pieces = [
        (index, stream({"choices": [{"delta": delta}]})) for index, delta in enumerate(deltas)
    ]
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 6}}
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=6)
    list(read_answer(exchange, [*pieces, (9, stream(usage) + DONE)], complete=True))
    assert (exchange.first_ns, exchange.thinking_tokens) == (0, 4)


@pytest.mark.parametrize("name", ["function_call", "refusal"])
def test_other_output_is_no_sign_of_life(name: str) -> None:
    first = {"choices": [{"delta": {name: "x"}}]}
    exchange = read(first, text("a"), {"usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    assert len(exchange.token_ns) == 2


def test_gauges_add_up_and_shares_are_averaged() -> None:
    page = (
        "# HELP vllm:num_requests_running Number\n"
        'vllm:num_requests_running{engine="0",model_name="a b"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="a b"} 4.0 1700000000\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\n'
        'vllm:kv_cache_usage_perc{engine="1"} 0.75\n'
        "vllm:num_requests_waiting_by_reason 9\n"
        "broken\n"
        'vllm:prompts_waiting{model_name="a } # b",kind="\\"{"}\t5 # {trace="7"} 0.25 1700000000\n'
        'vllm:prompts_waiting{model_name="unended} 8\n'
        "vllm:prompts_waiting9\n"
    )
    names = {
        "running": "vllm:num_requests_running",
        "waiting": "vllm:num_requests_waiting",
        "kv_cache_share": "vllm:kv_cache_usage_perc",
        "requests": "vllm:prompts_waiting",
    }
    assert read_gauges(page, names) == {"running": 7.0, "kv_cache_share": 0.5, "requests": 13.0}


@pytest.mark.parametrize(
    "sample",
    [
        '{a="it s " 5"} 3',
        '{path="C:\\"} 3',
        '{path="C:\\",b="D:\\"} 3 # {path="C:\\"} 0.5 1700000000',
        '{a="x # {y"} 3',
        '{a="x # {y"} 3.0 1700000000 # {} 5',
        ' 3 # {trace="a # {b"} 5',
        ' {a="7"}3\r',
    ],
)
def test_a_value_is_read_whatever_its_labels_hold(sample: str) -> None:
    """Servers' own writers leave quotes and backslashes as they are."""
    page = f"before{sample}\nsim:waiting{sample}\nsim:waiting_now{sample}\n"
    assert read_gauges(page, {"waiting": "sim:waiting"}) == {"waiting": 3.0}
    assert read_gauges(f"sim:waiting{sample}", {"waiting": "sim:waiting"}) == {"waiting": 3.0}


def test_lines_of_other_metrics_are_not_taken_apart() -> None:
    """A page of 300 kB is read amid the traffic, on the loop that stamps its tokens."""
    other_line = 'sim:seconds_bucket{engine="0",le="0.5",model_name="a model of some length"} 5.0\n'
    page = "\n" + other_line * 4000 + "sim:waiting 3\n"

    read_s = cpu_s(lambda: read_gauges(page, {"waiting": "sim:waiting"}), times=9)
    assert read_s < 3 * cpu_s(page.splitlines, times=9)


def answer(
    parts: list[str],
    tokens: int,
    field: str = "content",
    reported: int | None = None,
    *,
    opened: bool = False,
    reason: str | None = None,
) -> Exchange:
    """A chat's answer; parts that begin with `~` are thought by the server's own field."""
    events = []
    for part in parts:
        name = "reasoning_content" if part.startswith("~") else field
        events.append({"choices": [{"delta": {name: part.lstrip("~")}, "finish_reason": None}]})
    usage: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": tokens}
    if reported is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reported}
    end = {"choices": [{"delta": {}, "finish_reason": reason}], "usage": usage}
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=300, opens_thought=opened)
    list(read_answer(exchange, [(100, stream(*events, end) + DONE)], complete=True))
    assert exchange.failure is None, exchange.message
    return exchange


@pytest.mark.parametrize(
    ("parts", "tokens", "thought"),
    [
        (["~let", "~me", "yes"], 3, 2),
        (["<think>", "let", "me", "</think>", "yes"], 5, 4),
        (["<th", "ink>", "let", "</thi", "nk>", "yes"], 6, 5),  # cut anywhere
        (["let", "me", "</think>", "yes"], 4, 3),  # begun by the template, in the prompt
        (["\n<think>", "let", "me"], 3, 3),  # cut off within its thought
        (["[THINK]", "let", "[/THINK]", "yes", "no"], 5, 3),
        (["<|START_THINKING|>", "let", "<|END_THINKING|>", "yes"], 4, 3),
        (["◁think▷", "let", "◁/think▷", "yes"], 4, 3),
        (["<thought>", "let", "</thought>", "yes"], 4, 3),
        (["~let me", "yes no"], 8, 4),  # several tokens a part
        (["what", "does", "<think>", "mean"], 4, 0),
        (["yes"], 1, 0),
    ],
)
def test_what_was_thought_is_counted_apart(parts: list[str], tokens: int, thought: int) -> None:
    exchange = answer(parts, tokens)

    assert exchange.output_tokens == tokens
    assert exchange.thinking_tokens == thought
    assert exchange.thinking_differs is None


@pytest.mark.parametrize(
    ("parts", "reported", "thought"),
    [
        (["let", "me", "see"], None, 3),  # cut off within its thought
        (["let", "me", "see"], 0, 3),
        (["let", "</think>", "yes"], None, 2),
        (["~let", "~me", "yes"], None, 2),
    ],
)
def test_thought_that_the_prompt_opened_and_nothing_ends_is_all_of_the_answer(
    parts: list[str], reported: int | None, thought: int
) -> None:
    exchange = answer(parts, 3, reported=reported, opened=True, reason="length")
    assert exchange.thinking_tokens == thought


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (205, "stop"),  # the server hides the thought and counts it nowhere
        (205, "length"),
        (5, "stop"),  # it sends the thought without the mark that ends it
    ],
)
def test_an_answer_is_no_thought_because_its_prompt_opened_one(tokens: int, reason: str) -> None:
    exchange = answer(["The", "city", "is", "Paris", "."], tokens, opened=True, reason=reason)
    assert exchange.thinking_tokens == 0


def test_of_hidden_thought_that_the_prompt_opened_the_servers_count_counts() -> None:
    assert answer(["yes"] * 10, 40, reported=30, opened=True).thinking_tokens == 30


@pytest.mark.parametrize(
    ("parts", "tokens", "reported", "thought", "differs"),
    [
        (["~let"] * 20 + ["yes"] * 20, 42, 21, 21, False),  # markers are counted or not
        (["yes"] * 40, 40, 40, 0, True),  # a plain answer, called thought
        (["yes"] * 10, 40, 30, 30, False),  # thought that the server hides
        (["yes"] * 40, 40, 0, 0, False),
        (["~let"] * 30 + ["yes"] * 10, 40, 0, 30, True),
        (["yes"] * 10, 10, 90, 0, True),  # more than there are: an answer counted without it
    ],
)
def test_a_servers_own_count_of_thought_is_checked(
    parts: list[str], tokens: int, reported: int, thought: int, differs: bool | None
) -> None:
    exchange = answer(parts, tokens, reported=reported)

    assert (exchange.thinking_tokens, exchange.thinking_differs) == (thought, differs)
