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

from llenergymeasure.backends.serving.connection import Answer, Broken, Connection
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange, Failure, Outgoing
from llenergymeasure.config.requested_work import LONGEST
from llenergymeasure.config.serving import MAX_TOKENS
from llenergymeasure.errors import BackendError

IDLE_MOST_S = 2.0
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

Done = Callable[[Exchange], None]


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
        self._free: list[tuple[float, Connection]] = []
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._most_sockets = connections_allowed()
        self._sockets = 0
        self.in_flight = 0
        self.answers_asked = 0

    def request(self, path: str, body: Mapping[str, Any], longest: int = MAX_TOKENS) -> Outgoing:
        """Return a POST below the base address, ready to send.

        An answer has at most ``longest`` tokens where its body says no limit.
        """
        content = json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        answers = _answers_asked(body)
        return Outgoing(head.encode() + content, answers * tokens_asked(body, longest), answers)

    def stream(self, exchange: Exchange, request: Outgoing, timeout_s: float, done: Done) -> None:
        """Send a request now; ``done`` is called once, when it is answered or has failed."""
        exchange.asked_tokens, exchange.sent_bytes = request.asked_tokens, len(request.content)
        exchange.opens_thought = request.opens_thought
        exchange.sent_ns = time.monotonic_ns()
        _Stream(self, exchange, request, timeout_s, done).start()

    async def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """Return status and body of a GET from the server's root.

        Raises:
            OSError: there is no connection, or it broke.
            TimeoutError: no whole answer came in time.
        """
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def done(answer: Answer, broken: Broken | None) -> None:
            if answered.done():
                return
            if broken is not None:
                answered.set_exception(ConnectionError(broken[1]))
            else:
                answered.set_result(answer)

        async with asyncio.timeout(timeout_s):
            connection = await self.connect()
            try:
                head = f"GET {path} HTTP/1.1\r\n{self._headers}\r\n"
                connection.send(head.encode(), PAGE_BYTES, done)
                answer = await answered
            except BaseException:
                connection.abort()
                raise
        return answer.status or 0, b"".join(piece for _, piece in answer.pieces)

    def idle_connection(self) -> Connection | None:
        """Return an open connection that nobody uses; None if there is none."""
        now_s = time.monotonic()
        while self._free:
            since_s, connection = self._free.pop()
            if connection.open and now_s - since_s < IDLE_MOST_S:
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
                lambda: Connection(self._keep, self._forget), self._host, self._port
            )
        except BaseException:
            self._sockets -= 1
            raise
        self._connections.add(connection)
        return connection

    @property
    def full(self) -> bool:
        """Whether no further connection may be opened for a request."""
        return self._sockets >= self._most_sockets

    def run(self, work: Any) -> None:
        """Run a coroutine on the side."""
        task = asyncio.get_running_loop().create_task(work)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def close(self) -> None:
        """Close all connections; what is under way is dropped."""
        for task in list(self._opening):
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        self._free.clear()
        await asyncio.sleep(0)

    def _keep(self, connection: Connection) -> None:
        self._free.append((time.monotonic(), connection))

    def _forget(self, connection: Connection) -> None:
        self._sockets -= 1
        self._connections.discard(connection)


class _Stream:
    """One request on its way."""

    __slots__ = ("_client", "_connection", "_done", "_exchange", "_request", "_timer", "_wrote_s")

    def __init__(
        self,
        client: StreamingClient,
        exchange: Exchange,
        request: Outgoing,
        timeout_s: float,
        done: Done,
    ) -> None:
        self._client, self._exchange, self._request = client, exchange, request
        self._done = done
        self._connection: Connection | None = None
        self._wrote_s = 0.0
        client.in_flight += 1
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout_s, self._time_out, timeout_s)

    def start(self) -> None:
        connection = self._client.idle_connection()
        if connection is not None:
            self._send(connection)
        else:
            self._client.run(self._connect())

    async def _connect(self) -> None:
        if self._client.full:
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
        self._wrote_s = time.monotonic()
        request = self._request
        self._client.answers_asked += request.answers
        most_bytes = ANSWER_BYTES + TOKEN_BYTES * request.asked_tokens
        connection.send(request.content, most_bytes, self._answered)

    def _answered(self, answer: Answer, broken: Broken | None) -> None:
        stale = broken is not None and answer.status is None and not answer.pieces
        stale &= time.monotonic() - self._wrote_s < CLOSED_AT_ONCE_S
        if stale and self._connection is not None and self._connection.used > 1:
            # The server closed it as we wrote: nothing of the request can have been worked on.
            self._exchange.resent = True
            self._client.run(self._connect())
        elif answer.status not in (None, 200):
            text = b"".join(piece for _, piece in answer.pieces).decode(errors="replace")
            self._fail("refused", f"HTTP {answer.status}: {text}")
        elif broken is not None and broken[0] == "malformed":
            self._fail(*broken)
        elif answer.status is None:
            self._fail("refused", "no answer" if broken is None else broken[1])
        else:
            self._read(answer)

    def _read(self, answer: Answer) -> None:
        self._timer.cancel()
        self._exchange.end_ns = time.monotonic_ns()
        self._read_on(read_answer(self._exchange, answer.pieces, whole=answer.whole))

    def _read_on(self, steps: Iterator[None]) -> None:
        """Read a step; others' bytes get their time before the next."""
        for _ in steps:
            asyncio.get_running_loop().call_soon(self._read_on, steps)
            return
        self._over()

    def _time_out(self, timeout_s: float) -> None:
        if self._connection is not None:
            if self._connection.end_if_done():
                return
            self._connection.abort()
        self._fail("timed_out", f"no complete answer within {timeout_s:g} s")

    def _fail(self, kind: Failure, message: str) -> None:
        self._exchange.fail(kind, message, time.monotonic_ns())
        self._over()

    def _over(self) -> None:
        self._timer.cancel()
        self._client.in_flight -= 1
        self._done(self._exchange)


def tokens_asked(body: Mapping[str, Any], longest: int) -> int:
    """Return the most tokens that an answer may have, by its request or else ``longest``."""
    said = (body.get(name) for name in LONGEST)
    return next((value for value in said if isinstance(value, int)), longest)


def _answers_asked(body: Mapping[str, Any]) -> int:
    """Return how many answers a server may make of a request."""
    asked = [body.get(name) for name in ("n", "best_of")]
    return max([1, *(number for number in asked if isinstance(number, int))])
