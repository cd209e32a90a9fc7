"""Recorded traffic: traces as they are published, what is refused of them, and their replay."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.run.preflight.memory import longest_tokens
from llenergymeasure.workload import arrivals
from llenergymeasure.workload.arrivals import arrival_offsets, trace_lines
from llenergymeasure.workload.arrivals_trace import Trace, read_trace
from llenergymeasure.workload.prompts import check_files, traffic_prompts
from llenergymeasure.workload.traffic_prompts import TrafficPrompts
from support.data_files import check_refused, put
from support.serving_runs import experiment, record, run

PUBLISHED = Path(__file__).parents[1] / "fixtures" / "traces"
AIPERF, AZURE_AGENTS = (
    PUBLISHED / name for name in ("aiperf_agentic_code.jsonl", "azure_coding_agents.jsonl")
)
LENGTHS = {
    AIPERF: [[(48, 6), (78, 5), (91, 3)], [(40, 4), (60, 7)]],
    AZURE_AGENTS: [[(60, 6), (90, 4), (40, 5)], [(30, 3)]],
}
"""Of whole prompts, and of answers: what a turn adds stands on all that went before."""
PAUSES_S = {AIPERF: [[0.2453, 0.08], [0.1205]], AZURE_AGENTS: [[0.25, 0.15], []]}

OWN = {"distribution": "data"}
OWN_LENGTHS = {"input_tokens": OWN, "output_tokens": OWN}

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "timestamp,input_tokens,output_tokens\n"
MOONCAKE = '{"timestamp": %s, "input_length": 5, "output_length": 6, "hash_ids": [0, 1]}\n'


def replay(path: Path, **serving: Any) -> ExperimentConfig:
    """An experiment that replays a trace."""
    settings = {"arrivals": "trace", "trace": str(path), **serving}
    window = settings.pop("window", {})
    return ExperimentConfig.model_validate(
        {"model": "tiny-llama", "n": 4, "serving": settings, "window": window}
    )


def prompts(path: Path, **serving: Any) -> TrafficPrompts:
    return traffic_prompts(replay(path, **serving))


def sessions(trace: Trace) -> list[list[tuple[int, int]]]:
    return [
        [trace.lengths(trace.first_request(number) + turn) for turn in range(trace.turns(number))]
        for number in range(len(trace.offset_s))
    ]


TRACES: list[tuple[str, Any, list[float], tuple[int, int]]] = [
    ("AzureLLMInferenceTrace_conv.csv", None, [0, 4.314579, 4.541977], (374, 44)),
    ("BurstGPT_3.csv", None, [0, 51, 82, 144], (906, 446)),
    ("mooncake_toolagent_trace.jsonl", None, [0, 0, 3.053], (6758, 500)),
    ("qwen_traceA_blksz_16.jsonl", None, [0, 1.386], (521, 132)),
    (
        "azure_2024.csv",
        AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n",
        [0, 0.99007],
        (2162, 5),
    ),
    (
        "azure_2025_images.csv",
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00.2,1,5,6\n",
        [0],
        (5, 6),
    ),
    (
        "zones.csv",
        AZURE + "2024-05-10T00:00:00Z,1,2\n2024-05-10T02:00:01+02:00,3,4\n"
        "2024-05-10 00:00:02 UTC,5,6\n2024-05-10 02:00:03.5 +0200,7,8\n",
        [0, 1, 2, 3.5],
        (1, 2),
    ),
    (
        "burstgpt.csv",
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n",
        [0],
        (472, 18),
    ),
    ("epoch_ms.jsonl", MOONCAKE % 1700000000000 + MOONCAKE % 1700000000250, [0, 0.25], (5, 6)),
    ("UPPER.JSONL", MOONCAKE % 0 + MOONCAKE % 1000, [0, 1], (5, 6)),
    ("epoch.csv", PLAIN + "1700000001.5,2,2\n1700000000,1,1\n", [0, 1.5], (1, 1)),
    ("same.csv", PLAIN + "1,1,1\n1,2,2\n2,3,3\n", [0, 0, 1], (1, 1)),
    ("blanks.csv", "Timestamp , Input_Tokens,OUTPUT_TOKENS\n1,1,1\n", [0], (1, 1)),
    ("unsorted.csv", PLAIN + "5,5,5\n1,1,1\n", [0, 4], (1, 1)),
    ("negative.csv", PLAIN + "-1,1,1\n0,2,2\n", [0, 1], (1, 1)),
    ("bom.csv", b"\xef\xbb\xbf" + PLAIN.encode() + b"1,1,1\n", [0], (1, 1)),
    ("cr.csv", (PLAIN + "1,1,1\n2,2,2\n").replace("\n", "\r"), [0, 1], (1, 1)),
    ("blank.csv", PLAIN + "\n1,1,1\n\n", [0], (1, 1)),
    ("newline.csv", PLAIN + '1,1,1\n"2\n",2,2\n', [0, 1], (1, 1)),
    ("failed.csv", PLAIN + "0,1,1\n1,5,0\n2,2,2\n", [0, 2], (1, 1)),
]
"""The file, where it is none of tests/fixtures/traces; when requests come, and the first."""


@pytest.mark.parametrize(
    ("name", "content", "offsets_s", "first"), TRACES, ids=[name for name, *_ in TRACES]
)
def test_a_trace_is_read(
    tmp_path: Path, name: str, content: Any, offsets_s: list[float], first: tuple[int, int]
) -> None:
    trace = read_trace(PUBLISHED / name if content is None else put(tmp_path / name, content))
    assert not trace.has_sessions
    assert trace.offset_s.tolist() == pytest.approx(offsets_s, abs=1e-6)
    assert trace.lengths(0) == first
    assert trace.unanswered == (name == "failed.csv")


def rows_of_a_session(*rows: dict[str, Any]) -> str:
    return "".join(
        json.dumps({"session_id": "a", "output_length": 6, **row}) + "\n" for row in rows
    )


NO_TRACES: list[tuple[str, Any, str]] = [
    ("semicolons.csv", PLAIN.replace(",", ";") + "1;1;1\n", "is no trace"),
    ("conversations.json", (PUBLISHED / "vllm_multi_turn.json").read_bytes(), "is no trace"),
    ("commas.csv", PLAIN + '"1,5",1,1\n', "trace.*: a row that is none.*1,5"),
    ("milliseconds.csv", PLAIN + "1700000000000,1,1\n", ":2: .*in milliseconds or finer"),
    ("nanoseconds.csv", AZURE + "1700000000000000000,1,1\n", ":2: .*in milliseconds or finer"),
    ("digits.jsonl", MOONCAKE % ("9" * 400), ":1: .*its fields are other than"),
    ("true.jsonl", MOONCAKE.replace("5,", "true,") % 0, ":1: .*a row that is none"),
    ("packed.csv.gz", b"\x1f\x8b\x08", "cannot be read"),
    ("thousands.csv", PLAIN + "1,000,5,5\n", ":2: .*its fields are other than"),
    ("short.csv", PLAIN + "1,5\n", ":2: .*its fields are other than"),
    ("short.jsonl", '{"timestamp": 1, "input_length": 2}\n', ":1: .*a row that is none"),
    ("words.csv", PLAIN + "1,two,3\n", "a row that is none"),
    ("below_0.csv", PLAIN + "1,-2,3\n", "no number of tokens: -2"),
    ("half.csv", PLAIN + "1,2.5,3\n", "no number of tokens: 2.5"),
    ("endless.csv", PLAIN + "1,inf,3\n", "no number of tokens: inf"),
    ("huge.csv", PLAIN + f"1,{'9' * 20},3\n", "no number of tokens: 9"),
    ("no_time.csv", PLAIN + "0,1,1\nnan,2,2\n1,3,3\n", "no time: nan"),
    ("never.csv", PLAIN + "inf,2,3\n", "no time: inf"),
    ("empty.csv", PLAIN, "no request"),
    ("american.csv", AZURE + "11/16/2023 18:17:03,1,1\n", ":2: .*a row that is none"),
    ("utf16.csv", PLAIN.encode("utf-16"), "cannot be read"),
    (
        "agents.jsonl",
        rows_of_a_session({"timestamp": 0, "input_length": 5}, {"timestamp": 9, "input_length": 7}),
        ":2: .*a later turn of its session, without the delay after the answer before",
    ),
    (
        "pause.jsonl",
        rows_of_a_session({"timestamp": 0, "input_length": 5}, {"delay": -1, "input_length": 7}),
        ":2: .*no pause: -0.001 s",
    ),
    ("begin.jsonl", rows_of_a_session({"input_length": 5}), ":1: "),
    ("calls.jsonl", '{"turns": [{"llm_calls": [{"timestamp": "x"}]}]}\n', ":1: .*its fields are"),
    ("list.jsonl", "[0, 5, 6]\n", ":1: .*its fields are other than"),
]


@pytest.mark.parametrize(
    ("name", "content", "says"), NO_TRACES, ids=[name for name, _, _ in NO_TRACES]
)
def test_a_trace_is_refused_with_file_and_line(
    tmp_path: Path, name: str, content: Any, says: str
) -> None:
    check_refused(read_trace, put(tmp_path / name, content), says)


@pytest.mark.parametrize(
    ("rows", "settings", "says"),
    [
        ("0,5,5\n100,5,5\n200,5,5\n", {}, "nothing comes in the 63 s"),
        ("0,5,5\n100,5,5\n200,5,5\n", {"trace_speed": 2.0}, None),
        ("1,5,5\n1,5,5\n1,5,5\n", {}, "nothing comes in the 63 s"),
        # Repeated for as long as the window may be, these are hundreds of millions.
        ("1,5,5\n1,5,5\n1.000001,5,5\n", {}, "3 requests in 1e-06 s, more than 100000 a"),
        ("1700000000000,5,5\n", {}, ":2: .*finer.*trace_speed: 1000"),
        ("1700000000000,5,5\n", {"trace_speed": 20.0}, ":2: .*finer.*trace_speed: 1000"),
        ("1700000000000000,5,5\n", {"trace_speed": 1000.0}, "or finer"),
        ("5,1,1\n105,2,2\n", {"trace_start_seconds": 200}, "trace_start_seconds.*ends 100 s after"),
    ],
)
def test_what_cannot_be_replayed_in_a_window_is_refused_in_planning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: str,
    settings: dict[str, Any],
    says: str | None,
) -> None:
    config = replay(
        put(tmp_path / "trace.csv", PLAIN + rows), **settings, window={"min_seconds": 3}
    )
    if says is None:
        assert TrafficPrompts(config).trace is not None
        return
    if "more than" in says:
        monkeypatch.setattr(arrivals, "arrival_offsets", lambda *_: pytest.fail("made"))
    with pytest.raises(ConfigurationError, match=says):
        TrafficPrompts(config)


def replayed(config: ExperimentConfig, seconds: float) -> list[float]:
    assert config.serving is not None
    return arrival_offsets(config.serving, seconds, 1, TrafficPrompts(config).trace).tolist()


def test_a_trace_is_replayed_at_another_speed_in_other_units_or_from_later_and_starts_over(
    tmp_path: Path,
) -> None:
    path = put(tmp_path / "trace.csv", f"{PLAIN}5,1,1\n105,2,2\n105.052,3,3\n107,4,4\n")
    later = replay(path, trace_start_seconds=50.0, trace_speed=2.0)
    assert replayed(later, 4.0)[:5] == pytest.approx([0, 0.026, 1.0, 1.5, 1.526], abs=1e-6)
    assert read_trace(path, 50.0).lengths(0) == (2, 2)
    first = 1_700_000_000_000
    path = put(tmp_path / "ms.csv", PLAIN + "".join(f"{first + 500 * n},5,5\n" for n in range(4)))
    assert replayed(replay(path, trace_speed=1000.0), 1.6) == pytest.approx([0, 0.5, 1.0, 1.5])


def test_a_trace_in_a_wrong_unit_is_seen_by_its_rate(tmp_path: Path) -> None:
    """Mooncake's times are in milliseconds; nothing in the file says that these are seconds."""
    path = put(tmp_path / "seconds.jsonl", "".join(MOONCAKE % (n / 2) for n in range(101)))
    traffic = {"arrivals": "trace", "trace": str(path), "trace_speed": 2.0}
    configs: list[dict[str, Any]] = [
        {"serving": traffic},
        {"serving": {**traffic, "slo": 1}},
        {"serving": None},
    ]
    line = f"Trace {path}: 101 requests come in 0.025 s as replayed, 4,040 a second"
    assert trace_lines(configs) == [line]
    row = {"timestamp": 5, "delay": 9, "input_length": 5, "output_length": 6}
    at_once = put(tmp_path / "at_once.jsonl", [{**row, "session_id": each} for each in "aabb"])
    (line,) = trace_lines([{"serving": {"arrivals": "trace", "trace": str(at_once)}}])
    assert line == f"Trace {at_once}: 2 sessions begin in 0 s as replayed"


