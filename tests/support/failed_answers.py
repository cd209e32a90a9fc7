"""Answers that are none: each is a failed request, with its reason."""

import itertools
from typing import Any

from support.misbehaving_server import (
    CLOSE,
    DEEP,
    DONE,
    END,
    HOLD,
    OK,
    PARTS,
    RESET,
    TAIL,
    answer,
    chunked,
    closed,
    counted,
    delta,
    ended,
    endless,
    ends,
    event,
    malformed,
    page,
    part,
    reasoned,
    refused,
    spaced,
    stream,
    timed_out,
    truncated,
)

_COUNTS: dict[str, tuple[Any, str]] = {
    "more tokens than asked for": (24, "24"),
    "a negative count": (-8, "-8"),
    "a million": (1e6, "1000000.0"),
    "1e15": (1e15, "1000000000000000.0"),
    "1e30": (10**30, "1000000"),
    "no number": (float("nan"), "NaN"),
    "a fraction": (8.9, "8.9"),
    "true": (True, "true"),
    "null": (None, "null"),
    "a list": ([12], "list"),
    "a count with an underscore": ("1_0", '"1_0"'),
    "an Arabic digit": ("٣", ""),
    "a text of many digits": ("9" * 5000, '"9999'),
}
"""What a server may count, and how it is told."""

_OTHER_NAMES = {"choices": [], "usage": {"input_tokens": 16, "output_tokens": 12}}
_PROMPT_ALONE = {"choices": [], "usage": {"prompt_tokens": 16}}

