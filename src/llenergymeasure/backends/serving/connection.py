"""One HTTP/1.1 connection for asyncio, as lean as CPython allows: httptools reads the protocol.

Client and server share the machine, so the client's work per streamed token is work that the
engine does not get: 21 us a token, of which httpx takes 164 (``docs/serving.md``).
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from llenergymeasure.backends.serving.events import ends_with_done
from llenergymeasure.backends.serving.exchange import Failure

BUFFER_BYTES = 65_536

_READ_BYTES = 128
"""What the content of one read takes in addition to its bytes: a bound on bytes counts it too."""

_END_GRACE_S = 1.0
"""Some servers never end the HTTP message of a stream that says it is done: then it ends here."""

ConnectionFailure = tuple[Failure, str]
"""How a connection failed, and the reason in words."""


class Answer:
    """What came back on a connection so far."""

    __slots__ = ("complete", "ends_with_connection", "pieces", "status")

    def __init__(self) -> None:
        self.status: int | None = None
        self.ends_with_connection = True
        self.pieces: list[tuple[int, bytearray]] = []
        self.complete = False


OnAnswer = Callable[[Answer, ConnectionFailure | None], None]


class Connection(asyncio.BufferedProtocol):
    """Sends one request at a time and hands back its answer.

    Args:
        idle: called with the connection when it can take another request.
        gone: called with it when it is closed.
    """

    def __init__(
        self, on_idle: Callable[["Connection"], None], on_closed: Callable[["Connection"], None]
    ) -> None:
        import httptools

        self._parser_type: Any = httptools.HttpResponseParser
        self._parser_errors: Any = (httptools.HttpParserError, httptools.HttpParserUpgrade)
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._on_idle, self._on_closed = on_idle, on_closed
        self._answer = Answer()
        self._on_answer: OnAnswer | None = None
        self._now_ns = 0
        self._bytes_left = self._max_bytes = 0
        self.request_count = 0

    def send(self, request: bytes, max_bytes: int, on_answer: OnAnswer) -> None:
        """Send a request; ``on_answer`` gets its answer, if of so many bytes, or the failure."""
        assert self._transport is not None
        assert self._on_answer is None
        self._answer = Answer()
        self._parser = self._parser_type(self)
        self._on_answer = on_answer
        self._bytes_left = self._max_bytes = max_bytes
        self.request_count += 1
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once, without a word to whoever waits."""
        self._on_answer = None
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
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
        if self._on_answer is None:
            self.abort()  # Bytes that nobody asked for.
            return
        self._bytes_left -= nbytes + _READ_BYTES
        if self._bytes_left < 0:
            self._finish(("malformed", f"more than {self._max_bytes} bytes came: it has no end"))
            self.abort()
            return
        try:
            self._parser.feed_data(self._view[:nbytes])
        except self._parser_errors as error:
            self._finish(("malformed", f"not HTTP: {error}"))
            self.abort()

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Note whether the message itself says where it ends (RFC 9112, 6.3)."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._answer.ends_with_connection = False

    def on_headers_complete(self) -> None:
        """Keep the status code."""
        self._answer.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body and its time."""
        pieces = self._answer.pieces
        if pieces and pieces[-1][0] == self._now_ns:
            pieces[-1][1].extend(data)
        else:
            pieces.append((self._now_ns, bytearray(data)))
        if data.rstrip().endswith(b"]") and ends_with_done(pieces):
            asyncio.get_running_loop().call_later(_END_GRACE_S, self._end_open, self._answer)

    def _end_open(self, answer: Answer) -> None:
        if answer is self._answer:
            self.end_if_done()

    def end_if_done(self) -> bool:
        """End here a stream that says it is done; return whether it was one."""
        is_done = self._on_answer is not None and ends_with_done(self._answer.pieces)
        if is_done:
            self._finish(None)
            self.abort()
        return is_done

    def on_message_complete(self) -> None:
        """Hand the answer over; the connection is free again if the server keeps it."""
        if (self._answer.status or 0) < 200:
            self._answer = Answer()  # An interim answer (RFC 9110, 15.2): the final one follows.
            return
        self._answer.complete = True
        keep_alive = self._parser.should_keep_alive()
        self._finish(None)
        if keep_alive and self.is_open:
            self._on_idle(self)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Notify whoever waits, and the pool."""
        self._transport = None
        # They know each other, and within a window nothing collects what does.
        self._parser = None
        answer = self._answer
        if error is None and answer.status is not None and answer.ends_with_connection:
            answer.complete = True
            self._finish(None)
        self._finish(("truncated", f"the connection was closed: {error or 'by the server'}"))
        self._on_closed(self)

    def _finish(self, failure: ConnectionFailure | None) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(self._answer, failure)