@pytest.mark.parametrize("path", LENGTHS, ids=lambda path: path.stem)
def test_a_sessions_turns_have_the_files_lengths_and_pauses(path: Path) -> None:
    trace, traffic = read_trace(path), prompts(path)
    assert sessions(trace) == LENGTHS[path]
    again = len(trace.offset_s)  # past the end they repeat, with prompts of their own
    for number, turns in enumerate(LENGTHS[path]):
        sent = [traffic.turn(number, turn) for turn in range(len(turns))]
        requests = [each.request for each in sent]
        assert [
            (len(request.prompt_token_ids), request.max_output_tokens) for request in requests
        ] == turns
        assert {each.turns for each in sent} == {len(turns)}
        pauses = [traffic.think_s(number, turn) for turn in range(1, len(turns))]
        assert pauses == pytest.approx(PAUSES_S[path][number], abs=1e-6)
        for before, after in pairwise(sent):
            shared = min(len(before.request.prompt_token_ids), after.shared_tokens)
            common = after.request.prompt_token_ids[:shared]
            assert common == before.request.prompt_token_ids[:shared]
        repeated = traffic.turn(number + again, len(turns) - 1).request
        assert len(repeated.prompt_token_ids) == turns[-1][0]
        assert repeated.prompt_token_ids != requests[-1].prompt_token_ids
    everything = traffic.workload(3 * len(trace)).requests
    assert [request.index for request in everything] == list(range(3 * len(trace)))


