"""An OpenAI-compatible streaming server that takes exactly as long as it is told to.

    python -m support.serving_server --port 0 --announce FILE --first-ms 40 --next-ms 10 --slots 8

A request that finds a free slot gets its first token ``first_ms`` after it came, and one more each
``next_ms``. Others wait in order for a slot,
so that the rate it can hold is known: slots over the service time. With ``--load-file`` the share
of busy slots is written for the simulated card, with ``--log`` what was really done and when.

The first token id of a prompt may ask for a fault (``FAULTS``); for all others there is
``misbehaving_server``.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools

FAULTS = {900_001: "http_503", 900_002: "truncated"}
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True)
class Server:
    """A running server and where it is."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Server]:
    """A server in a process of its own."""
    announce = folder / "server.json"
    announce.unlink(missing_ok=True)
    process = subprocess.Popen(command("0", *arguments, "--announce", str(announce)))
    try:
        deadline = time.monotonic() + 60
        while not announce.is_file():
            assert process.poll() is None, "the server did not start"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Server(json.loads(announce.read_text())["port"], process)
    finally:
        process.terminate()
        process.wait(20)


def command(port: str, *arguments: str) -> list[str]:
    """The command that starts it."""
    return [sys.executable, str(Path(__file__).resolve()), "--port", port, *arguments]


@dataclass
class Work:
    """A request on its way."""

    number: int
    connection: "Connection"
    prompt_tokens: int
    output_tokens: int
    chat: bool
    fault: str | None
    received_ns: int
    sent: int = 0
    write_ns: "array[int] | None" = None


