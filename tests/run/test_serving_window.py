"""Traffic on a server of known speed: what the run says of it is what the server did."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from llenergymeasure.backends.serving.exchange import Exchange, Outgoing
from llenergymeasure.errors import BackendError
from llenergymeasure.results.record import Tokens
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.run.engine.traffic import SentRequest, Traffic
from llenergymeasure.run.engine.traffic_window import TrafficWindow, measure_traffic
from llenergymeasure.run.result.run_validity import HELD_SHARE_MAX, traffic_codes
from llenergymeasure.run.result.traffic_result import ServedRun
from llenergymeasure.run.result.traffic_table import traffic_table
from llenergymeasure.workload.prompts import traffic_prompts
from llenergymeasure.workload.requests import Request
from support import serving_server
from support.serving_runs import (
    ONE_USER,
    answers,
    engine,
    experiment,
    in_window,
    protocol,
    record,
    run,
)

FIRST_MS, NEXT_MS, TOKENS = 200.0, 40.0, 16
"""Long beside what a machine with other work adds to each."""
SPEED = ("--first-ms", str(FIRST_MS), "--next-ms", str(NEXT_MS))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that takes 20 ms to a first token and 5 ms to each other."""
    server = serving_server.running(
        tmp_path_factory.mktemp("server"), "--first-ms", "20", "--next-ms", "5"
    )
    with server as running:
        yield running.base_url


def test_latencies_are_the_servers_and_the_ramp_up_is_apart(tmp_path: Path) -> None:
    config = experiment(
        {"arrivals": "poisson", "rate_per_s": 50}, slo={"ttft_ms": 2000, "tpot_ms": 500}
    )
    served, phases = run(tmp_path, config, *SPEED)
    assert phases == ["prepare", "ramp_up", "measure", "drain"]
    serving, tokens = record(served), served.tokens("hash")
    assert serving.ramp_up == "steady"
    assert serving.requests_failed == 0
    assert serving.time_to_first_token.p50_s == pytest.approx(FIRST_MS / 1e3, abs=0.04)
    assert serving.inter_token_latency.p50_s == pytest.approx(NEXT_MS / 1e3, abs=0.008)
    assert serving.time_per_output_token.p50_s == pytest.approx(NEXT_MS / 1e3, abs=0.008)
    whole_s = (FIRST_MS + (TOKENS - 1) * NEXT_MS) / 1e3
    assert serving.request_latency.p50_s == pytest.approx(whole_s, abs=0.1)
    assert serving.over_saturated is False
    assert serving.slo_share == pytest.approx(1.0, abs=0.1)
    assert serving.goodput_requests_per_s == pytest.approx(serving.offered_requests_per_s, rel=0.1)
    # Little's law: under way is the rate times the time of an answer.
    assert serving.in_flight_mean == pytest.approx(
        serving.offered_requests_per_s * whole_s, rel=0.25
    )
    assert tokens.output == pytest.approx(serving.completed_requests_per_s * 2 * TOKENS, rel=0.1)
    assert serving.tokens_per_part == pytest.approx(1.0, rel=0.05)
    assert (serving.answers_empty, serving.answers_other_length) == (0, 0)
    assert serving.input_tokens_checked > 100
    assert serving.input_tokens_differ == 0
    assert traffic_codes(served) in ({}, {"late_sends": traffic_codes(served).get("late_sends")})


def test_the_cache_s_share_is_that_of_the_window_alone() -> None:
    """Before it the traffic has begun, and after it the server is idle but for what is late."""
    looks = [(5, 0.1), (12, 0.5), (18, 0.7), (30, 0.0)]
    gauges = [(at_ns, {"kv_cache_share": share}) for at_ns, share in looks]
    window = TrafficWindow(10, 20, gauges=gauges)
    assert window.statistics() == {
        "kv_cache_share_mean": pytest.approx(0.6),
        "kv_cache_share_max": 0.7,
    }
    assert TrafficWindow(31, 40, gauges=gauges).statistics() == {}