def test_sessions_arrive_as_recorded(tmp_path: Path) -> None:
    assert read_trace(AIPERF).offset_s.tolist() == pytest.approx([0, 0.15])
    azure = read_trace(AZURE_AGENTS)
    assert azure.offset_s.tolist() == pytest.approx([0, 0.2])
    assert azure.unanswered == 1
    assert sessions(read_trace(AIPERF, 0.1)) == LENGTHS[AIPERF][1:]
    assert replayed(replay(AIPERF, trace_speed=3), 0.09) == pytest.approx([0, 0.05])
    # All begin at once, as AIPerf's generator writes them: the pauses are what comes later.
    at_once = AIPERF.read_text().replace("150.0", "0.0").replace("245.3", "2045.3")
    assert prompts(put(tmp_path / "at_once.jsonl", at_once)).trace is not None


def test_sessions_that_are_over_before_the_window_opens_are_refused_in_planning(
    tmp_path: Path,
) -> None:
    lines = AIPERF.read_text().splitlines(keepends=True)
    short = "".join(line for line in lines if "sess-a1" in line)
    path = put(tmp_path / "short.jsonl", short)
    with pytest.raises(ConfigurationError, match=r"add up to 2 s.*serving\.arrivals: closed"):
        prompts(path)
    assert prompts(path, arrivals="closed", concurrency=1, **OWN_LENGTHS).trace is not None


