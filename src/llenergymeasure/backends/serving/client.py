"""The one streaming client: open loop, every request on its own clock, no task per request."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from llenergymeasure.backends.serving.connection import Answer, Connection
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange
from llenergymeasure.errors import BackendError

IDLE_MOST_S = 2.0
"""A connection unused for longer is not used again: servers close theirs after 5 s (uvicorn)."""

Done = Callable[[Exchange], None]


class StreamingClient:
    """Sends requests to one server on this machine and times their tokens.

    There is no limit to the requests in flight: none is ever held back because others have not
    been answered. Use it inside one running event loop.

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
        self._prefix = parts.path.rstrip("/")
        key = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._headers = f"Host: {self._host}:{self._port}\r\nUser-Agent: llenergymeasure\r\n{key}"
        self._free: list[tuple[float, Connection]] = []
        self._connections: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self.in_flight = 0

    def request(self, path: str, body: Mapping[str, Any]) -> bytes:
        """Return a POST below the base address as the bytes to send."""
        content = json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def stream(self, exchange: Exchange, request: bytes, timeout_s: float, done: Done) -> None:
        """Send a request now; ``done`` is called once, when it is answered or has failed."""
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

        def done(answer: Answer, failure: str | None) -> None:
            if answered.done():
                return
            if failure is not None:
                answered.set_exception(ConnectionError(failure))
            else:
                answered.set_result(answer)

        async with asyncio.timeout(timeout_s):
            connection = await self.connect()
            try:
                head = f"GET {path} HTTP/1.1\r\n{self._headers}\r\n"
                connection.send(head.encode(), done)
                answer = await answered
            except BaseException:
                connection.abort()
                raise
        return answer.status or 0, b"".join(piece for _, piece in answer.pieces)

    def idle_connection(self) -> Connection | None:
        """Return an open connection that nobody uses; null if there is none."""
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
        _, connection = await loop.create_connection(
            lambda: Connection(self._keep, self._forget), self._host, self._port
        )
        self._connections.add(connection)
        return connection

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
        self._connections.discard(connection)


class _Stream:
    """One request on its way."""

    __slots__ = ("_client", "_connection", "_done", "_exchange", "_request", "_timer")

    def __init__(
        self,
        client: StreamingClient,
        exchange: Exchange,
        request: bytes,
        timeout_s: float,
        done: Done,
    ) -> None:
        self._client, self._exchange, self._request = client, exchange, request
        self._done = done
        self._connection: Connection | None = None
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
        try:
            connection = await self._client.connect()
        except OSError as error:
            self._fail("refused", f"no connection: {error}")
            return
        if self._exchange.end_ns:
            connection.abort()
            return
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        self._connection = connection
        connection.send(self._request, self._answered)

    def _answered(self, answer: Answer, failure: str | None) -> None:
        exchange = self._exchange
        stale = failure is not None and answer.status is None and not answer.pieces
        if stale and self._connection is not None and self._connection.used > 1:
            # The server closed it as we wrote: nothing of the request can have been answered.
            exchange.resent = True
            self._client.run(self._connect())
            return
        now_ns = time.monotonic_ns()
        if answer.status is None:
            kind: Any = "malformed" if (failure or "").startswith("not HTTP") else "refused"
            self._fail(kind, failure or "no answer")
            return
        if answer.status != 200:
            text = b"".join(piece for _, piece in answer.pieces).decode(errors="replace")
            self._fail("refused", f"HTTP {answer.status}: {text}")
            return
        if failure is not None and failure.startswith("not HTTP"):
            self._fail("malformed", failure)
            return
        exchange.end_ns = now_ns
        read_answer(exchange, answer.pieces, whole=answer.whole)
        self._over()

    def _time_out(self, timeout_s: float) -> None:
        if self._connection is not None:
            self._connection.abort()
        self._fail("timed_out", f"no complete answer within {timeout_s:g} s")

    def _fail(self, kind: Any, message: str) -> None:
        self._exchange.fail(kind, message, time.monotonic_ns())
        self._over()

    def _over(self) -> None:
        self._timer.cancel()
        self._client.in_flight -= 1
        self._done(self._exchange)
