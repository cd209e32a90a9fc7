"""The one streaming client: open loop, every request on its own clock, no task per request."""

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from llenergymeasure.backends.serving.connection import Answer, Connection, ConnectionFailure
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange, Failure, Outgoing
from llenergymeasure.config.requested_work import MAX_TOKENS_NAMES
from llenergymeasure.config.serving import MAX_TOKENS
from llenergymeasure.errors import BackendError

MAX_IDLE_S = 2.0
"""A connection unused for longer is not used again: servers close theirs after 5 s (uvicorn)."""

CLOSED_AT_ONCE_S = 0.2
"""A server that closes an unused connection as a request is written does so in less than 1 ms."""

PAGE_BYTES = 4 << 20
"""A page about the server itself has no more."""

ANSWER_BYTES = 16 << 20
TOKEN_BYTES = 64 << 10
"""A streamed answer has no more than these, the second for each token asked for: an event of one
token takes some 300 bytes, and with the likeliest tokens next to it some thousand."""

_OTHER_FILES = 128
"""Files that a process needs for other things than its requests: libraries, results, pages."""

OnEnd = Callable[[Exchange], None]


def connections_allowed() -> int:
    """Raise the limit of open files as far as this user may; return the connections it allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)


class StreamingClient:
    """Sends requests to one server on this machine and times their tokens.

    There is no limit to the requests in flight: none is ever held back because others have not
    been answered. Where this process may open no more files they are refused, and leave room for
    what else it opens. Every answer has a limit in bytes and in time. Use it inside one running
    event loop.

    Args:
        base_url: where the server's interface begins, with its ``/v1``.
        api_key: sent as a bearer token.
    """

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "http":
            raise BackendError(f"{base_url}: the client speaks plain http, on this machine alone")
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._prefix = parts.path.rstrip("/")
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = f"Host: {host}:{self._port}\r\nUser-Agent: llenergymeasure\r\n{key}"
        self._idle: list[tuple[float, Connection]] = []
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._max_sockets = connections_allowed()
        self._sockets = 0
        self.in_flight = 0
        self.requested_answers = 0

    def request(self, path: str, body: Mapping[str, Any], limit: int = MAX_TOKENS) -> Outgoing:
        """Return a POST below the base address, ready to send.

        An answer has at most ``limit`` tokens where its body says no limit.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        answers = _requested_answers(body)
        return Outgoing(head.encode() + content, answers * requested_tokens(body, limit), answers)

    def stream(
        self, exchange: Exchange, request: Outgoing, timeout_s: float, on_end: OnEnd
    ) -> None:
        """Send a request now; ``on_end`` is called once, when it is answered or has failed."""
        exchange.max_tokens, exchange.sent_bytes = request.max_tokens, len(request.content)
        exchange.opens_thought = request.opens_thought
        exchange.sent_ns = time.monotonic_ns()
        _Stream(self, exchange, request, timeout_s, on_end).start()

    async def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """Return status and body of a GET from the server's root.

        Raises:
            OSError: there is no connection, or it broke.
            TimeoutError: no whole answer came in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def on_answer(answer: Answer, failure: ConnectionFailure | None) -> None:
            if future.done():
                return
            if failure is not None:
                future.set_exception(ConnectionError(failure[1]))
            else:
                future.set_result(answer)

        async with asyncio.timeout(timeout_s):
            connection = await self.connect()
            try:
                head = f"GET {path} HTTP/1.1\r\n{self._headers}\r\n"
                connection.send(head.encode(), PAGE_BYTES, on_answer)
                answer = await future
            except BaseException:
                connection.abort()
                raise
        return answer.status or 0, b"".join(piece for _, piece in answer.pieces)

    def idle_connection(self) -> Connection | None:
        """Return an open connection that nobody uses; None if there is none."""
        now_s = time.monotonic()
        while self._idle:
            since_s, connection = self._idle.pop()
            if connection.is_open and now_s - since_s < MAX_IDLE_S:
                return connection
            connection.abort()
        return None

    async def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            OSError: the server takes none.
        """
        loop = asyncio.get_running_loop()
        self._sockets += 1
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._add_idle, self._remove), self._host, self._port
            )
        except BaseException:
            self._sockets -= 1
            raise
        self._connections.add(connection)
        return connection

    @property
    def is_full(self) -> bool:
        """Whether no further connection may be opened for a request."""
        return self._sockets >= self._max_sockets

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine on the side."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def close(self) -> None:
        """Close all connections; what is under way is dropped."""
        for task in list(self._opening):
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)

    def _add_idle(self, connection: Connection) -> None:
        self._idle.append((time.monotonic(), connection))

    def _remove(self, connection: Connection) -> None:
        self._sockets -= 1
        self._connections.discard(connection)