def test_users_of_a_closed_loop_take_sessions_one_after_the_other() -> None:
    closed = prompts(AIPERF, arrivals="closed", concurrency=2, think_seconds=4, **OWN_LENGTHS)
    assert [closed.turn(number).turns for number in range(4)] == [3, 2, 3, 2]
    assert closed.think_s(0, 1) == pytest.approx(0.2453)
    assert closed.think_s(1, 0) not in (0, pytest.approx(0.2453))
    poisson = prompts(AIPERF, arrivals="poisson", rate_per_s=1, turns=2, **OWN_LENGTHS)
    assert poisson.turn(0).turns == 2


WHOLE = {"context_mode": "message_array_with_responses", "output_length": 2}


@pytest.mark.parametrize(
    ("rows", "lengths", "gap_s", "unanswered"),
    [
        (
            [
                {**WHOLE, "timestamp": 0, "input_length": 9},
                {**WHOLE, "delay": 5, "input_length": 30},
            ],
            [(9, 2), (30, 2)],
            0.005,
            0,
        ),
        (
            [
                {"timestamp": 40, "input_length": 9, "output_length": 0},
                {"delay": 100, "input_length": 5, "output_length": 2},
                {"delay": 200, "input_length": 3, "output_length": 0},
                {"delay": 300, "input_length": 4, "output_length": 1},
            ],
            [(14, 2), (23, 1)],
            0.5,
            2,
        ),
    ],
    ids=["whole prompts are not added", "turns without an answer are waited over"],
)
def test_what_a_turn_adds_and_waits_for(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    lengths: list[tuple[int, int]],
    gap_s: float,
    unanswered: int,
) -> None:
    trace = read_trace(put(tmp_path / "trace.jsonl", rows_of_a_session(*rows)))
    assert sessions(trace) == [lengths]
    assert trace.gap_s.tolist() == [np.inf, gap_s]
    assert trace.unanswered == unanswered


