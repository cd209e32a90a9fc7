"""A server on loopback that misbehaves in many ways, and what a run must make of each.

A way to answer is a list of steps: bytes are written, a number is waited for in seconds, ``CLOSE``
ends the connection in order and ``RESET`` without a word, ``HOLD`` leaves it open. Every request
asks for 12 tokens (``TOKENS``) after a prompt of 16 (``PROMPT``) unless its row says otherwise.
"""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

PROMPT, TOKENS = 16, 12
NEXT_S = 0.008

Step = bytes | float | Literal["close", "reset", "hold"]
CLOSE: Literal["close"] = "close"
RESET: Literal["reset"] = "reset"
HOLD: Literal["hold"] = "hold"

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Way:
    """One way to answer, and what the record must say of four requests answered so.

    Attributes:
        name: what goes wrong, or what is unusual and right.
        steps: the answer.
        failure: the kind and a part of the message; None for a whole answer.
        codes: validity codes of a run of such answers, besides ``failed_requests``.
        tokens: output tokens of an answer.
        per_part: ``tokens_per_part``; None where it is not looked at.
        asked: tokens asked for.
        times: whether times between tokens are known.
        first_s: least time to the first token.
        last_s: most time to the last token.
        timeout_s: after which the client gives up.
    """

    name: str
    steps: Callable[[int], Iterable[Step]]
    failure: tuple[str, str] | None = None
    codes: frozenset[str] = frozenset()
    tokens: int = TOKENS
    per_part: float | None = 1.0
    asked: int = TOKENS
    times: bool = True
    first_s: float = NEXT_S / 2
    last_s: float = 5.0
    timeout_s: float = 10.0

    def __str__(self) -> str:
        return self.name


class MisbehavingServer:
    """Answers every POST in the way set, and every GET with the steps set for it."""

    def __init__(self) -> None:
        self.way: Callable[[int], Iterable[Step]] = lambda _: [RESET]
        self.page: Callable[[], Iterable[Step]] = lambda: [page(b'{"data": []}')]
        self.heads: list[bytes] = []
        self.port = 0
        self.host = "127.0.0.1"
        self._number = 0

    @property
    def base_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/v1"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                await reader.readexactly(length)
                number, self._number = self._number, self._number + 1
                steps = self.page() if head.startswith(b"GET") else self.way(number)
                if not await self._answer(steps, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, steps: Iterable[Step], writer: asyncio.StreamWriter) -> bool:
        """Take the steps; return whether the connection stays."""
        for step in steps:
            if step == "close":
                return False
            if step == "reset":
                writer.transport.abort()
                return False
            if step == "hold":
                await asyncio.sleep(30)
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                assert isinstance(step, bytes)
                writer.write(step)
                await writer.drain()
        return True


@contextmanager
def misbehaving(host: str = "127.0.0.1") -> Iterator[MisbehavingServer]:
    """Serve on a loop of its own until the block ends."""
    server = MisbehavingServer()
    server.host = host
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        listener = await asyncio.start_server(server.connected, host, 0)
        server.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listener.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def page(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer that is no stream."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def event(content: Any, start: bytes = b"data: ", end: bytes = b"\n\n") -> bytes:
    return start + json.dumps(content).encode() + end


def part(text: str = " a", reason: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}], **more}