class _Stream:
    """One request on its way."""

    __slots__ = ("_client", "_connection", "_exchange", "_on_end", "_request", "_sent_s", "_timer")

    def __init__(
        self,
        client: StreamingClient,
        exchange: Exchange,
        request: Outgoing,
        timeout_s: float,
        on_end: OnEnd,
    ) -> None:
        self._client, self._exchange, self._request = client, exchange, request
        self._on_end = on_end
        self._connection: Connection | None = None
        self._sent_s = 0.0
        client.in_flight += 1
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout_s, self._time_out, timeout_s)

    def start(self) -> None:
        connection = self._client.idle_connection()
        if connection is not None:
            self._send(connection)
        else:
            self._client.spawn(self._connect())

    async def _connect(self) -> None:
        if self._client.is_full:
            self._fail("refused", "no connection: as many are open as this process may open files")
            return
        try:
            connection = await self._client.connect()
        except (OSError, UnicodeError) as error:
            if not self._exchange.end_ns:
                self._fail("refused", f"no connection: {error}")
            return
        if self._exchange.end_ns:
            connection.abort()
            return
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        self._sent_s = time.monotonic()
        request = self._request
        self._client.requested_answers += request.answers
        max_bytes = ANSWER_BYTES + TOKEN_BYTES * request.max_tokens
        connection.send(request.content, max_bytes, self._handle_answer)

    def _handle_answer(self, answer: Answer, failure: ConnectionFailure | None) -> None:
        is_stale = failure is not None and answer.status is None and not answer.pieces
        is_stale &= time.monotonic() - self._sent_s < CLOSED_AT_ONCE_S
        if is_stale and self._connection is not None and self._connection.request_count > 1:
            # The server closed it as we wrote: nothing of the request can have been worked on.
            self._exchange.resent = True
            self._client.spawn(self._connect())
        elif answer.status not in (None, 200):
            text = b"".join(piece for _, piece in answer.pieces).decode(errors="replace")
            self._fail("refused", f"HTTP {answer.status}: {text}")
        elif failure is not None and failure[0] == "malformed":
            self._fail(*failure)
        elif answer.status is None:
            self._fail("refused", "no answer" if failure is None else failure[1])
        else:
            self._read(answer)

    def _read(self, answer: Answer) -> None:
        self._timer.cancel()
        self._exchange.end_ns = time.monotonic_ns()
        self._read_step(read_answer(self._exchange, answer.pieces, complete=answer.complete))

    def _read_step(self, steps: Iterator[None]) -> None:
        """Read a step; others' bytes get their time before the next."""
        for _ in steps:
            asyncio.get_running_loop().call_soon(self._read_step, steps)
            return
        self._finish()

    def _time_out(self, timeout_s: float) -> None:
        if self._connection is not None:
            if self._connection.end_if_done():
                return
            self._connection.abort()
        self._fail("timed_out", f"no complete answer within {timeout_s:g} s")

    def _fail(self, kind: Failure, message: str) -> None:
        self._exchange.fail(kind, message, time.monotonic_ns())
        self._finish()

    def _finish(self) -> None:
        self._timer.cancel()
        self._client.in_flight -= 1
        self._on_end(self._exchange)


def requested_tokens(body: Mapping[str, Any], default: int) -> int:
    """Return the most tokens that an answer may have, by its request or else ``default``."""
    limits = (body.get(name) for name in MAX_TOKENS_NAMES)
    return next((value for value in limits if isinstance(value, int)), default)


def _requested_answers(body: Mapping[str, Any]) -> int:
    """Return how many answers a server may make of a request."""
    counts = [body.get(name) for name in ("n", "best_of")]
    return max([1, *(number for number in counts if isinstance(number, int))])