FAILED = [
    # Counts that are none.
    *(
        malformed(name, ends(output=count), f"completion_tokens is {told}")
        for name, (count, told) in _COUNTS.items()
    ),
    malformed(
        "1e400",
        ended(END, event(counted()).replace(b"12}", b"1e400}")),
        "completion_tokens is Infinity",
    ),
    malformed(
        "a number of many digits",
        ended(END, event(counted()).replace(b"12}", b"9" * 5000 + b"}")),
        "no",
    ),
    malformed("a negative prompt", ends(prompt=-3), "prompt_tokens is -3"),
    malformed(
        "a prompt longer than what was sent", ends(prompt=10**9), "prompt_tokens is 1000000000"
    ),
    malformed(
        "a second usage that is wrong",
        ended(END, event(counted()), event(counted(output=-1))),
        "-1",
    ),
    malformed("no token, and text streams", ends(output=0), "no tokens, and 12 parts"),
    malformed("tokens, and no part", answer([]), "none came"),
    malformed(
        "usage under other names",
        ended(END, event(_OTHER_NAMES)),
        "no prompt_tokens; it has input_tokens, output_tokens",
    ),
    malformed(
        "usage without the answer's",
        ended(END, event(_PROMPT_ALONE)),
        "no completion_tokens; it has prompt_tokens",
    ),
    malformed("no usage", ended(END), "without usage"),
    malformed("usage that is a list", ended(END, event({"usage": [1, 2]})), "not one"),
    # Answers that broke off.
    truncated("aborted", reasoned("abort"), "finish_reason abort"),
    truncated("ended by an error", reasoned("error"), "finish_reason error"),
    truncated(
        "aborted, as SGLang says it", reasoned({"type": "abort", "message": "too long"}), "abort"
    ),
    truncated("filtered", reasoned("content_filter"), "content_filter"),
    truncated(
        "an error event",
        stream(event(part()), event({"error": {"message": "out of memory"}}), DONE),
        "out of memory",
    ),
    truncated(
        "an event of the type error",
        stream(
            event(part()), b"event: error\n" + event({"type": "error", "message": "boom"}), DONE
        ),
        "boom",
    ),
    truncated(
        "an error in a choice",
        stream(event(part()), event(part("", "error", error={"message": "boom"})), DONE),
        "boom",
    ),
    truncated(
        "cut after the usage",
        [*chunked([*spaced(PARTS), *TAIL[:2]], last=False), CLOSE],
        "without saying",
    ),
    truncated("no finish reason and no [DONE]", answer(tail=[event(counted())]), "without saying"),
    malformed(
        "two answers in place of one",
        answer(
            [event({"choices": part()["choices"] * 2})] * 12, [END, event(counted(output=24)), DONE]
        ),
        "completion_tokens is 24",
    ),
    truncated(
        "an object that is an error",
        stream(event(part()), event({"object": "error", "message": "boom"}), DONE),
        "boom",
    ),
    *(
        truncated(
            f"{how} amid the answer",
            [*chunked(spaced(PARTS[:3]), last=False), end],
            "without saying",
        )
        for how, end in (("closed", CLOSE), ("reset", RESET))
    ),
    truncated(
        "closed before the length was reached",
        [OK + b"Content-Length: 99999\r\n\r\n", *PARTS, *TAIL[:2], CLOSE],
        "without saying",
    ),
    truncated("closed amid a body without length", closed(spaced(PARTS[:3])), "without saying"),
    refused("closed amid the headers", [OK, CLOSE], "closed"),
    refused("reset at once", [RESET], "closed"),
    timed_out("never answered", [HOLD], "within 0.3 s", timeout_s=0.3),
    timed_out(
        "comments alone",
        [*chunked([b": ping\n\n"] * 5, last=False), HOLD],
        "within 0.3 s",
        timeout_s=0.3,
    ),
    timed_out(
        "answered without an end",
        [*chunked(PARTS, last=False), HOLD],
        "within 0.3 s",
        timeout_s=0.3,
    ),
    # HTTP that says no.
    refused("429", [page(b"busy", b"429 Too Many Requests")], "HTTP 429: busy"),
    refused(
        "429 for a while",
        [b"HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy"],
        "HTTP 429: busy",
    ),
    refused("204", [b"HTTP/1.1 204 No Content\r\n\r\n"], "HTTP 204"),
    refused("500", [page(b"\xff\x00", b"500 Oops")], "HTTP 500"),
    refused(
        "a redirect to TLS",
        [b"HTTP/1.1 308 No\r\nLocation: https://127.0.0.1:1/v1\r\nContent-Length: 0\r\n\r\n"],
        "HTTP 308",
    ),
    refused(
        "a redirect",
        [b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"],
        "HTTP 302",
    ),
    malformed(
        "other protocols",
        [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello",
            CLOSE,
        ],
        "not HTTP",
    ),
    malformed("HTTP/2", [b"\0\0\x12\x04\0\0\0\0\0" + bytes(18), CLOSE], "not HTTP"),
    malformed("no HTTP", [b"SSH-2.0-OpenSSH_9\r\n", CLOSE], "not HTTP"),
    malformed(
        "two lengths",
        [OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", CLOSE],
        "not HTTP",
    ),
    # Bodies that are no stream.
    malformed(
        "JSON in place of a stream", [page(b'{"choices": [{"text": "a"}]}')], "no stream of events"
    ),
    malformed("nothing", [page(b"")], "no stream of events"),
    malformed(
        "gzip",
        [OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"],
        "no stream of events",
    ),
    malformed(
        "an error as JSON, and 200",
        [page(b'{"error": {"message": "no such model"}}')],
        "no such model",
    ),
    malformed(
        "text in place of JSON", stream(*[b"data: a\n\n"] * 12, DONE), "an event that is not one: a"
    ),
    malformed("an event that is no JSON", stream(b"data: {not json\n\n"), "not json"),
    *(
        malformed(name, stream(event(content)), "not one")
        for name, content in {
            "an event that is a list": ["a"],
            "a choice that is a number": {"choices": [3]},
            "choices that are a number": {"choices": 3},
            "a delta that is text": delta("a"),
        }.items()
    ),
    malformed("nested 200,000 deep", stream(b"data: " + DEEP + b"\n\n", *TAIL), "not one"),
    # No end.
    malformed("endless events", lambda _: endless(event(part())), "bytes came"),
    malformed("an endless line", lambda _: endless(b"data: x"), "bytes came"),
    malformed(
        "endless headers",
        lambda _: itertools.chain([OK], itertools.repeat(b"X: " + b"y" * 60_000 + b"\r\n")),
        "",
    ),
    malformed(
        "many events for few tokens", answer([b"".join([event({})] * 5000)]), "events for 12 tokens"
    ),
]