@pytest.mark.quiet
@pytest.mark.parametrize("answer_s", [0.0, 0.4])
def test_a_short_window_has_readings_at_both_of_its_ends(
    tmp_path: Path, quick: str, answer_s: float
) -> None:
    """However slow a server is to say, and with neither a longer window nor later requests."""
    config = experiment(
        {"rate_per_s": 40, "ramp_up_max_seconds": 0.5}, window_s=0.5, max_output_tokens=2
    )
    served = engine(config, base_url=quick)
    asked: list[tuple[int, int]] = []
    read = served.gauges

    async def gauges() -> dict[str, float]:
        began_ns = time.monotonic_ns()
        await asyncio.sleep(answer_s)
        values = await read()
        asked.append((began_ns, time.monotonic_ns()))
        return values

    served.gauges = gauges  # type: ignore[method-assign]
    try:
        window = measure_traffic(served, protocol(config), Marks(tmp_path / "marks"))
    finally:
        served.close()
    assert window.statistics()["kv_cache_share_mean"] >= 0
    middles = [(began + ended) / 2 for began, ended in asked]
    assert [at_ns for at_ns, _ in window.gauges] == pytest.approx(middles, abs=1e7)
    inside = [at for at in middles if window.start_ns <= at <= window.end_ns]
    assert min(inside) - window.start_ns < (answer_s / 2 + 0.05) * 1e9
    if answer_s < 0.4:
        assert len(inside) >= 2
        assert window.end_ns - max(inside) < (answer_s / 2 + 0.05) * 1e9
    assert window.end_ns - window.start_ns == pytest.approx(0.5e9, abs=5e7)
    late = [request.exchange.sent_ns - request.exchange.planned_ns for request in window.sent]
    assert np.median(late) < 2e7


def test_arrivals_are_sent_as_planned_whatever_the_server_does(tmp_path: Path) -> None:
    """One slot for far more than it can take: every request is sent all the same, and it shows."""
    config = experiment({"rate_per_s": 40, "ramp_up_max_seconds": 0.5}, max_output_tokens=4)
    served, _ = run(tmp_path, config, "--first-ms", "50", "--next-ms", "5", "--slots", "1")
    serving = record(served)
    assert serving.over_saturated is True
    assert serving.offered_requests_per_s == pytest.approx(40, rel=0.4)
    assert serving.completed_requests_per_s < 20
    assert serving.waiting_max is not None
    assert serving.waiting_max > 10
    assert "over_saturated" in traffic_codes(served)
    rows = served.requests.to_pylist()
    assert all(row["failure"] is None for row in rows)
    assert np.median([row["lateness_s"] for row in rows]) < 0.02


@pytest.mark.quiet
def test_users_in_a_closed_loop_wait_for_their_answers(tmp_path: Path, quick: str) -> None:
    load = {"arrivals": "closed", "concurrency": 3, "ramp_up_max_seconds": 0.5}
    config = experiment(load, window_s=1, max_output_tokens=4)
    served, _ = run(tmp_path, config, base_url=quick)
    serving = record(served)
    assert serving.in_flight_max == 3
    assert serving.over_saturated is None
    assert serving.completed_requests_per_s == pytest.approx(3 / 0.035, rel=0.3)


def test_a_user_asks_again_once_the_answer_is_read() -> None:
    """Its server is not called slow for the time that the client took to read the one before."""
    answered_ns: list[int] = []

    class Client:
        def stream(self, exchange: Exchange, _body: Any, _timeout_s: float, done: Any) -> None:
            exchange.sent_ns = time.monotonic_ns()
            exchange.end_ns = exchange.planned_ns - 10**9  # a second of reading
            answered_ns.append(time.monotonic_ns())
            done(exchange)

    async def go() -> list[SentRequest]:
        prompts = traffic_prompts(experiment({"arrivals": "closed", "concurrency": 1}))
        traffic = Traffic(Client(), prompts, lambda _: None, 1.0)  # type: ignore[arg-type, return-value]
        traffic.start_closed(time.monotonic_ns(), 1)
        while len(traffic.sent) < 3:
            await asyncio.sleep(0)
        traffic.stop()
        return traffic.sent

    sent = asyncio.run(go())
    planned_ns = [request.exchange.planned_ns for request in sent]
    assert all(planned_ns[n + 1] >= answered_ns[n] for n in range(2))
    held_s = [request.exchange.held_s or 0.0 for request in sent]
    assert held_s[0] < 1 <= min(held_s[1:])


