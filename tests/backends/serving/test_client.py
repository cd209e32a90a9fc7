"""The client: every answer counted, every failure named, times as the server's."""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest

from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.exchange import Exchange
from support import misbehaving_server as ways
from support.failed_answers import FAILED
from support.misbehaving_server import misbehaving
from support.serving_server import running

ASKED = {"model": "sim", "stream": True, "stream_options": {"include_usage": True}}


async def sent(
    client: StreamingClient, prompt: list[int], tokens: int, timeout_s: float = 20.0
) -> Exchange:
    """Send one request and wait for its answer."""
    over: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
    body = client.request("/completions", {**ASKED, "prompt": prompt, "max_tokens": tokens})
    client.stream(Exchange(0, time.monotonic_ns()), body, timeout_s, over.set_result)
    return await asyncio.wait_for(over, 20)


def ask(
    base_url: str,
    prompts: list[list[int]],
    *,
    tokens: int = 8,
    rate: float = 1000.0,
    timeout_s: float = 20.0,
) -> list[Exchange]:
    """Ask on one client, ``rate`` a second."""

    async def go() -> list[Exchange]:
        client = StreamingClient(base_url)
        loop = asyncio.get_running_loop()
        began_ns = time.monotonic_ns() + 20_000_000
        exchanges = [
            Exchange(number, began_ns + int(number / rate * 1e9)) for number in range(len(prompts))
        ]
        over = [loop.create_future() for _ in prompts]

        def send(number: int) -> None:
            body = {**ASKED, "prompt": prompts[number], "max_tokens": tokens}
            outgoing = client.request("/completions", body)
            client.stream(exchanges[number], outgoing, timeout_s, over[number].set_result)

        for number, exchange in enumerate(exchanges):
            loop.call_at(exchange.planned_ns / 1e9, send, number)
        await asyncio.gather(*over)
        assert client.in_flight == 0
        await client.close()
        return exchanges

    return asyncio.run(go())


@pytest.mark.parametrize("timeout_s", [0.5, 300.0])
def test_a_stream_that_says_it_is_done_is_not_waited_for(timeout_s: float) -> None:
    """A server that never ends its HTTP message held each user up for the time limit, 300 s."""
    unended = [*ways.chunked([*ways.PARTS, *ways.TAIL], last=False), ways.HOLD]

    async def go(base_url: str) -> Exchange:
        client = StreamingClient(base_url)
        exchange = await sent(client, [1], ways.TOKENS, timeout_s)
        await client.close()
        return exchange

    with misbehaving() as server:
        server.way = lambda _: unended
        exchange = asyncio.run(go(server.base_url))
    assert (exchange.failure, exchange.output_tokens) == (None, ways.TOKENS)
    assert exchange.end_ns == pytest.approx(exchange.token_ns[-1], abs=5e8)


def test_tokens_are_counted_and_timed_as_they_come(tmp_path: Path) -> None:
    log = tmp_path / "served.jsonl"
    with running(tmp_path, "--first-ms", "50", "--next-ms", "10", "--log", str(log)) as server:
        exchanges = ask(server.base_url, [[1, 2, 3]] * 20, tokens=12, rate=40)
    served = [json.loads(line)["times_ns"] for line in log.read_text().splitlines()]
    for exchange in exchanges:
        assert exchange.failure is None
        assert (exchange.input_tokens, exchange.output_tokens) == (3, 12)
        assert len(exchange.token_ns) == 12
        assert exchange.finish_reason == "length"
        assert exchange.first_ns is not None
        assert exchange.sent_ns <= exchange.first_ns <= exchange.end_ns
    assert len(served) == 20
    # Requests are taken in the order in which they are sent. How close the times are is shown on
    # a quiet machine (benchmarks/serving_client_truth.py); here none may come
    # before its cause.
    for exchange, (taken_ns, *token_ns) in zip(exchanges, sorted(served), strict=True):
        assert exchange.sent_ns <= taken_ns
        # The server looks at its clock after each write.
        assert all(np.array(exchange.token_ns[1:]) >= token_ns[:-1])
        assert exchange.first_ns < token_ns[-1], "not timed when the answer was whole"


