"""Each cycle's prompts are its own, so that no prefix cache knows them; arrivals are all alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.arrivals import arrival_offsets
from llenergymeasure.workload.prompts import build_workload, traffic_prompts
from llenergymeasure.workload.traffic_prompts import MARK_TOKENS, TrafficPrompts, content_seed
from support.data_files import put

OPENAI = {"backend": "openai", "openai": {"base_url": "http://127.0.0.1:1/v1"}}
RATE = {"rate_per_s": 4}


def experiment(**values: Any) -> ExperimentConfig:
    settings = {"model": "tiny-llama", "n": 4, "serving": RATE, "max_input_tokens": 12}
    return ExperimentConfig.model_validate(settings | values)


def cycle(config: ExperimentConfig, number: int) -> TrafficPrompts:
    """What a run of this cycle sends."""
    cycle_config = config if config.serving is None else config.with_cycle_seed(number)
    return traffic_prompts(cycle_config, content_seed(config, number))


def prompt_ids(prompts: TrafficPrompts, *numbers: int) -> list[tuple[int, ...]]:
    return [prompts.turn(number).request.prompt_token_ids for number in numbers]


def texts(folder: Path, *prompts: str) -> str:
    return str(put(folder / "set.jsonl", [{"prompt": text} for text in prompts]))


def chats(folder: Path, *turns: list[tuple[str, str]]) -> str:
    rows = [[{"role": role, "content": text} for role, text in chat] for chat in turns]
    return str(put(folder / "chats.jsonl", [{"messages": row} for row in rows]))


def test_cycles_have_their_own_arrivals_and_experiments_of_a_cycle_the_same() -> None:
    def offsets(config: ExperimentConfig, number: int) -> list[float]:
        seed = cycle(config, number).seed
        assert config.serving is not None
        return arrival_offsets(config.serving, 20, seed).tolist()

    vllm = experiment(backend="vllm", precision="fp16")
    assert offsets(experiment(), 1) == offsets(vllm, 1) == offsets(experiment(**OPENAI), 1)
    assert offsets(experiment(), 1) != offsets(experiment(), 2)
    half = experiment(serving={"rate_per_s": 2})
    twice = [2 * time_s for time_s in offsets(experiment(), 3) if 2 * time_s < 20]
    assert offsets(half, 3) == pytest.approx(twice)


def test_each_cycle_asks_something_else_and_experiments_of_a_cycle_the_same() -> None:
    first = prompt_ids(cycle(experiment(), 1), 0, 1, 2)
    assert prompt_ids(cycle(experiment(serving={"rate_per_s": 9}), 1), 0, 1, 2) == first
    assert not set(prompt_ids(cycle(experiment(), 2), *range(50))) & set(first)
    hashes = [
        build_workload(experiment().with_cycle_seed(number)).prompt_hash for number in (1, 1, 2)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_server_that_lives_on_is_never_asked_the_same_twice() -> None:
    config = experiment(**OPENAI)
    first, again = (cycle(config, 1) for _ in range(2))
    assert first.content_seed != again.content_seed
    assert not set(prompt_ids(first, *range(50))) & set(prompt_ids(again, *range(50)))
    assert [len(ids) for ids in prompt_ids(first, 0, 1)] == [12, 12]
    # The record names what was asked apart from it, so that engines can be compared.
    configs = (config, experiment())
    assert len({build_workload(each.with_cycle_seed(1)).prompt_hash for each in configs}) == 1


def test_without_traffic_the_batches_prompts_are_marked_on_a_server_that_lives_on() -> None:
    config = experiment(serving=None, **OPENAI)
    batches = [request.prompt_token_ids for request in build_workload(config).requests]
    sent = prompt_ids(cycle(config, 1), *range(12))
    # A mark for each time round and prompt: a prefix cache knows none of what none shares.
    assert len({ids[:MARK_TOKENS] for ids in sent}) == 12
    assert [ids[MARK_TOKENS:] for ids in sent] == [ids[MARK_TOKENS:] for ids in batches] * 3
    assert not set(sent) & set(prompt_ids(cycle(config, 1), *range(12)))


def test_prompts_that_begin_alike_do_so_with_their_marks(tmp_path: Path) -> None:
    asks = ("name a blue thing you know of", "name a blue thing you have", "how are you all today")
    config = experiment(serving=None, dataset=texts(tmp_path, *asks), n=3, **OPENAI)
    alike = [request.prompt_token_ids[:6] for request in build_workload(config).requests]
    sent = prompt_ids(cycle(config, 1), *range(6))
    same = [(a, b) for a in range(3) for b in range(a) if alike[a] == alike[b]]
    assert len(same) == 1
    for a, b in same:
        assert sent[a][:6] == sent[b][:6]
    assert len({ids[:MARK_TOKENS] for ids in sent}) == 4  # two rounds, two ways to begin


def test_an_own_servers_data_set_is_as_it_is_at_first_and_marked_when_it_comes_again(
    tmp_path: Path,
) -> None:
    asks = ("what is the first one to be asked", "what is another one to ask", "what else is it")
    config = experiment(dataset=texts(tmp_path, *asks), n=3, max_input_tokens=32)
    prompts = cycle(config, 1)
    unmarked = [request.prompt_token_ids for request in build_workload(config).requests]
    assert prompt_ids(prompts, 0, 1, 2) == unmarked
    later = prompt_ids(prompts, *range(3, 30))
    assert len({*unmarked, *later}) == 30
    assert [len(ids) for ids in later] == [len(ids) for ids in unmarked] * 9
    head = prompts.turn(0).shared_tokens
    assert 0 < head < 6
    assert {ids[:head] for ids in later} == {unmarked[0][:head]}
    # So they are where a smaller set is asked for more requests than it holds.
    more = cycle(config.model_copy(update={"n": 5}), 1)
    assert prompt_ids(more, 0, 1, 2) == unmarked
    assert len({*prompt_ids(more, *range(30))}) == 30
    # The warm-up's are not those of the window.
    warm = prompt_ids(prompts, *range(1 << 40, (1 << 40) + 30))
    assert not set(warm) & {*unmarked, *later}


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_examples_that_all_chats_begin_with_stay_common(tmp_path: Path, endpoint: str) -> None:
    pairs = [("user", "add 1 and 2"), ("assistant", "3"), ("user", "add 4"), ("assistant", "5")]
    questions = ("who are you", "be quick", "no more", "tell me", "how is it", "add all")
    dataset = chats(tmp_path, *([*pairs, ("user", question)] for question in questions))
    serving = {**RATE, "endpoint": endpoint}
    config = experiment(dataset=dataset, n=6, serving=serving, max_input_tokens=512, **OPENAI)
    prompts = cycle(config, 1)
    sent = [prompts.turn(number) for number in range(18)]
    shared = sent[0].shared_tokens
    assert shared > sum(len(text) for _, text in pairs) // 4
    assert {turn.shared_tokens for turn in sent} == {shared}
    if endpoint == "chat":
        assert len({json.dumps(turn.request.messages[:4]) for turn in sent}) == 1
        assert len({turn.request.messages[4]["content"] for turn in sent}) == 18
    requests = [turn.request.prompt_token_ids for turn in sent]
    assert len({ids[:shared] for ids in requests}) == 1
    assert len({*requests}) == 18


TURNS = [
    ("system", "be brief"),
    ("user", "name a colour"),
    ("assistant", "blue"),
    ("user", "another one"),
]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("first", [0, 1])
def test_the_only_chat_is_marked_before_its_earlier_turns(
    tmp_path: Path, endpoint: str, first: int
) -> None:
    dataset = chats(tmp_path, TURNS[first:])
    serving = {**RATE, "endpoint": endpoint}
    config = experiment(dataset=dataset, n=1, serving=serving, max_input_tokens=128, **OPENAI)
    sent = [cycle(config, 1).turn(number) for number in range(3)]
    if endpoint == "chat":
        said = [[tuple(each.values()) for each in turn.request.messages] for turn in sent]
        marked = {messages.pop(1 - first) for messages in said}
        assert said == [[turn for turn in TURNS[first:] if turn != TURNS[1]]] * 3
        assert len(marked) == 3
        assert all(text.endswith("name a colour") for _, text in marked)
    shared = sent[0].shared_tokens
    prompts = {turn.request.prompt_token_ids[: shared + MARK_TOKENS] for turn in sent}
    assert len(prompts) == 3
    assert shared < len(sent[0].request.prompt_token_ids) // 2


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_a_chat_among_plain_prompts_is_marked_before_its_earlier_turns(
    tmp_path: Path, endpoint: str
) -> None:
    chat = [{"role": role, "content": text} for role, text in TURNS[1:]]
    rows = [{"prompt": "what is it"}, {"messages": chat}, {"prompt": "how are you"}]
    dataset = str(put(tmp_path / "mixed.jsonl", rows))
    serving = {**RATE, "endpoint": endpoint}
    config = experiment(dataset=dataset, n=3, serving=serving, max_input_tokens=128, **OPENAI)
    sent = [cycle(config, 1).turn(number) for number in (1, 4, 7)]
    if endpoint == "chat":
        assert len({turn.request.messages[0]["content"] for turn in sent}) == 3
        assert all(list(turn.request.messages[1:]) == chat[1:] for turn in sent)
    head = len(sent[0].request.prompt_token_ids) // 2
    assert len({turn.request.prompt_token_ids[:head] for turn in sent}) == 3


def test_words_that_all_questions_begin_with_stay_common(tmp_path: Path) -> None:
    questions = (
        "Answer in one word: who are you",
        "Answer in one word: what is it",
        "Answer in one word: no",
    )
    serving = {**RATE, "endpoint": "chat"}
    dataset = texts(tmp_path, *questions)
    chat = {"chat": {"template": "auto"}, "max_input_tokens": 64}
    config = experiment(dataset=dataset, n=3, serving=serving, **chat, **OPENAI)
    prompts = cycle(config, 1)
    sent = [prompts.turn(number).request.messages[-1]["content"] for number in range(9)]
    assert len({*sent, *questions}) == 12
    begin = "Answer in one word: "
    assert all(question.startswith(begin) for question in sent)
    assert [question.split(": ")[1].split(" ", 2)[2] for question in sent[:3]] == [
        question.removeprefix(begin) for question in questions
    ]


SPECIAL = range(4)
"""The tiny model's own tokens: of texts, and of a chat's template."""


@pytest.mark.parametrize(
    "rows",
    [
        [[("user", "hello there")]],
        [[("user", "0")]],
        [[("system", "be brief"), ("user", "hi")], [("user", "what is it that you do all day")]],
        [[("user", "a")], [("user", "b")]],
        ["what is the only one to be asked"],
    ],
    ids=["one chat", "its only word is 0", "several roles", "two short chats", "one text"],
)
def test_marks_are_in_the_words_and_leave_what_stands_around_them_whole(
    tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template of a chat, and what the tokenizer puts before a text."""
    # Of words of one token two marks are by chance the same, in one of a hundred seeds.
    monkeypatch.setattr("secrets.randbits", lambda _: 7)
    dataset = (texts if isinstance(rows[0], str) else chats)(tmp_path, *rows)
    config = experiment(serving=None, dataset=dataset, n=len(rows), max_input_tokens=64, **OPENAI)
    unmarked = [item.prompt_token_ids for item in build_workload(config).requests] * 3
    sent = prompt_ids(cycle(config, 1), *range(len(unmarked)))
    assert len({*sent, *unmarked}) == 4 * len(rows)
    for marked, ids in zip(sent, unmarked, strict=True):
        assert [item if item in SPECIAL else None for item in marked] == [
            item if item in SPECIAL else None for item in ids
        ]
    # What stands before the words of the only prompt is what all of them share.
    if len(rows) == 1:
        shared = cycle(config, 1).turn(0).shared_tokens
        assert shared > 0
        assert {item[:shared] for item in sent} == {unmarked[0][:shared]}