def test_users_requests_are_made_before_they_ask() -> None:
    """Those in step are answered at once, and the last would wait for all others' to be made."""
    original_turn: list[int] = []
    made_as_sent: list[int] = []

    class Client:
        def stream(self, *_: Any) -> None:
            made_as_sent.append(len(original_turn))

    async def go() -> None:
        prompts = traffic_prompts(experiment({"arrivals": "closed", "concurrency": 3}))
        traffic = Traffic(Client(), prompts, lambda one: original_turn.append(one.index), 1.0)  # type: ignore[arg-type, return-value, func-returns-value]
        traffic.prepare_closed(3)
        assert original_turn == [0, 1, 2, 3, 4, 5]
        traffic.start_closed(time.monotonic_ns(), 3)
        while len(original_turn) < 9:
            await asyncio.sleep(0.01)
        traffic.stop()

    asyncio.run(go())
    assert len(made_as_sent) == 3
    assert original_turn == list(range(9))


def test_a_client_that_keeps_its_users_from_asking_says_so(tmp_path: Path, quick: str) -> None:
    """The load is then settled by the client, and the server does less than it could."""
    load = {"arrivals": "closed", "concurrency": 4, "ramp_up_max_seconds": 0.5}
    config = experiment(load, window_s=1, max_output_tokens=4)
    served = engine(config, base_url=quick)
    encode = served.encode

    def slowly(request: Request) -> Outgoing:
        time.sleep(0.03)
        return encode(request)

    served.encode = slowly  # type: ignore[method-assign]
    try:
        window = measure_traffic(served, protocol(config), Marks(tmp_path / "marks"))
        table = traffic_table(window.sent, served)
    finally:
        served.close()
    run = ServedRun.from_requests(table, config, (window.start_ns, window.end_ns), window.report())
    share = record(run).client_held_share
    assert share is not None
    assert share > HELD_SHARE_MAX
    old = replace(run, requests=run.requests.drop_columns(["held_s"]))
    assert record(old).client_held_share is None  # nobody looked, in earlier versions
    assert "waited for the client" in traffic_codes(run)["late_sends"]


def test_a_conversations_turns_follow_each_other(tmp_path: Path, quick: str) -> None:
    load = {"rate_per_s": 10, "turns": 3, "think_seconds": 0.05, "ramp_up_max_seconds": 0.5}
    config = experiment(load, max_output_tokens=4)
    served, _ = run(tmp_path, config, base_url=quick)
    rows = [row for row in served.requests.to_pylist() if row["failure"] is None]
    by_turn: dict[int, dict[int, dict]] = {}
    for row in rows:
        by_turn.setdefault(row["conversation"], {})[row["turn"]] = row
    complete = [turns for turns in by_turn.values() if len(turns) == 3]
    assert len(complete) > 10
    for turns in complete:
        assert [turns[place]["input_tokens"] for place in range(3)] == [8, 20, 32]
        assert turns[1]["planned_monotonic_ns"] >= turns[0]["end_monotonic_ns"]


def test_an_idle_server_has_no_requests_and_no_figures_of_them(tmp_path: Path, quick: str) -> None:
    config = experiment({"rate_per_s": 0}, window_s=0.5)
    served, _ = run(tmp_path, config, base_url=quick)
    serving, tokens = record(served), served.tokens("hash")
    assert (tokens.input, tokens.output, tokens.requests) == (0, 0, 0)
    assert serving.ramp_up == "not needed"
    assert serving.time_to_first_token.p50_s is None
    assert serving.in_flight_mean == 0


def test_a_ramps_load_rises_within_its_window(tmp_path: Path, quick: str) -> None:
    config = experiment({"arrivals": "ramp", "rate_per_s": 5, "rate_end_per_s": 60}, window_s=2)
    served, phases = run(tmp_path, config, base_url=quick)
    assert phases == ["prepare", "measure", "drain"]
    offered = [row["offered_requests_per_s"] for row in record(served).timeline]
    assert offered[-1] > offered[0]
    assert "not_steady" in traffic_codes(served)


@pytest.mark.parametrize(("failed", "disqualifies"), [(1, False), (2, True)])
def test_those_that_failed_are_counted_and_more_than_one_in_a_hundred_disqualify(
    failed: int, disqualifies: bool
) -> None:
    times = [(n / 20, [n / 20 + 0.1, n / 20 + 0.2]) for n in range(100)]
    refused = {"failure": "refused", "failure_message": "HTTP 503", "token_monotonic_ns": []}
    table = pa.concat_tables([answers(*times[failed:]), answers(*times[:failed], **refused)])
    run = in_window(table, (0, 6), {"rate_per_s": 20})
    serving = record(run)
    assert (serving.requests_sent, serving.requests_failed) == (100, failed)
    assert serving.failures == {"refused": failed}
    said = f"{failed} of 100 requests failed, more than 1 %; the first: refused: HTTP 503"
    assert traffic_codes(run).get("failed_requests") == (said if disqualifies else None)


