"""What a streamed token costs the client in CPU, beside the usual HTTP libraries.

    .venv/bin/python benchmarks/serving_client_cost.py [--rate 100] [--seconds 10]

The same requests go at the same times to ``tests/support/serving_server.py``, from the project's
client, from aiohttp and from httpx, the two read line by line and parsed as benchmarks commonly
do. Those that are not installed are left out (``pip install aiohttp httpx`` in a scratch place).
"""

import argparse
import asyncio
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.exchange import Exchange
from support import serving_server

TOKENS = 32
BODY = {
    "model": "sim",
    "prompt": list(range(64)),
    "max_tokens": TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    count = int(options.rate * options.seconds)
    print(
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; {count} answers of "
        f"{TOKENS} tokens at {options.rate:g} requests/s\n"
    )
    print("| client | CPU a token | share of a core |")
    print("|---|---|---|")
    clients = {"ours": _ours, "aiohttp": _with_aiohttp, "httpx": _with_httpx}
    with tempfile.TemporaryDirectory() as name, serving_server.running(Path(name)) as server:
        for client, send in clients.items():
            if client != "ours" and importlib.util.find_spec(client) is None:
                print(f"| {client} | not installed | |")
                continue
            asyncio.run(send(server.base_url, 20, 100.0))
            before_s = time.process_time()
            asyncio.run(send(server.base_url, count, options.rate))
            cpu_s = time.process_time() - before_s
            print(
                f"| {client} | {cpu_s / count / TOKENS * 1e6:.1f} µs | "
                f"{cpu_s / options.seconds:.2f} |",
                flush=True,
            )
    return 0


async def _ours(base_url: str, count: int, rate: float) -> None:
    client = StreamingClient(base_url)
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    left = count

    def done(exchange: Exchange) -> None:
        nonlocal left
        assert exchange.output_tokens == TOKENS, exchange
        left -= 1
        if left == 0:
            over.set_result(None)

    def send(number: int) -> None:
        exchange = Exchange(number, time.monotonic_ns())
        client.stream(exchange, client.request("/completions", BODY), 60.0, done)

    for number in range(count):
        loop.call_at(loop.time() + number / rate, send, number)
    await over
    await client.close()


async def _with_aiohttp(base_url: str, count: int, rate: float) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> None:
            async with session.post(f"{base_url}/completions", json=BODY) as answer:
                _read([line async for line in answer.content])

        await _spread(ask, count, rate)


async def _with_httpx(base_url: str, count: int, rate: float) -> None:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60) as client:

        async def ask() -> None:
            async with client.stream("POST", f"{base_url}/completions", json=BODY) as answer:
                _read([line.encode() async for line in answer.aiter_lines()])

        await _spread(ask, count, rate)


async def _spread(ask: Callable[[], Awaitable[None]], count: int, rate: float) -> None:
    async def later(number: int) -> None:
        await asyncio.sleep(number / rate)
        await ask()

    await asyncio.gather(*(later(number) for number in range(count)))


def _read(lines: list[bytes]) -> None:
    """Parse each event, as a client has to that counts and times tokens."""
    times: list[int] = []
    usage: Any = None
    for line in lines:
        data = line.strip().removeprefix(b"data: ")
        if not data or data == b"[DONE]":
            continue
        event = json.loads(data)
        usage = event.get("usage") or usage
        if event["choices"]:
            times.append(time.monotonic_ns())
    assert usage["completion_tokens"] == TOKENS


if __name__ == "__main__":
    sys.exit(main())