def test_a_server_that_the_run_starts_is_asked_what_other_engines_are(tmp_path: Path) -> None:
    started = {"backend": "openai", "openai": {"command": ["serve", "{port}"]}}
    dataset = texts(tmp_path, "what is the first", "what else is there to ask")
    config = experiment(serving=None, dataset=dataset, n=2, max_input_tokens=32, **started)
    unmarked = [request.prompt_token_ids for request in build_workload(config).requests]
    seed = content_seed(config, 1)
    assert prompt_ids(traffic_prompts(config, seed), 0, 1) == unmarked
    assert not set(prompt_ids(traffic_prompts(config, seed), 2, 3)) & set(unmarked)
    # Where other runs have asked it before, it may know them.
    assert not set(prompt_ids(traffic_prompts(config, seed, server_persists=True), 0, 1)) & set(
        unmarked
    )
    assert seed == content_seed(experiment(serving=None, dataset=dataset), 1)


def test_a_study_may_ask_for_prompts_that_a_cache_knows(tmp_path: Path) -> None:
    serving = {**RATE, "cached_prompts": True}
    config = experiment(serving=serving, **OPENAI)
    assert prompt_ids(cycle(config, 1), 0, 1) == prompt_ids(cycle(config, 2), 0, 1)
    assert cycle(config, 1).seed != cycle(config, 2).seed  # of arrivals all the same
    dataset = texts(tmp_path, "one", "two")
    same = prompt_ids(cycle(experiment(dataset=dataset, n=2, serving=serving), 1), *range(4))
    assert same[:2] == same[2:]


def test_what_traffic_shares_is_known() -> None:
    unshared = cycle(experiment(), 1)
    assert unshared.turn(7).shared_tokens == 0
    serving = {**RATE, "shared_prefix_ratio": 0.5, "turns": 2}
    talk = cycle(experiment(serving=serving, max_output_tokens=5), 1)
    assert [talk.turn(3, turn).shared_tokens for turn in (0, 1)] == [6, 17]


def test_the_reader_of_a_result_is_told(tmp_path: Path) -> None:
    dataset = texts(tmp_path, "one", "two")
    notes = " ".join(build_workload(experiment(dataset=dataset)).notes)
    assert "random tokens in place of its first" in notes
    same = experiment(dataset=dataset, serving={**RATE, "cached_prompts": True})
    assert "random tokens" not in " ".join(build_workload(same).notes)
