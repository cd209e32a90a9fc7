"""What a run makes of a server that misbehaves: each way in a table, with what the record says."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving import process
from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.backends.serving.events import read_answer
from llenergymeasure.backends.serving.exchange import Exchange
from llenergymeasure.errors import BackendError
from llenergymeasure.run.engine.traffic import SentRequest
from llenergymeasure.run.result.run_validity import traffic_codes
from llenergymeasure.run.result.traffic_result import ServedRun
from llenergymeasure.run.result.traffic_table import TRAFFIC_SCHEMA
from llenergymeasure.validity_codes import VALIDITY
from llenergymeasure.workload.prompts import traffic_prompts
from llenergymeasure.workload.requests import Request
from llenergymeasure.workload.traffic_prompts import Turn
from support import misbehaving_server as ways
from support import serving_runs
from support.cpu_time import cpu_s
from support.failed_answers import FAILED
from support.misbehaving_server import PROMPT, MisbehavingServer, Way, misbehaving
from support.serving_runs import experiment, record
from support.whole_answers import FINE, MARKED

REQUESTS = 4
SLO = {"ttft_ms": 5000, "tpot_ms": 1000}


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with misbehaving() as running:
        yield running


def sent_to(
    server: MisbehavingServer, *, asked: int = 12, timeout_s: float = 10
) -> list[SentRequest]:
    """Ask four times at once and return what became of it."""

    async def go() -> list[SentRequest]:
        client = StreamingClient(server.base_url)
        body = {"prompt": [1] * PROMPT, "max_tokens": asked, "stream": True}
        answered = []
        sent = []
        for number in range(REQUESTS):
            request = Request(number, (1,) * PROMPT, asked)
            exchange = Exchange(number, time.monotonic_ns())
            over: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
            answered.append(over)
            sent.append(SentRequest(Turn(request, number, 0), exchange))
            outgoing = client.request("/completions", body)
            client.stream(exchange, outgoing, timeout_s, over.set_result)
        await asyncio.gather(*answered)
        assert client.in_flight == 0
        await client.close()
        return sent

    return asyncio.run(go())


def judged(sent: list[SentRequest], **settings: Any) -> ServedRun:
    serving = {"arrivals": "closed", "concurrency": REQUESTS}
    return serving_runs.judged(sent, experiment(serving, **{"slo": SLO, **settings}))


@pytest.mark.quiet
@pytest.mark.parametrize("way", [*FINE, *MARKED], ids=str)
def test_whole_answers_count_and_are_marked_where_they_are_odd(
    server: MisbehavingServer, way: Way
) -> None:
    server.way = way.steps
    sent = sent_to(server, asked=way.asked, timeout_s=way.timeout_s)
    assert [(request.exchange.failure, request.exchange.message) for request in sent] == [
        (None, None)
    ] * REQUESTS
    run = judged(sent)
    assert set(traffic_codes(run)) == way.codes, traffic_codes(run)
    if way.tokens >= 0:
        assert [request.exchange.output_tokens for request in sent] == [way.tokens] * REQUESTS
    serving = record(run)
    assert serving.requests_failed == 0
    if way.per_part is not None:
        # A machine that is busy elsewhere reads late, and then more at once.
        assert serving.tokens_per_part is not None
        assert 0.99 * way.per_part <= serving.tokens_per_part < 2.5 * way.per_part
    assert (serving.time_per_output_token.p50_s is not None) == way.times
    if way.tokens != 1:
        assert (serving.inter_token_latency.p50_s is not None) == way.times
    if way.tokens:
        assert serving.time_to_first_token.p50_s is not None
        assert serving.time_to_first_token.p50_s > way.first_s
    else:
        assert serving.time_to_first_token.p50_s is None
    assert serving.request_latency.p50_s is not None
    assert serving.request_latency.p50_s < way.last_s
    for code in way.codes:
        assert f"of {REQUESTS} " in traffic_codes(run)[code]


@pytest.mark.parametrize("way", FAILED, ids=str)
def test_answers_that_are_none_are_failed_requests(server: MisbehavingServer, way: Way) -> None:
    server.way = way.steps
    sent = sent_to(server, asked=way.asked, timeout_s=way.timeout_s)
    assert way.failure is not None
    kind, says = way.failure
    for request in sent:
        assert request.exchange.failure == kind, request.exchange.message
        assert says in str(request.exchange.message)
    run = judged(sent)
    assert set(traffic_codes(run)) == {"failed_requests"}
    serving = record(run)
    assert serving.failures == {kind: REQUESTS}
    assert (serving.slo_share, run.tokens("").output) == (0.0, 0)


def test_there_are_over_forty_ways() -> None:
    assert len(FAILED) + len(MARKED) > 40


def test_answers_may_be_shorter_where_the_study_lets_them(server: MisbehavingServer) -> None:
    six = [ways.event(ways.part("", "stop")), ways.event(ways.counted(output=6)), ways.DONE]
    server.way = lambda _: ways.answer(ways.PARTS[:6], six)
    sent = sent_to(server)
    assert traffic_codes(judged(sent))["length_mismatch"].startswith(
        "4 of 4 answers had other than"
    )
    assert record(judged(sent)).answers_other_length == REQUESTS
    assert traffic_codes(judged(sent, decoder={"min_new_tokens": 6})) == {}
    natural = {"answer_length": "natural"}
    assert traffic_codes(judged(sent, **natural)) == {}
    server.way = lambda _: ways.answer()
    assert set(traffic_codes(judged(sent_to(server), **natural))) == {"cut_answers"}
    assert "length_mismatch" in traffic_codes(judged(sent, decoder={"min_new_tokens": 7}))


def test_hidden_thought_makes_no_quick_tokens(server: MisbehavingServer) -> None:
    """Of 110 tokens 100 were thought before the first that is shown: 9 came after that one."""
    counts = ways.counted(output=110, completion_tokens_details={"reasoning_tokens": 100})
    server.way = lambda _: ways.answer(ways.PARTS[:10], [ways.END, ways.event(counts), ways.DONE])
    table = judged(sent_to(server, asked=110)).requests.to_pylist()
    for row in table:
        assert (row["output_tokens"], row["thinking_tokens"]) == (110, 100)
        shown_s = (row["last_token_monotonic_ns"] - row["first_token_monotonic_ns"]) / 1e9
        assert row["time_per_output_token_s"] == pytest.approx(shown_s / 9)


@pytest.mark.parametrize(
    ("tail", "slo", "share"),
    [
        (ways.TAIL, {"tpot_ms": 1e6}, 0.0),
        (ways.TAIL, {"ttft_ms": 1e6}, 1.0),
        ([ways.END, ways.event(ways.counted(output=0)), ways.DONE], {"ttft_ms": 1e6}, 0.0),
    ],
)
def test_a_limit_on_a_time_that_is_not_known_is_not_kept(
    server: MisbehavingServer, tail: list[bytes], slo: dict[str, float], share: float
) -> None:
    parts = ways.PARTS if tail is ways.TAIL else []
    server.way = lambda _: [ways.CHUNKED + ways.chunk(b"".join([*parts, *tail])) + b"0\r\n\r\n"]
    assert record(judged(sent_to(server), slo=slo)).slo_share == share


def test_the_host_of_an_ipv6_address_is_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with misbehaving("::1") as server:
        server.way = lambda _: ways.answer()
        assert {request.exchange.failure for request in sent_to(server)} == {None}
        assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in server.heads[0]


@pytest.mark.parametrize("path", ["/v1/", "/v1//", "/models/one/v1", ""])
def test_an_address_may_have_any_path_and_end_with_a_slash(
    server: MisbehavingServer, path: str
) -> None:
    server.way = lambda _: ways.answer()

    async def go() -> bytes:
        client = StreamingClient(f"http://localhost:{server.port}{path}")
        over: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        outgoing = client.request("/completions", {"max_tokens": 12})
        client.stream(Exchange(0, 0), outgoing, 10.0, over.set_result)
        assert (await over).failure is None
        await client.close()
        return server.heads[-1]

    requested_path = path.rstrip("/")
    assert asyncio.run(go()).startswith(f"POST {requested_path}/completions HTTP/1.1\r\n".encode())


def _read_a_line_of(signs: int) -> None:
    line = ways.event(ways.part(logprobs="x" * signs))
    body = line + b"".join([*ways.PARTS[1:], *ways.TAIL])
    pieces = [(at, body[at : at + 1000]) for at in range(0, len(body), 1000)]
    exchange = Exchange(0, 0, max_tokens=12)
    list(read_answer(exchange, pieces, complete=True))
    assert (exchange.failure, exchange.output_tokens) == (None, 12)
    assert exchange.token_ns[0] == len(line) // 1000 * 1000


def test_a_long_line_in_many_pieces_is_read_in_linear_time() -> None:
    short_s = cpu_s(lambda: _read_a_line_of(2_000_000))
    assert cpu_s(lambda: _read_a_line_of(8_000_000)) < 10 * short_s


class TestPages:
    """What a server says of itself: its settings, and whether it is ready."""

    def settings(self, server: MisbehavingServer, *steps: ways.Step) -> Any:
        engine = opened(server)
        try:
            server.page = lambda: list(steps)
            return engine.resolved_config()["settings"]
        finally:
            engine.close()

    def test_odd_text_is_replaced(self, server: MisbehavingServer) -> None:
        page = ways.page(b'{"data": [{"id": "a\\ud800b", "n": NaN, "m": 1e999}]}')
        report = self.settings(server, page)
        assert report == {"data": [{"id": "a\ufffdb", "n": "nan", "m": "inf"}]}

    @pytest.mark.parametrize("levels", [100, 900, 200_000])
    def test_deep_nesting_is_cut(self, server: MisbehavingServer, levels: int) -> None:
        report = json.dumps(self.settings(server, ways.page(b"[" * levels + b"]" * levels)))
        assert "deeper" in report or "recursion" in report
        assert len(report) < 500

    def test_a_page_of_the_old_http_is_read(self, server: MisbehavingServer) -> None:
        assert self.settings(server, b"HTTP/1.0 200 OK\r\n\r\n", b"{}", ways.CLOSE) == {}

    def test_an_endless_page_is_broken_off(self, server: MisbehavingServer) -> None:
        pieces = [ways.chunk(b"x" * 100_000)] * 100
        assert "bytes came" in self.settings(server, ways.CHUNKED, *pieces)

    def test_a_server_without_the_page_is_asked_all_the_same(
        self, server: MisbehavingServer
    ) -> None:
        engine = opened(server, ways.page(b"", b"404 Not Found"))
        server.way = lambda _: FOUR
        try:
            assert len(engine.generate(engine.warmup_requests()[:2])) == 2
            assert engine.resolved_config()["settings"] == "the server answers 404"
        finally:
            engine.close()

    @pytest.mark.parametrize("drip", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"])
    def test_a_server_that_drips_is_not_ready_within_the_limit(
        self, server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, drip: bytes
    ) -> None:
        monkeypatch.setattr(process, "FOREIGN_READY_S", 0.5)
        began_s = time.monotonic()
        with pytest.raises(BackendError, match=r"not ready within 0.5 s: .*(in time|not HTTP)"):
            opened(server, drip, *[0.05, b"x"] * 1200)
        assert time.monotonic() - began_s < 30  # of the minute that it drips


class TestWarmUp:
    def test_one_failure_among_many_answers_does_not_end_it(
        self, server: MisbehavingServer
    ) -> None:
        engine = opened(server)
        server.way = lambda number: [ways.page(b"", b"503 No")] if number % 4 == 3 else FOUR
        try:
            answers = [engine.generate(engine.warmup_requests()[:4]) for _ in range(3)]
        finally:
            engine.close()
        assert [len(answer) for answer in answers] == [3, 3, 3]

    def test_it_ends_where_most_requests_fail(self, server: MisbehavingServer) -> None:
        engine = opened(server)
        server.way = lambda _: [ways.page(b"", b"503 No")]
        try:
            with pytest.raises(BackendError, match="HTTP 503"):
                engine.generate(engine.warmup_requests()[:1])
        finally:
            engine.close()


FOUR = ways.answer(ways.PARTS[:4], [ways.END, ways.event(ways.counted(output=4)), ways.DONE])


def opened(server: MisbehavingServer, *page: ways.Step) -> ServedEngine:
    server.page = lambda: page or [ways.page(b"{}")]
    command = ServerCommand(
        argv=(),
        base_url=server.base_url,
        model="m",
        ready_path="/v1/models",
        settings_path="/v1/models",
    )
    config = experiment({"arrivals": "closed", "concurrency": 4}, max_output_tokens=4)
    return ServedEngine(command, config, (), traffic_prompts(config))


def test_a_window_in_which_nothing_came_does_not_count() -> None:
    empty = TRAFFIC_SCHEMA.empty_table()
    report = {"ramp_up": "gave up", "gauges": [], "client_cpu_s": 0.0}

    def codes(serving: dict[str, Any]) -> set[str]:
        run = ServedRun.from_requests(empty, experiment(serving), (0, 10**9), report)
        record(run)
        return set(traffic_codes(run))

    assert "no_requests" in codes({"arrivals": "poisson", "rate_per_s": 0.01})
    assert "no_requests" in VALIDITY
    assert "no_requests" not in codes({"rate_per_s": 0})