@pytest.mark.parametrize(
    "name",
    ["429", "closed amid the answer", "an event that is no JSON", "never answered", "no usage"],
)
def test_a_failure_costs_no_other_request(name: str) -> None:
    (way,) = (candidate for candidate in FAILED if candidate.name == name)
    with misbehaving() as server:
        server.way = lambda number: way.steps(1) if number == 1 else ways.answer(gap_s=0.001)
        prompts = [[1] * ways.PROMPT] * 3
        exchanges = ask(server.base_url, prompts, tokens=ways.TOKENS, timeout_s=way.timeout_s)
    (failed,) = (candidate for candidate in exchanges if candidate.failure)
    assert way.failure is not None
    assert failed.failure == way.failure[0]
    assert way.failure[1] in str(failed.message)
    assert failed.end_ns > 0


def test_a_client_that_closes_drops_what_is_under_way() -> None:
    async def go() -> bool:
        client = StreamingClient(server.base_url)
        answer = asyncio.ensure_future(sent(client, [1], 2))
        await asyncio.sleep(0)  # it is sent, and its connection not open yet
        await client.close()
        return answer.cancel()  # and no task is left, which asyncio would complain of

    with misbehaving() as server:
        assert asyncio.run(go())


def test_a_server_that_is_not_there_refuses(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        url = server.base_url
    exchange = ask(url, [[1]])[0]
    assert exchange.failure == "refused"
    assert "no connection" in str(exchange.message)


def test_sends_never_wait_for_answers(tmp_path: Path) -> None:
    """All are sent at their times although only one at a time is answered."""
    with running(tmp_path, "--first-ms", "15", "--next-ms", "1", "--slots", "1") as server:
        exchanges = ask(server.base_url, [[1]] * 60, tokens=2, rate=200)
    assert all(exchange.failure is None for exchange in exchanges)
    last_sent_s = (exchanges[-1].sent_ns - exchanges[0].planned_ns) / 1e9
    last_end_s = (exchanges[-1].end_ns - exchanges[0].planned_ns) / 1e9
    assert last_sent_s < last_end_s - 0.5


def test_a_connection_the_server_has_closed_is_replaced(tmp_path: Path) -> None:
    """The server closes an idle connection; the next request is answered all the same."""
    with running(tmp_path, "--first-ms", "5", "--next-ms", "1") as server:

        async def go() -> list[Exchange]:
            client = StreamingClient(server.base_url)
            first = await sent(client, [1], 2)
            connection = client.idle_connection()
            assert connection is not None
            transport = connection._transport
            assert transport is not None
            # Half closed from here: the server's end follows only once it has been written to.
            transport.get_extra_info("socket").shutdown(2)
            connection._on_idle(connection)
            second = await sent(client, [1], 2)
            await client.close()
            return [first, second]

        exchanges = asyncio.run(go())
    assert [exchange.failure for exchange in exchanges] == [None, None]


@pytest.mark.parametrize(("worked_s", "failure"), [(0.0, None), (0.6, "refused")])
def test_only_what_no_server_has_worked_on_is_sent_again(
    worked_s: float, failure: str | None
) -> None:
    """A kept connection that breaks after half a second of work is a failure, as a new one is."""
    with misbehaving() as server:
        server.way = lambda number: (
            [worked_s, ways.RESET] if number == 1 else ways.answer(gap_s=0.001)
        )
        first, second = ask(server.base_url, [[1] * ways.PROMPT] * 2, tokens=ways.TOKENS, rate=2)
        answers = server._number
    assert first.failure is None
    assert (second.failure, second.resent) == (failure, failure is None)
    assert answers == (3 if second.resent else 2)
