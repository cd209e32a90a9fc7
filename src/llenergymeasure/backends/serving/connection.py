"""One HTTP/1.1 connection for asyncio, as lean as CPython allows: httptools reads the protocol.

Client and server share the machine, so the client's work per streamed token is work that the
engine does not get: ``benchmarks/serving_client_cost.py`` compares it with the usual libraries.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from llenergymeasure.backends.serving.events import Piece

BUFFER_BYTES = 65_536


class Answer:
    """What came back on a connection so far."""

    __slots__ = ("pieces", "status", "whole")

    def __init__(self) -> None:
        self.status: int | None = None
        self.pieces: list[Piece] = []
        self.whole = False


class Connection(asyncio.BufferedProtocol):
    """Sends one request at a time and hands back its answer.

    Args:
        idle: called with the connection when it can take another request.
        gone: called with it when it is closed.
    """

    def __init__(
        self, idle: Callable[["Connection"], None], gone: Callable[["Connection"], None]
    ) -> None:
        import httptools

        self._parser_type: Any = httptools.HttpResponseParser
        self._parser_error: Any = httptools.HttpParserError
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._idle, self._gone = idle, gone
        self._answer = Answer()
        self._done: Callable[[Answer, str | None], None] | None = None
        self._now_ns = 0
        self.used = 0

    def send(self, request: bytes, done: Callable[[Answer, str | None], None]) -> None:
        """Send a request; ``done`` gets its answer and, if the connection failed, the reason."""
        assert self._transport is not None
        assert self._done is None
        self._answer = Answer()
        self._parser = self._parser_type(self)
        self._done = done
        self.used += 1
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once, without a word to whoever waits."""
        self._done = None
        if self._transport is not None:
            self._transport.abort()

    @property
    def open(self) -> bool:
        """Whether it can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to send."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return where the next bytes go."""
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that came, with the time at which they did."""
        self._now_ns = time.monotonic_ns()
        if self._done is None:
            self.abort()  # Bytes that nobody asked for.
            return
        try:
            self._parser.feed_data(self._view[:nbytes])
        except self._parser_error as error:
            self._finish(f"not HTTP: {error}")
            self.abort()

    def on_status(self, _reason: bytes) -> None:
        """Keep the status code."""
        self._answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body and its time."""
        self._answer.pieces.append((self._now_ns, data))

    def on_message_complete(self) -> None:
        """Hand the answer over; the connection is free again if the server keeps it."""
        self._answer.whole = True
        keeps = self._parser.should_keep_alive()
        self._finish(None)
        if keeps and self.open:
            self._idle(self)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits, and the pool."""
        self._transport = None
        self._finish(f"the connection was closed: {error or 'by the server'}")
        self._gone(self)

    def _finish(self, failure: str | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._answer, failure)
