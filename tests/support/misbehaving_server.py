"""A server on loopback that answers byte by byte as it is told, and what answers are made of.

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
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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


def part(text: str = " a", reason: Any = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}], **fields}


def delta(content: Any, reason: Any = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": reason}]}


def usage(output: Any = TOKENS, prompt: Any = PROMPT, **fields: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, **fields}


def counted(**names: Any) -> dict[str, Any]:
    """The event that holds the usage alone."""
    return {"choices": [], "usage": usage(**names)}


PARTS = [event(part())] * TOKENS
END = event(part("", "length"))
TAIL = [END, event(counted()), DONE]


def spaced(events: Iterable[bytes], gap_s: float = NEXT_S) -> Iterator[Step]:
    """Events with a pause before each."""
    for event_bytes in events:
        yield gap_s
        yield event_bytes


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
