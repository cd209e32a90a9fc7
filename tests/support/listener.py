"""A real web server on loopback that remembers what it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from support import web


@dataclass
class Listener:
    """What a server heard; how it answers by the path it is asked for.

    ``/ok`` 204, ``/broken`` 500, ``/slow`` nothing for long, ``/drip`` a header byte now and
    then, ``/moved/N`` a redirect with status N to ``elsewhere``.
    """

    port: int = 0
    elsewhere: str = ""
    heard: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def events(self) -> list[str]:
        return [notification["event"] for notification in self.heard]


@contextmanager
def listening(elsewhere: str = "") -> Iterator[Listener]:
    """Serve on a free port of loopback until the block ends."""
    listener = Listener(elsewhere=elsewhere)
    has_ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            listener.heard.append(json.loads(body))
            listener.headers.append(dict(self.headers.items()))
            if self.path.startswith("/slow"):
                has_ended.wait(30)
            elif self.path.startswith("/drip"):
                self._drip()
            elif self.path.startswith("/moved/"):
                self.send_response(int(self.path.split("/")[2]))
                self.send_header("Location", listener.elsewhere)
                self.end_headers()
            else:
                self.send_response(500 if self.path.startswith("/broken") else 204)
                self.end_headers()

        def do_GET(self) -> None:
            listener.heard.append({"event": "GET"})
            self.send_response(204)
            self.end_headers()

        def _drip(self) -> None:
            try:
                self.wfile.write(b"HTTP/1.1 204 ")
                for _ in range(300):
                    self.wfile.write(b"x")
                    if has_ended.wait(0.1):
                        return
            except OSError:
                return

    with web.serving(Handler) as listener.port:
        try:
            yield listener
        finally:
            has_ended.set()
