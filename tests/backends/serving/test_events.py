"""Streams as servers write them: split anywhere, with and without usage, broken off."""

import json
from typing import Any

import pytest

from llenergymeasure.backends.serving.engine import read_gauges
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange
from support.cpu_time import cpu_s

DONE = b"data: [DONE]\n\n"


def text(content: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"text": content, "finish_reason": reason}]}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


def usage(tokens: int, **more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens, **more}}


def stream(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def read(*events: Any, complete: bool = True, done: bytes = DONE, **asked: Any) -> Exchange:
    """Read an answer whose events came one a nanosecond, from 0."""
    pieces = [(at_ns, stream(event)) for at_ns, event in enumerate(events)]
    exchange = Exchange(0, 0, sent_ns=1, **{"max_tokens": 4, **asked})
    list(read_answer(exchange, [*pieces, (len(events), done)], complete=complete))
    return exchange


@pytest.mark.parametrize("piece_bytes", [1, 2, 7, 64, 10_000])
def test_events_split_anywhere_are_the_same(piece_bytes: int) -> None:
    body = stream(text("a"), text("b", "length"), usage(2)) + DONE
    offsets = range(0, len(body), piece_bytes)
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=4)
    pieces = [(offset, body[offset : offset + piece_bytes]) for offset in offsets]
    list(read_answer(exchange, pieces, complete=True))
    assert (exchange.failure, exchange.input_tokens, exchange.output_tokens) == (None, 3, 2)
    # A part has the time of its last byte.
    ends = [len(stream(text("a"))) - 2, len(stream(text("a"), text("b", "length"))) - 2]
    assert list(exchange.token_ns) == [end // piece_bytes * piece_bytes for end in ends]
    assert exchange.end_ns == offsets[-1]


def test_a_long_answer_is_read_in_steps_between_which_others_bytes_get_their_time() -> None:
    body = stream(*[text("a")] * 2000, text("", "length"), usage(2000)) + DONE
    exchange = Exchange(0, 0, sent_ns=1, max_tokens=2000)
    steps = list(read_answer(exchange, [(100, body)], complete=True))
    assert (exchange.failure, exchange.output_tokens) == (None, 2000)
    assert len(steps) > 200


def test_an_answer_is_whole_by_its_own_mark_or_by_http_and_a_reason() -> None:
    assert read(text("a"), text("b"), usage(2), complete=False).failure is None
    assert read(text("a"), text("b", "stop"), usage(2), done=b"").failure is None


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
    assert read(*map(text, parts), usage(tokens)).first_ns == first


def test_a_chats_role_and_other_output_are_no_tokens_before_the_first() -> None:
    exchange = read(delta(role="assistant"), delta(content="two words"), usage(2))
    assert list(exchange.token_ns) == [1]
    for name in ("function_call", "refusal"):
        assert len(read(delta(**{name: "x"}), text("a"), usage(4)).token_ns) == 2


@pytest.mark.parametrize("name", ["reasoning", "reasoning_text", "thinking", "thought"])
def test_thought_of_any_name_is_output_and_thought(name: str) -> None:
    thought = [delta(**{name: "let me"}), delta(**{name: ["see"]})]
    exchange = read(*thought, delta(content="a b"), usage(6), max_tokens=6)
    assert (exchange.first_ns, exchange.thinking_tokens) == (0, 4)


CUT_OFF = {"opened": True, "reason": "length"}
PARIS = ["The", "city", "is", "Paris", "."]
THOUGHT: list[tuple[list[str], int, dict[str, Any], int, bool | None]] = [
    (["~let", "~me", "yes"], 3, {}, 2, None),
    (["<think>", "let", "me", "</think>", "yes"], 5, {}, 4, None),
    (["<th", "ink>", "let", "</thi", "nk>", "yes"], 6, {}, 5, None),  # cut anywhere
    (["let", "me", "</think>", "yes"], 4, {}, 3, None),  # begun by the template, in the prompt
    (["\n<think>", "let", "me"], 3, {}, 3, None),  # cut off within its thought
    (["[THINK]", "let", "[/THINK]", "yes", "no"], 5, {}, 3, None),
    (["<|START_THINKING|>", "let", "<|END_THINKING|>", "yes"], 4, {}, 3, None),
    (["◁think▷", "let", "◁/think▷", "yes"], 4, {}, 3, None),
    (["<thought>", "let", "</thought>", "yes"], 4, {}, 3, None),
    (["~let me", "yes no"], 8, {}, 4, None),  # several tokens a part
    (["what", "does", "<think>", "mean"], 4, {}, 0, None),
    (["yes"], 1, {}, 0, None),
    # What the prompt opened and nothing ends is all of an answer that was cut off within it.
    (["let", "me", "see"], 3, CUT_OFF, 3, None),
    (["let", "me", "see"], 3, {**CUT_OFF, "reported": 0}, 3, False),
    (["let", "</think>", "yes"], 3, CUT_OFF, 2, None),
    (["~let", "~me", "yes"], 3, CUT_OFF, 2, None),
    # An answer is no thought because its prompt opened one.
    (PARIS, 205, {**CUT_OFF, "reason": "stop"}, 0, None),  # a server that hides it, uncounted
    (PARIS, 205, CUT_OFF, 0, None),
    (PARIS, 5, {**CUT_OFF, "reason": "stop"}, 0, None),  # sent without the mark that ends it
    (["yes"] * 10, 40, {"opened": True, "reported": 30}, 30, False),  # of what is hidden its count
    # A server's own count is checked.
    (["~let"] * 20 + ["yes"] * 20, 42, {"reported": 21}, 21, False),  # markers count or not
    (["yes"] * 40, 40, {"reported": 40}, 0, True),  # a plain answer, called thought
    (["yes"] * 10, 40, {"reported": 30}, 30, False),  # thought that the server hides
    (["yes"] * 40, 40, {"reported": 0}, 0, False),
    (["~let"] * 30 + ["yes"] * 10, 40, {"reported": 0}, 30, True),
    (["yes"] * 10, 10, {"reported": 90}, 0, True),  # more than there are
]
"""A chat's parts, those of `~` thought by the server's own field; tokens; how many were thought,
and whether the server says otherwise."""


@pytest.mark.parametrize(("parts", "tokens", "case", "thought", "differs"), THOUGHT)
def test_what_was_thought_is_counted_apart(
    parts: list[str], tokens: int, case: dict[str, Any], thought: int, differs: bool | None
) -> None:
    events = [
        delta(reasoning_content=part[1:]) if part.startswith("~") else delta(content=part)
        for part in parts
    ]
    reported = case.get("reported")
    details = {} if reported is None else {"reasoning_tokens": reported}
    end: dict[str, Any] = {"choices": [{"delta": {}, "finish_reason": case.get("reason")}]}
    counts = usage(tokens, completion_tokens_details=details)
    opened = case.get("opened", False)
    exchange = read(*events, end | counts | end, max_tokens=300, opens_thought=opened)
    assert (exchange.failure, exchange.output_tokens) == (None, tokens)
    assert (exchange.thinking_tokens, exchange.thinking_differs) == (thought, differs)


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


@pytest.mark.usefixtures("nothing_to_collect")
def test_lines_of_other_metrics_are_not_taken_apart() -> None:
    """A page of 300 kB is read amid the traffic, on the loop that stamps its tokens."""
    other_line = 'sim:seconds_bucket{engine="0",le="0.5",model_name="a model of some length"} 5.0\n'
    page = "\n" + other_line * 4000 + "sim:waiting 3\n"

    read_s = cpu_s(lambda: read_gauges(page, {"waiting": "sim:waiting"}), times=9)
    assert read_s < 3 * cpu_s(page.splitlines, times=9)