def test_a_server_that_counts_otherwise_is_told() -> None:
    """As one does whose context is shorter than the prompts (ollama 3839)."""

    def counting(tokens: int) -> ServedRun:
        table = answers((0, [1]), (1, [2]), input_tokens=tokens, input_tokens_expected=8)
        return in_window(table, (0, 4), slo={"e2e_ms": 5})

    assert "token_mismatch" not in traffic_codes(counting(8))
    message = traffic_codes(counting(4))["token_mismatch"]
    assert message.startswith("2 of 2 prompts")
    assert ": 8 tokens in place of 16; it may cut prompts to a context" in message
    serving = record(counting(8))
    assert (serving.slo_attained, serving.energy_per_good_request_j) == (False, None)


def test_a_stranger_s_requests_are_a_code(tmp_path: Path) -> None:
    """The server says it has answered one more than the run has asked."""
    config = experiment({"rate_per_s": 20, "ramp_up_max_seconds": 0.5}, window_s=0.5)
    served, _ = run(tmp_path, config, "--next-ms", "1", "--uninvited", "1")
    assert "1 requests more" in traffic_codes(served)["foreign_requests"]


def test_a_server_that_ends_under_traffic_fails_the_run(tmp_path: Path) -> None:
    load = {"rate_per_s": 20, "timeout_seconds": 2, "ramp_up_max_seconds": 0.5}
    config = experiment(load, window_s=1)
    served = engine(config, "--first-ms", "10", "--next-ms", "1", "--die-after-s", "0.8")
    try:
        with pytest.raises(BackendError, match="ended with exit code 3"):
            measure_traffic(served, protocol(config), Marks(tmp_path / "marks"))
    finally:
        served.close()


def test_requests_that_waited_for_others_are_no_work_of_the_window() -> None:
    """Twice as many come as are served, one at a time, each in 1 s: of 60 s there are 60."""
    times = [(n / 2, [n + 0.2, n + 1.0]) for n in range(180)]
    run = in_window(answers(*times), (1 / 3, 60 + 1 / 3), {"rate_per_s": 2})
    assert run.tokens("").work == pytest.approx(60, rel=0.02)


def test_requests_that_the_window_s_ends_cut_count_for_their_time_in_it() -> None:
    """One user, whose answers take 1.555 s each: of 3 s one ends inside, and is not all its work.

    Whether one ends just before the window does or just after is the same in every cycle.
    """
    times = [(1.555 * n, [1.555 * n + 0.04, 1.555 * (n + 1)]) for n in range(4)]
    table = answers(*times, input_tokens=8, output_tokens=16, output_tokens_asked=16)
    run = in_window(table, (1.565, 4.565), slo={"e2e_ms": 5000})
    tokens = run.tokens("")

    assert tokens.requests == 1
    assert tokens.work == pytest.approx(3.0 / 1.555)
    assert (tokens.input, tokens.output) == (round(8 * tokens.work), round(16 * tokens.work))
    assert run.performance(tokens)["requests_per_s"] == pytest.approx(1 / 1.555)
    assert tokens.output_mean == 16
    assert tokens.model_copy(update={"requests": 0}).work == tokens.work
    assert Tokens(input=1, output=2, requests=3, prompt_hash="").work == 3
    serving = record(run, gross_j=300)
    assert serving.slo_share == 1.0
    assert serving.energy_per_good_request_j == pytest.approx(300.0 / tokens.work)


@pytest.mark.parametrize(
    "came", [[3.0 + 0.01 * n for n in range(8)], [3.07] * 8], ids=["late", "whole"]
)
@pytest.mark.parametrize("phase_s", [0.001, 1.0, 2.9])
def test_tokens_that_come_late_or_whole_are_those_of_the_window_s_work(
    came: list[float], phase_s: float
) -> None:
    """One user, whose answers of 8 tokens take 3.07 s each, 3 s of it for their prompts.

    In 20 s there are 6.5 of them, of which 6 come, as in each cycle: their tokens were 8 % less.
    """
    times = [(3.07 * n, [3.07 * n + at_s for at_s in came]) for n in range(-2, 12)]
    run = in_window(answers(*times, input_tokens=1000), (phase_s, 20 + phase_s))
    tokens = run.tokens("")
    assert tokens.output == pytest.approx(8 * 20 / 3.07, abs=0.6)
    assert tokens.input == pytest.approx(1000 * 20 / 3.07, rel=0.01)
    assert tokens.output_came == (56 if phase_s == 2.9 else 48)