class Engine:
    """Slots, a queue, and the clock."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.running = 0
        self.waiting: deque[Work] = deque()
        self.counted = 0
        self.load = (
            os.open(options.load_file, os.O_WRONLY | os.O_APPEND) if options.load_file else None
        )
        self.log = options.log.open("w") if options.log else None
        self._tell_load()

    def take(self, work: Work) -> None:
        if self.running < self.options.slots:
            self._begin(work)
        else:
            self.waiting.append(work)

    def _begin(self, work: Work) -> None:
        self.running += 1
        self._tell_load()
        due_s = self.loop.time() + self.options.first_ms / 1e3
        self.loop.call_at(due_s, self._token, work, due_s)

    def _token(self, work: Work, due_s: float) -> None:
        work.sent += 1
        if work.fault == "truncated" and work.sent == 3:
            work.connection.end_badly()
            self._end(work)
            return
        work.connection.token(work)
        if work.write_ns is not None:
            work.write_ns.append(time.monotonic_ns())
        if work.sent == work.output_tokens:
            work.connection.last(work)
            self._end(work)
            return
        due_s += self.options.next_ms / 1e3
        self.loop.call_at(due_s, self._token, work, due_s)

    def _end(self, work: Work) -> None:
        self.running -= 1
        self._tell_load()
        if self.log is not None:
            assert work.write_ns is not None
            times = [work.received_ns, *work.write_ns]
            self.log.write(json.dumps({"number": work.number, "times_ns": list(times)}) + "\n")
        if self.waiting:
            self._begin(self.waiting.popleft())

    def _tell_load(self) -> None:
        if self.load is not None:
            share = self.running / self.options.slots
            os.write(self.load, f"{time.monotonic_ns()},{share:.6f}\n".encode())

    def metrics(self) -> bytes:
        return (
            "# HELP sim:running Requests at work\n# TYPE sim:running gauge\n"
            f'sim:running{{model="sim"}} {float(self.running)}\n'
            f'sim:waiting{{model="sim"}} {float(len(self.waiting))}\n'
            f"sim:cache {self.running / self.options.slots:.4f}\n"
            f"sim:requests {self.counted + (self.options.uninvited if self.counted > 9 else 0)}\n"
        ).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(content: Any) -> bytes:
    return _chunk(b"data: " + json.dumps(content).encode() + b"\n\n")


# As long as those of an engine in earnest: reading them is part of the client's work.
_COMMON = {"id": "cmpl-0123456789abcdef0123456789abcdef", "created": 1_700_000_000, "model": "sim"}
_TEXT = {"index": 0, "text": " token", "logprobs": None, "finish_reason": None}
_DELTA = {"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}
TOKEN = _event({**_COMMON, "object": "text_completion", "choices": [_TEXT], "usage": None})
CHAT_TOKEN = _event({**_COMMON, "object": "chat.completion.chunk", "choices": [_DELTA]})
ROLE = _event({**_COMMON, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})


class Connection(asyncio.Protocol):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body, self._url, self._body = self._url, self._body, b"", b""
        received_ns = time.monotonic_ns()
        if url == b"/health":
            self._plain(b"{}")
        elif url == b"/v1/models":
            self._plain(b'{"object": "list", "data": [{"id": "sim", "owned_by": "the tests"}]}')
        elif url == b"/metrics":
            self._plain(self._engine.metrics(), b"text/plain")
        elif url == b"/settings":
            self._plain(json.dumps({"slots": self._engine.options.slots}).encode())
        elif url in (b"/v1/completions", b"/v1/chat/completions"):
            self._generate(json.loads(body), url.endswith(b"chat/completions"), received_ns)
        else:
            self._plain(b'{"error": "no such path"}', status=b"404 Not Found")

    def _generate(self, request: dict[str, Any], chat: bool, received_ns: int) -> None:
        engine = self._engine
        assert request["stream"] is True
        assert request["stream_options"] == {"include_usage": True}
        prompt: Sequence[Any]
        if chat:
            prompt = " ".join(message["content"] for message in request["messages"]).split()
        else:
            prompt = request["prompt"]
            prompt = prompt.split() if isinstance(prompt, str) else prompt
        first = prompt[0]
        fault = FAULTS.get(int(first)) if str(first).isdigit() else None
        if len(prompt) == engine.options.die_at_input:
            os._exit(3)
        number, engine.counted = engine.counted, engine.counted + 1
        if fault == "http_503":
            self._plain(b'{"error": "busy"}', status=b"503 Service Unavailable")
            return
        self._transport.write(CHUNKED)
        work = Work(number, self, len(prompt), int(request["max_tokens"]), chat, fault, received_ns)
        if engine.log is not None:
            work.write_ns = array("q")
        if chat:
            self._transport.write(ROLE)
        engine.take(work)

    def token(self, work: Work) -> None:
        self._transport.write(CHAT_TOKEN if work.chat else TOKEN)

    def last(self, work: Work) -> None:
        key = "delta" if work.chat else "text"
        choice = {"index": 0, key: {} if work.chat else "", "finish_reason": "length"}
        usage = {"prompt_tokens": work.prompt_tokens, "completion_tokens": work.output_tokens}
        end = _event({**_COMMON, "choices": [choice]})
        end += _event({**_COMMON, "choices": [], "usage": usage})
        self._transport.write(end + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def end_badly(self) -> None:
        self._transport.abort()

    def _plain(
        self, body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK"
    ) -> None:
        head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
        self._transport.write(head % (status, kind, len(body)) + body)


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    if options.starts:
        with options.starts.open("a") as starts:
            starts.write(f"{os.getpid()}\n")
    engine = Engine(options)
    server = await loop.create_server(
        lambda: Connection(engine), "127.0.0.1", options.port, backlog=4096
    )
    if options.announce:
        port = server.sockets[0].getsockname()[1]
        temporary = options.announce.with_suffix(".part")
        temporary.write_text(json.dumps({"port": port}))
        temporary.replace(options.announce)
    if options.die_after_s is not None:
        loop.call_later(options.die_after_s, os._exit, 3)
    stop = asyncio.Event()
    loop.add_signal_handler(15, stop.set)
    await stop.wait()
    server.close()
    if engine.log is not None:
        engine.log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--announce", type=Path)
    parser.add_argument("--first-ms", type=float, default=40.0)
    parser.add_argument("--next-ms", type=float, default=10.0)
    parser.add_argument("--slots", type=int, default=1_000_000)
    parser.add_argument("--die-after-s", type=float)
    parser.add_argument("--die-at-input", type=int, help="tokens of a prompt that kills it")
    parser.add_argument("--starts", type=Path, help="gets a line for each start")
    parser.add_argument("--uninvited", type=int, default=0, help="requests of others, counted late")
    parser.add_argument("--load-file", type=Path)
    parser.add_argument("--log", type=Path)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
