"""Sessions of agents as they are published: tokens and pauses are the file's, on a server too."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.run.preflight.memory import longest_tokens
from llenergymeasure.workload.arrivals import arrival_offsets
from llenergymeasure.workload.arrivals_trace import Trace, read_trace
from llenergymeasure.workload.datasets.files import read_file
from llenergymeasure.workload.prompts import check_files, traffic_prompts
from llenergymeasure.workload.traffic_prompts import TrafficPrompts
from support.serving_runs import experiment, record, run

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "traces"
AIPERF, AZURE = PUBLISHED / "aiperf_agentic_code.jsonl", PUBLISHED / "azure_coding_agents.jsonl"
LENGTHS = {
    AIPERF: [[(48, 6), (78, 5), (91, 3)], [(40, 4), (60, 7)]],
    AZURE: [[(60, 6), (90, 4), (40, 5)], [(30, 3)]],
}
"""Of whole prompts, and of answers: what a turn adds stands on all that went before."""
PAUSES_S = {AIPERF: [[0.2453, 0.08], [0.1205]], AZURE: [[0.25, 0.15], []]}
OWN = {"distribution": "data"}


def sessions(trace: Trace) -> list[list[tuple[int, int]]]:
    return [
        [trace.lengths(trace.first_request(number) + turn) for turn in range(trace.turns(number))]
        for number in range(len(trace.offset_s))
    ]


def prompts(path: Path | str, **serving: Any) -> TrafficPrompts:
    serving = {"arrivals": "trace", "trace": str(path), **serving}
    return traffic_prompts(ExperimentConfig(model="tiny-llama", serving=serving, n=4))


@pytest.mark.parametrize("path", LENGTHS, ids=lambda path: path.stem)
def test_a_sessions_turns_have_the_files_lengths_and_pauses(path: Path) -> None:
    trace, traffic = read_trace(path), prompts(path)
    assert sessions(trace) == LENGTHS[path]
    again = len(trace.offset_s)  # past the end they repeat, with prompts of their own
    for number, turns in enumerate(LENGTHS[path]):
        sent = [traffic.turn(number, turn) for turn in range(len(turns))]
        lengths = [(len(sent_turn.request.prompt_token_ids), sent_turn.request.max_output_tokens)
                 for sent_turn in sent]  # fmt: skip
        assert lengths == turns
        assert {sent_turn.turns for sent_turn in sent} == {len(turns)}
        pauses = [traffic.think_s(number, turn) for turn in range(1, len(turns))]
        assert pauses == pytest.approx(PAUSES_S[path][number], abs=1e-6)
        for before, after in pairwise(sent):
            shared = min(len(before.request.prompt_token_ids), after.shared_tokens)
            common = after.request.prompt_token_ids[:shared]
            assert common == before.request.prompt_token_ids[:shared]
        repeated = traffic.turn(number + again, len(turns) - 1).request
        assert len(repeated.prompt_token_ids) == turns[-1][0]
        assert repeated.prompt_token_ids != sent[-1].request.prompt_token_ids
    everything = traffic.workload(3 * len(trace)).requests
    assert [sent_turn.index for sent_turn in everything] == list(range(3 * len(trace)))


def test_what_arrives_when(tmp_path: Path) -> None:
    assert read_trace(AIPERF).offset_s.tolist() == pytest.approx([0, 0.15])
    azure = read_trace(AZURE)
    assert azure.offset_s.tolist() == pytest.approx([0, 0.2])
    assert azure.unanswered == 1
    later = read_trace(AIPERF, 0.1)
    assert sessions(later) == LENGTHS[AIPERF][1:]
    fast = experiment({"arrivals": "trace", "trace": str(AIPERF), "trace_speed": 3}).serving
    assert fast is not None
    assert arrival_offsets(fast, 0.09, 1, read_trace(AIPERF)).tolist() == pytest.approx([0, 0.05])
    # All begin at once, as AIPerf's generator writes them: the pauses are what comes later.
    at_once = tmp_path / "at_once.jsonl"
    at_once.write_text(AIPERF.read_text().replace("150.0", "0.0").replace("245.3", "2045.3"))
    assert prompts(at_once).trace is not None


def test_sessions_that_are_over_before_the_window_opens_are_refused_in_planning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "short.jsonl"
    lines = AIPERF.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "sess-a1" in line))
    with pytest.raises(ConfigurationError, match=r"add up to 2 s.*serving\.arrivals: closed"):
        prompts(path)
    lengths = {"input_tokens": OWN, "output_tokens": OWN}
    assert prompts(path, arrivals="closed", concurrency=1, **lengths).trace is not None


def test_users_of_a_closed_loop_take_sessions_one_after_the_other() -> None:
    lengths = {"input_tokens": OWN, "output_tokens": OWN}
    closed = prompts(AIPERF, arrivals="closed", concurrency=2, think_seconds=4, **lengths)
    assert [closed.turn(number).turns for number in range(4)] == [3, 2, 3, 2]
    assert closed.think_s(0, 1) == pytest.approx(0.2453)
    assert closed.think_s(1, 0) not in (0, pytest.approx(0.2453))
    poisson = prompts(AIPERF, arrivals="poisson", rate_per_s=1, turns=2, **lengths)
    assert poisson.turn(0).turns == 2


def test_a_whole_prompt_that_says_so_is_not_added_to_another(tmp_path: Path) -> None:
    path = tmp_path / "whole.jsonl"
    mode = {"context_mode": "message_array_with_responses", "session_id": 7, "output_length": 2}
    rows = [{"timestamp": 0, "input_length": 9}, {"delay": 5, "input_length": 30}]
    path.write_text("".join(json.dumps({**mode, **row}) + "\n" for row in rows))
    assert sessions(read_trace(path)) == [[(9, 2), (30, 2)]]


def test_a_turn_without_an_answer_is_waited_over_and_its_tokens_stay(tmp_path: Path) -> None:
    path = tmp_path / "gone.jsonl"
    rows = [
        {"timestamp": 40, "input_length": 9, "output_length": 0},
        {"delay": 100, "input_length": 5, "output_length": 2},
        {"delay": 200, "input_length": 3, "output_length": 0},
        {"delay": 300, "input_length": 4, "output_length": 1},
    ]
    path.write_text("".join(json.dumps({"session_id": "s", **row}) + "\n" for row in rows))
    trace = read_trace(path)
    assert sessions(trace) == [[(14, 2), (23, 1)]]
    assert trace.gap_s.tolist() == [np.inf, 0.5]
    assert trace.unanswered == 2


def test_the_longest_sequence_is_the_whole_traces() -> None:
    config = ExperimentConfig(
        model="tiny-llama", serving={"arrivals": "trace", "trace": str(AIPERF)}, n=1
    )
    assert longest_tokens(config, traffic_prompts(config).workload(1)) == 91 + 3
    rows = str(PUBLISHED / "AzureLLMInferenceTrace_conv.csv")
    assert prompts(rows).workload(1).longest_in_trace_tokens == 0  # each row is sent as it comes
    limited = prompts(AIPERF, input_tokens={**OWN, "max_tokens": 50}, output_tokens=OWN)
    assert limited.workload(1).longest_in_trace_tokens == 50 + 7


def test_a_window_in_which_no_session_ends_is_noted_with_how_far_it_came() -> None:
    traffic = prompts(AIPERF)
    first = [traffic.turn(0), traffic.turn(1)]
    (note,) = traffic.unended_sessions_note(first)
    assert "its prompts had 44 tokens on average, the trace's 63;" in note
    assert traffic.unended_sessions_note([*first, traffic.turn(1, 1)]) == ()
    assert traffic.unended_sessions_note([]) == ()


def test_limits_of_lengths_hold_in_a_replay() -> None:
    lengths = {"input_tokens": {**OWN, "max_tokens": 50}, "output_tokens": {**OWN, "max_tokens": 5}}
    traffic = prompts(AIPERF, **lengths)
    requests = [traffic.turn(0, turn).request for turn in range(3)]
    assert [len(request.prompt_token_ids) for request in requests] == [48, 50, 50]
    assert [request.max_output_tokens for request in requests] == [5, 5, 3]
    rows = prompts(PUBLISHED / "AzureLLMInferenceTrace_conv.csv", **lengths)
    assert len(rows.turn(2).request.prompt_token_ids) == 50


@pytest.mark.parametrize(
    "settings",
    [
        {"serving": {"input_tokens": {"tokens": 4}}},
        {"dataset": "aienergyscore"},
    ],
    ids=["lengths", "dataset"],
)
def test_other_tokens_than_the_sessions_own_are_refused_in_planning(settings: Any) -> None:
    serving = {"arrivals": "trace", "trace": str(AIPERF), **settings.pop("serving", {})}
    config = ExperimentConfig(model="tiny-llama", serving=serving, **settings)
    with pytest.raises(ConfigurationError, match="made of their own lengths"):
        check_files([config])


@pytest.mark.parametrize(
    ("name", "offsets_s", "first"),
    [
        ("mooncake_toolagent_trace.jsonl", [0, 0, 3.053], (6758, 500)),
        ("BurstGPT_3.csv", [0, 51, 82, 144], (906, 446)),
        ("AzureLLMInferenceTrace_conv.csv", [0, 4.314579, 4.541977], (374, 44)),
        ("qwen_traceA_blksz_16.jsonl", [0, 1.386], (521, 132)),
    ],
)
def test_traces_that_say_when_each_request_came_are_requests(
    name: str, offsets_s: list[float], first: tuple[int, int]
) -> None:
    trace = read_trace(PUBLISHED / name)
    assert not trace.has_sessions
    assert trace.offset_s.tolist() == pytest.approx(offsets_s, abs=1e-6)
    assert trace.lengths(0) == first


def test_vllms_conversations_are_a_data_set_and_no_trace() -> None:
    path = PUBLISHED / "vllm_multi_turn.json"
    (read,) = read_file(path)
    assert [message["content"] for message in read.messages] == [
        "Which unit is energy counted in?", "In joules.", "And power?"
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="is no trace"):
        read_trace(path)


@pytest.mark.parametrize("path", LENGTHS, ids=lambda path: path.stem)
def test_on_a_server_each_turn_comes_the_pause_after_the_answer(tmp_path: Path, path: Path) -> None:
    config = experiment({"arrivals": "trace", "trace": str(path)}, window_s=2)
    served, _ = run(tmp_path, config, "--first-ms", "20", "--next-ms", "5")
    rows = served.requests.to_pylist()
    assert all(row["failure"] is None for row in rows)
    trace, rows_by_turn = (
        read_trace(path),
        {(row["conversation"], row["turn"]): row for row in rows},
    )
    waited = 0
    for (conversation, turn), row in rows_by_turn.items():
        number = trace.first_request(conversation) + turn
        assert (row["input_tokens"], row["output_tokens_asked"]) == trace.lengths(number)
        assert row["input_tokens"] == row["input_tokens_expected"]
        assert row["turns"] == trace.turns(conversation)
        if turn:
            pause_s = trace.gap_s[number % len(trace)]
            before = rows_by_turn[conversation, turn - 1]
            waited_ns = row["planned_monotonic_ns"] - before["end_monotonic_ns"]
            assert waited_ns / 1e9 == pytest.approx(pause_s, abs=1e-6)
            waited += 1
    assert waited > 3
    gaps = record(served).gaps
    assert gaps is not None
    assert gaps.pause_mean_s is not None
    assert gaps.duration_s >= gaps.waiting_duration_s > 0
