"""Whatever a server replies, a request ends, in bounded memory, and counts nothing impossible."""

import asyncio
import gc
import multiprocessing
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.exchange import Exchange
from llenergymeasure.run.engine.traffic import SentRequest
from llenergymeasure.run.result.run_validity import traffic_codes
from llenergymeasure.workload.requests import Request
from llenergymeasure.workload.traffic_prompts import Turn
from support.hostile_replies import serve
from support.memory import memory_peak
from support.misbehaving_server import PROMPT, TOKENS
from support.serving_runs import experiment, judged

REPLIES = 1_200
AT_ONCE = 4
SEED = 20_240
TIMEOUT_S = 0.4
MOST_MEMORY_BYTES = 100_000_000

TEMPLATE_TOKENS = 65_536
"""What a server may add to a prompt, see `backends/serving/events.py`."""


@contextmanager
def hostile(elsewhere: int) -> Iterator[str]:
    """The server, in a process of its own, whose memory is not ours."""
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=serve, args=(SEED, elsewhere, child_end))
    process.start()
    try:
        assert parent_end.poll(60)
        yield parent_end.recv()
    finally:
        parent_end.send("end")
        process.join(60)
        process.close()


def send_all(base_url: str) -> list[Exchange]:
    """Ask a few at a time until all replies have been had."""

    async def go() -> list[Exchange]:
        client = StreamingClient(base_url)
        body = {"prompt": [1] * PROMPT, "max_tokens": TOKENS, "stream": True}
        outgoing = client.request("/completions", body)
        exchanges = [Exchange(number, time.monotonic_ns()) for number in range(REPLIES)]
        remaining = iter(exchanges)

        async def user() -> None:
            for exchange in remaining:
                over = asyncio.get_running_loop().create_future()
                client.stream(exchange, outgoing, TIMEOUT_S, over.set_result)
                await over

        await asyncio.gather(*(user() for _ in range(AT_ONCE)))
        assert client.in_flight == 0
        await client.close()
        return exchanges

    return asyncio.run(go())


@pytest.mark.slow
def test_a_thousand_mutated_replies() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        with hostile(elsewhere.getsockname()[1]) as base_url:
            gc.disable()  # as it is within a window
            try:
                with memory_peak() as peak:
                    exchanges = send_all(base_url)
            finally:
                gc.enable()
        with pytest.raises(BlockingIOError):  # no redirect was followed
            elsewhere.accept()
    assert peak.grown_bytes < MOST_MEMORY_BYTES
    failures = Counter(exchange.failure for exchange in exchanges)
    # All kinds were had, or the replies do not reach what they are meant for.
    assert set(failures) == {None, "refused", "timed_out", "truncated", "malformed"}
    assert min(failures.values()) >= 20, failures
    for exchange in exchanges:
        assert exchange.end_ns - exchange.sent_ns < (TIMEOUT_S + 30) * 1e9
        assert (exchange.failure is None) == (exchange.message is None)
        for text in (exchange.message, exchange.finish_reason):
            assert text is None or text.encode()
        if exchange.failure is None:
            assert exchange.output_tokens in range(TOKENS + 1)
            assert exchange.input_tokens in range(exchange.sent_bytes + TEMPLATE_TOKENS + 1)
    request = Request(0, (1,) * PROMPT, TOKENS)
    sent = [SentRequest(Turn(request, exchange.index, 0), exchange) for exchange in exchanges]
    config = experiment({"arrivals": "closed", "concurrency": AT_ONCE})
    assert "failed_requests" in traffic_codes(judged(sent, config))