def test_the_longest_sequence_is_the_whole_traces() -> None:
    config = replay(AIPERF)
    assert longest_tokens(config, traffic_prompts(config).workload(1)) == 91 + 3
    rows = PUBLISHED / "AzureLLMInferenceTrace_conv.csv"
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


def test_on_a_server_each_turn_comes_the_pause_after_the_answer(tmp_path: Path) -> None:
    config = experiment({"arrivals": "trace", "trace": str(AIPERF)}, window_s=1)
    served, _ = run(tmp_path, config, "--first-ms", "20", "--next-ms", "5")
    rows = {(row["conversation"], row["turn"]): row for row in served.requests.to_pylist()}
    trace = read_trace(AIPERF)
    waited = 0
    for (conversation, turn), row in rows.items():
        assert row["failure"] is None
        number = trace.first_request(conversation) + turn
        assert (row["input_tokens"], row["output_tokens_asked"]) == trace.lengths(number)
        assert row["input_tokens"] == row["input_tokens_expected"]
        assert row["turns"] == trace.turns(conversation)
        if turn:
            before = rows[conversation, turn - 1]
            waited_ns = row["planned_monotonic_ns"] - before["end_monotonic_ns"]
            pause_s = trace.gap_s[number % len(trace)]
            assert waited_ns / 1e9 == pytest.approx(pause_s, abs=1e-6)
            waited += 1
    assert waited > 3
    gaps = record(served).gaps
    assert gaps is not None
    assert gaps.pause_mean_s is not None
    assert gaps.duration_s >= gaps.waiting_duration_s > 0