def delta(content: Any, reason: Any = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": reason}]}


def usage(output: Any = TOKENS, prompt: Any = PROMPT, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, **more}


def counted(**names: Any) -> dict[str, Any]:
    """The event that holds the usage alone."""
    return {"choices": [], "usage": usage(**names)}


PARTS = [event(part())] * TOKENS
END = event(part("", "length"))
TAIL = [END, event(counted()), DONE]


def spaced(events: Iterable[bytes], gap_s: float = NEXT_S) -> Iterator[Step]:
    """Events with a pause before each."""
    for one in events:
        yield gap_s
        yield one


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(steps: Iterable[Step], *, last: bool = True) -> Iterator[Step]:
    """An answer in chunks, with its last one or without."""
    yield CHUNKED
    for step in steps:
        yield chunk(step) if isinstance(step, bytes) else step
    if last:
        yield b"0\r\n\r\n"


def answer(
    parts: Iterable[bytes] = PARTS, tail: Iterable[bytes] = TAIL, gap_s: float = NEXT_S
) -> list[Step]:
    """Parts one by one, and what follows the last."""
    return list(chunked([*spaced(parts, gap_s), *tail]))


def ended(*events: bytes) -> list[Step]:
    """A whole answer that these end."""
    return answer(tail=[*events, DONE])


def ends(**names: Any) -> list[Step]:
    """A whole answer with such a usage."""
    return ended(END, event(counted(**names)))


def reasoned(reason: Any) -> list[Step]:
    """A whole answer that ends for such a reason."""
    return ended(event(part("", reason)), event(counted()))


def stream(*steps: Step) -> list[Step]:
    """A whole answer of these alone."""
    return list(chunked(steps))


def closed(steps: Iterable[Step], head: bytes = OK + b"Connection: close\r\n\r\n") -> list[Step]:
    """An answer whose body ends with the connection."""
    return [head, *steps, CLOSE]


Steps = Callable[[int], Iterable[Step]] | list[Step]


def _fails(kind: str) -> Callable[..., Way]:
    """What makes a way that is such a failure, from its name, its steps and what is said."""

    def way(name: str, steps: Steps, says: str, **more: Any) -> Way:
        return Way(name, _ways(steps), failure=(kind, says), **more)

    return way


malformed, refused, timed_out, truncated = map(
    _fails, ("malformed", "refused", "timed_out", "truncated")
)


def good(name: str, steps: Steps, *codes: str, **more: Any) -> Way:
    """A way whose answers are whole, and may be marked."""
    return Way(name, _ways(steps), codes=frozenset(codes), **more)


def _ways(steps: Steps) -> Callable[[int], Iterable[Step]]:
    return (lambda _: steps) if isinstance(steps, list) else steps


def endless(piece: bytes) -> Iterator[Step]:
    """An answer that never ends."""
    yield CHUNKED
    yield from itertools.repeat(chunk(piece * (60_000 // len(piece))))


WHOLE = b"".join([*PARTS, *TAIL])
DEEP = b'{"choices": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"

FINE = [
    good("as it should be", answer()),
    good(
        "events cut anywhere",
        list(chunked(spaced([WHOLE[at : at + 40] for at in range(0, len(WHOLE), 40)], 0.001))),
    ),
    good("one byte a chunk", stream(*spaced(PARTS), *(bytes([byte]) for byte in b"".join(TAIL)))),
    good("CRLF", answer([one.replace(b"\n", b"\r\n") for one in PARTS])),
    good(
        "CR alone",
        answer(
            [one.replace(b"\n", b"\r") for one in PARTS], [b"".join(TAIL).replace(b"\n", b"\r")]
        ),
    ),
    good("no space after data:", answer([event(part(), b"data:")] * TOKENS)),
    good(
        "comments, ids, retries",
        answer([b": ping\n\nevent: x\nid: 1\nretry: 5\n" + one for one in PARTS]),
    ),
    good("keep-alives of data", answer([b"data:\n\ndata: ping\n\n" + one for one in PARTS])),
    good(
        "an event in several lines of data",
        answer([b'data: {"choices":\ndata: [{"text": "a"}]}\n\n'] * TOKENS),
    ),
    good(
        "no blank lines",
        answer(
            [event(part(), end=b"\n")] * TOKENS,
            [event(part("", "length"), end=b"\n"), event(counted(), end=b"\n"), DONE],
        ),
    ),
    good(
        "characters of several bytes",
        answer([event(part("語")).replace(b"\\u8a9e", "語".encode())] * TOKENS),
    ),
    good(
        "a running usage",
        answer([event(part(usage=usage(n + 1))) for n in range(TOKENS)], [END, DONE]),
    ),
    good("usage null till the end", answer([event(part(usage=None))] * TOKENS)),
    good("usage of text", ends(output="12", prompt="16")),
    good("usage in the last part", ended(event(part("", "length", usage=usage())))),
    good("usage after [DONE]", answer(tail=[END, DONE, event(counted())])),
    good("finish reason of no length till the end", answer([event(part(" a", ""))] * TOKENS)),
    good("no finish reason, but [DONE]", ended(event(counted()))),
    good("half characters", answer([event(part("")), event(part("ü"))] * 6)),
    good("no text at all", answer([event(part(""))] * TOKENS)),
    good(
        "a sign of life before the first token",
        [CHUNKED, chunk(event(part(""))), 0.05, *answer()[1:]],
        first_s=0.05,
    ),
    good(
        "signs of life between tokens of a chat",
        answer(
            [
                event(delta({})),
                event(delta({"content": None})),
                *[event(delta({"content": "a"})), event(delta({"content": ""}))] * TOKENS,
            ]
        ),
    ),
    good("prompts counted as 0", ends(prompt=0), "token_mismatch"),
    good(
        "one token an answer",
        stream(0.01, event(part(" a", "length")), event(counted(output=1)), DONE),
        asked=1,
        tokens=1,
        times=False,
    ),
    good(
        "usage long after the last token",
        stream(*spaced(PARTS), END, 1.0, event(counted()), DONE),
        last_s=1.0,
    ),
    good(
        "a line of 10 MB",
        answer([*PARTS[1:], event(part(" a", logprobs="x" * 10_000_000))]),
        per_part=1.0,
    ),
    good(
        "100 kB of headers",
        [
            OK
            + b"X: "
            + b"y" * 50_000
            + b"\r\nX: "
            + b"y" * 50_000
            + b"\r\nTransfer-Encoding: chunked\r\n\r\n",
            *answer()[1:],
        ],
    ),
    good(
        "chunk extensions and trailers",
        [
            CHUNKED,
            *[
                step if isinstance(step, float) else b"%x;a=b\r\n%b\r\n" % (len(step), step)
                for step in spaced([*PARTS, *TAIL])
                if not isinstance(step, str)
            ],
            b"0\r\nT: x\r\n\r\n",
        ],
    ),
    good("a length", [OK + b"Content-Length: %d\r\n\r\n" % len(WHOLE), *spaced([*PARTS, *TAIL])]),
    good(
        "no reason phrase", [b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", *answer()[1:]]
    ),
    # Complete by the rules of HTTP.
    good("a body that ends with the connection", closed([*spaced(PARTS), *TAIL])),
    good("the same of HTTP/1.0", closed([*spaced(PARTS), *TAIL], b"HTTP/1.0 200 OK\r\n\r\n")),
    good("the same without [DONE]", closed([*spaced(PARTS), *TAIL[:2]])),
    good("whole chunks without [DONE]", answer(tail=TAIL[:2])),
    good("[DONE] and no last chunk", [*chunked([*spaced(PARTS), *TAIL], last=False), CLOSE]),
    good(
        "[DONE] and the connection left open",
        [*chunked([*spaced(PARTS), *TAIL], last=False), HOLD],
        timeout_s=0.5,
    ),
    good("no newline at the end", answer(tail=[END, event(counted()), b"data: [DONE]"])),
    good("a byte order mark", stream(b"\xef\xbb\xbf", *spaced(PARTS), *TAIL)),
    good("an interim answer before", [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", *answer()]),
]

MARKED = [
    good(
        "stops early",
        answer(PARTS[:6], [event(part("", "stop")), event(counted(output=6)), DONE]),
        "length_mismatch",
        tokens=6,
    ),
    good(
        "all in one packet",
        [0.02, CHUNKED + chunk(WHOLE) + b"0\r\n\r\n"],
        "buffered_stream",
        per_part=12.0,
        times=False,
    ),
    good(
        "all at once in many writes",
        stream(0.02, WHOLE),
        "buffered_stream",
        per_part=12.0,
        times=False,
    ),
    good("six tokens at once", answer([b"".join(PARTS[:6])] * 2), per_part=6.0),
    good(
        "one answer in four without a token",
        lambda number: (
            answer()
            if number % 4
            else answer([], [event(part("", "stop")), event(counted(output=0)), DONE])
        ),
        "empty_answers",
        "length_mismatch",
        tokens=-1,
    ),
    good(
        "no answer with a token",
        answer([], [event(part("", "stop")), event(counted(output=0)), DONE]),
        "empty_answers",
        "length_mismatch",
        tokens=0,
        per_part=None,
        times=False,
    ),
    good(
        "the end's mark alone, which is a token and no text",
        answer([], [NEXT_S, event(part("", "stop")), event(counted(output=1)), DONE]),
        "length_mismatch",
        tokens=1,
        per_part=None,
        times=False,
    ),
    good(
        "one short",
        ends(output=11),
        "length_mismatch",
        "undercounted_answers",
        tokens=11,
        per_part=11 / 12,
    ),
    good(
        "one token counted for twelve",
        ends(output=1),
        "length_mismatch",
        "undercounted_answers",
        tokens=1,
        per_part=1 / 12,
        times=False,
    ),
    good(
        "each part twice",
        answer([b"".join([one, one]) for one in PARTS]),
        "undercounted_answers",
        per_part=1.0,
    ),
    good("prompts counted one longer", ends(prompt=17), "token_mismatch"),
    good(
        "prompts found in a prefix cache",
        ends(prompt_tokens_details={"cached_tokens": 15}),
        "cached_prompts",
    ),
    good("the same in DeepSeek's words", ends(prompt_cache_hit_tokens=15), "cached_prompts"),
    good("a prompt's first token found there", ends(prompt_tokens_details={"cached_tokens": 1})),
    *(
        good(f"a cache that knows {odd}", ends(prompt_tokens_details={"cached_tokens": odd}))
        for odd in (None, -5, 17, 10**30, True, "much", [15], float("nan"))
    ),
    *(
        good(f"details that are {odd}", ends(prompt_tokens_details=odd))
        for odd in (None, 15, [15], "15")
    ),
    good("half a surrogate in a text", answer([event(part("\ud800"))] * TOKENS)),
    good("half a surrogate as finish reason", reasoned("\ud800")),
]

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
        "answered without an end",
        [*chunked(PARTS, last=False), HOLD],
        "within 0.3 s",
        timeout_s=0.3,
    ),
    # HTTP that says no.
    refused("429", [page(b"busy", b"429 Too Many Requests")], "HTTP 429: busy"),
    refused("500", [page(b"\xff\x00", b"500 Oops")], "HTTP 500"),
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