def test_a_window_in_which_no_token_came_has_none() -> None:
    tokens = in_window(answers((0.0, [9.0, 9.1]), input_tokens=5), (1, 8)).tokens("")
    assert (tokens.input, tokens.output, tokens.output_came) == (0, 0, 0)
    assert tokens.work == tokens.requests_worked == pytest.approx(7 / 9.1)


def test_a_window_in_which_no_answer_ended_is_none_without_traffic() -> None:
    """Answers of 12 s: at no request a second the load curve took them for a server at rest."""
    parts_s = [1.0 + 0.5 * n for n in range(23)]
    table = answers((0.0, parts_s), (0.5, [at_s + 0.5 for at_s in parts_s]))
    run = in_window(table, (3, 8), {"rate_per_s": 0.2})
    tokens = run.tokens("")
    assert (tokens.requests, tokens.output) == (0, 19)
    assert run.performance(tokens)["requests_per_s"] == pytest.approx(tokens.work / 5)
    assert tokens.output == pytest.approx(23 * tokens.work, abs=0.5)


def test_answers_without_a_token_are_work_of_the_window_all_the_same() -> None:
    """Three a window end in it, and half of a fourth's work lies inside."""
    times = [(2.0 * n, [2.0 * n + 2]) for n in range(5)]
    table = answers(*times, token_monotonic_ns=[], output_tokens=0)
    tokens = in_window(table, (1, 8)).tokens("")
    assert (tokens.requests, tokens.output) == (3, 0)
    assert tokens.work == pytest.approx(3.5)


def test_answers_that_go_faster_once_nothing_is_sent_are_no_more_of_the_window() -> None:
    """A step takes longer the more are served together: after the window they grow fewer."""
    users, tokens, end_s = 64, 200, 20.0
    now_s, complete = 0.0, list[tuple[float, list[float]]]()
    step_s = 0.005 + 0.001 * users
    under_way = [
        (-step_s * begun, [-step_s * (begun - 1 - n) for n in range(begun)])
        for begun in range(0, 3 * users, 3)
    ]
    while under_way:
        now_s += 0.005 + 0.001 * len(under_way)
        for _, parts_s in under_way:
            parts_s.append(now_s)
        complete += [request for request in under_way if len(request[1]) == tokens]
        under_way = [
            request if len(request[1]) < tokens else (now_s, [])
            for request in under_way
            if len(request[1]) < tokens or now_s < end_s
        ]
    inside = sum(1.0 <= at_s < end_s for _, parts_s in complete for at_s in parts_s)
    run = in_window(answers(*complete), (1, end_s), {"arrivals": "closed", "concurrency": users})
    assert run.tokens("").work == pytest.approx(inside / tokens, rel=0.005)


@pytest.mark.parametrize("serving", [ONE_USER, {"rate_per_s": 1}], ids=["user", "rate"])
def test_one_quick_answer_makes_no_waiting_of_the_others_time(serving: dict[str, Any]) -> None:
    """Each takes 1.2 s to its first token and 0.3 s more, but for one that a cache knew."""
    times = [(1.5 * n, [1.5 * n + 1.2, 1.5 * n + 1.5]) for n in range(-2, 8)]
    times.append((12.0, [12.01, 12.02]))
    run = in_window(answers(*times), (1, 5), serving)
    assert run.tokens("").work == pytest.approx(4 / 1.5)


def test_energy_of_a_good_request_under_too_much_load_is_of_the_good_ones_work() -> None:
    """Of two a second one is served: those that keep the limit are the first four of the window.

    One more, sent before it, has two thirds of its work within.
    """
    times = [(n / 2, [n + 0.2, n + 1.0]) for n in range(60)]
    window_s = (1 / 3, 20 + 1 / 3)
    run = in_window(answers(*times), window_s, {"rate_per_s": 2}, slo={"e2e_ms": 3000})
    assert record(run, gross_j=2000).energy_per_good_request_j == pytest.approx(
        2000 / (4 + 2 / 3), rel=0.02
    )
