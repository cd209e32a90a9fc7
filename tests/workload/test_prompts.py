"""Prompts of an experiment's batches: made from a seed, or read, cut and ordered."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, ConfigurationError
from llenergymeasure.installation import install_command
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.models.known import KNOWN
from llenergymeasure.workload.models.resolve import ModelSource
from llenergymeasure.workload.prompts import (
    build_workload,
    check_files,
    interleave,
    order_positions,
    read_dataset,
)
from llenergymeasure.workload.requests import Request, Workload, prompt_hash
from llenergymeasure.workload.tokens import ordinary_token_ids
from support.checkpoints import changed_model
from support.data_files import put

FIRST_PROMPT = (1463, 1821, 1266, 42)
GOLDEN_HASH = "4033277b61fdf6f6ec57c0f3f2bf344b0db11db94a814bfa73967fa8d781dbb1"
ORDERS: tuple[Any, ...] = ("interleaved", "grouped", "shuffled", "given", "length")


def workload(**values: Any) -> Workload:
    return build_workload(ExperimentConfig.model_validate({"model": "tiny-llama", **values}))


@pytest.fixture
def one_prompt(tmp_path: Path) -> str:
    return str(put(tmp_path / "p.jsonl", {"prompt": "x"}))


def test_synthetic_prompts_have_the_lengths_asked_for() -> None:
    requested = workload(n=5, dataset={"input_len": 17, "output_len": 9})
    assert [len(request.prompt_token_ids) for request in requested.requests] == [17] * 5
    assert [request.max_output_tokens for request in requested.requests] == [9] * 5
    assert [request.index for request in requested.requests] == list(range(5))
    assert (requested.input_tokens, requested.output_tokens) == (85, 45)
    named = workload(n=2, max_input_tokens=11, max_output_tokens=3)
    assert (named.input_tokens, named.output_tokens) == (22, 6)


def test_synthetic_prompts_are_the_same_everywhere_and_however_many_there_are() -> None:
    dataset = {"input_len": 4, "output_len": 2, "seed": 7}
    requested = workload(n=2, dataset=dataset)
    assert requested.requests[0].prompt_token_ids == FIRST_PROMPT
    assert requested.prompt_hash == GOLDEN_HASH
    assert workload(n=30, dataset=dataset).requests[:2] == requested.requests


def test_synthetic_prompts_may_begin_alike() -> None:
    lengths = {"n": 3, "input_len": 20, "output_len": 4}
    unshared = [each.prompt_token_ids for each in workload(dataset=lengths).requests]
    alike = workload(dataset={**lengths, "shared_prefix_len": 12}).requests
    assert [each.prompt_token_ids for each in alike] == [
        unshared[0][:12] + prompt[12:] for prompt in unshared
    ]


def test_synthetic_prompts_hold_no_special_tokens() -> None:
    requested = workload(n=50, dataset={"input_len": 200})
    ids = {token for request in requested.requests for token in request.prompt_token_ids}
    assert min(ids) >= 4
    assert max(ids) == KNOWN["tiny-llama"].vocab_size - 1


VOCABULARY = {
    "added_tokens": [{"id": 5, "content": "<a>"}, {"id": 6, "content": "<b>"}],
    "model": {"vocab": {str(number): number for number in range(10)}},
}


@pytest.mark.parametrize(
    ("config", "tokenizer", "ids"),
    [
        (
            {"vocab_size": 12, "bos_token_id": 0, "eos_token_id": [1, 2]},
            VOCABULARY,
            {3, 4, 7, 8, 9},
        ),
        ({"vocab_size": 3, "text_config": None, "eos_token_id": 0}, None, {1, 2}),
    ],
    ids=["added tokens are special", "null settings of a text model"],
)
def test_synthetic_prompts_are_of_a_folders_own_words(
    tmp_path: Path, config: dict[str, Any], tokenizer: Any, ids: set[int]
) -> None:
    put(tmp_path / "config.json", {"model_type": "mamba", **config})
    if tokenizer is not None:
        put(tmp_path / "tokenizer.json", tokenizer)
    requested = workload(model=str(tmp_path), n=1, dataset={"input_len": 500})
    assert set(requested.requests[0].prompt_token_ids) == ids


def test_random_weights_need_no_tokenizer() -> None:
    requested = workload(model="Llama-3.1-8B", weights="random", n=2)
    assert max(requested.requests[0].prompt_token_ids) < 128_000


def test_a_checkpoint_under_a_known_name_is_asked_with_tokens_that_it_has() -> None:
    name, location = "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"
    content = {"model_type": "mamba", "vocab_size": 40, "eos_token_id": 0}
    ids = ordinary_token_ids(ModelSource(name, location, False, content, None))
    assert ids.tolist() == list(range(1, 40))
    published = ModelSource(name, location, False, content | {"vocab_size": 151_936}, None)
    assert ordinary_token_ids(published)[-1] > 100_000


def test_the_hash_is_of_the_work_not_of_its_order() -> None:
    first, second = Request(0, (1, 2), 5), Request(1, (3,), 5)
    assert prompt_hash((first, second)) == prompt_hash((second, first))
    assert prompt_hash((first, first)) != prompt_hash((first,))
    assert prompt_hash((first,)) != prompt_hash((Request(0, (1, 2), 6),))
    assert prompt_hash((Request(0, (1, 2), 3),)) != prompt_hash((Request(0, (1,), 2),))


def test_texts_are_tokenized_cut_and_cycled(tmp_path: Path) -> None:
    rows = [{"prompt": "the energy of a model " * 20}, {"prompt": "short"}]
    requested = workload(n=5, dataset=str(put(tmp_path / "p.jsonl", rows)), max_input_tokens=12)
    lengths = [len(request.prompt_token_ids) for request in requested.requests]
    assert lengths == [12, lengths[1], 12, lengths[1], 12]
    assert lengths[1] < 12
    cycle_note, cut_note = requested.notes
    assert "holds 2 prompts; they are cycled to make 5" in cycle_note
    assert "cut to 12 tokens" in cut_note
    assert all(request.prompt_token_ids[0] == 0 for request in requested.requests)


def test_a_chat_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    template = "{{ raise_exception('no system role here') }}"
    model = changed_model(tmp_path / "model", "tokenizer_config.json", chat_template=template)
    data = put(tmp_path / "p.jsonl", {"messages": [{"role": "user", "content": "x"}]})
    with pytest.raises(ConfigurationError, match=r"row 1: .*no system role here"):
        workload(model=str(model), dataset=str(data))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pre_tokenizer": {"type": "FromTheFuture"}}, "may need newer packages tokenizers"),
        ({}, "line 1 column"),
    ],
    ids=["of a later release", "cut in half"],
)
def test_a_tokenizer_that_cannot_be_loaded_is_named(
    tmp_path: Path, change: dict[str, Any], says: str, one_prompt: str
) -> None:
    model = changed_model(tmp_path / "model", "tokenizer.json", **change)
    file = model / "tokenizer.json"
    file.write_text(file.read_text()[: None if change else 1000])
    with pytest.raises(BackendError, match=rf"model {model}: its tokenizer cannot.*{says}"):
        workload(model=str(model), dataset=one_prompt)


@pytest.mark.parametrize("lacks", ["tokenizer.json", "generation_config.json", "pad_token"])
def test_what_synthetic_prompts_do_not_need_may_be_missing(tmp_path: Path, lacks: str) -> None:
    model = changed_model(tmp_path / "model", "tokenizer_config.json", pad_token=None)
    if lacks.endswith(".json"):
        (model / lacks).unlink()
    assert len(workload(model=str(model), n=2).requests) == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", {"answer": "x"}, "row 1: no prompt in it"),
        ("silence.csv", "0,5,5\n1000,5,5\n", "nothing comes in the"),
        ("trace.csv", "0,-5,5\n", "no number of tokens: -5"),
        ("prompts.xlsx", None, "nor a file"),
    ],
)
def test_files_that_no_run_could_use_are_refused_with_the_plan(
    tmp_path: Path, name: str, content: Any, says: str
) -> None:
    values: dict[str, Any] = {"dataset": name}
    if name.endswith(".csv"):
        path = put(tmp_path / name, "timestamp,input_tokens,output_tokens\n" + content)
        values = {"serving": {"arrivals": "trace", "trace": str(path)}, "backend": "vllm"}
    elif content:
        values["dataset"] = str(put(tmp_path / name, content))
    with pytest.raises(ConfigurationError, match=says):
        check_files([ExperimentConfig.model_validate({"model": "tiny-llama", **values})])


def test_a_plan_says_what_of_a_file_is_asked_again_or_left_out(tmp_path: Path) -> None:
    data = str(put(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b", "system": "c"}]))
    variants: list[dict[str, Any]] = [{"n": 2}, {"n": 7}, {"n": 9, "serving": {"rate_per_s": 1}}]
    configs = [{"model": "tiny-llama", "dataset": data, **values} for values in variants]
    again, unread = "holds 2 prompts; they are cycled to make 7", "have a column system"
    notes = check_files(map(ExperimentConfig.model_validate, configs))
    assert [unread in notes[0], again in notes[1], len(notes)] == [True, True, 2]
    assert check_files([]) == []


def test_an_architecture_alone_cannot_read_texts(one_prompt: str) -> None:
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        workload(model="Llama-3.1-8B", weights="random", dataset=one_prompt)


def records(sources: str) -> list[Record]:
    given_records = [Record(row, source, text="x") for row, source in enumerate(sources, start=1)]
    return interleave(given_records)


@pytest.mark.parametrize(
    ("sources", "order", "rows"),
    [
        ("aaabb", "interleaved", [1, 4, 2, 5, 3]),
        ("aaabb", "grouped", [1, 2, 3, 4, 5]),
        ("aaabb", "given", [1, 2, 3, 4, 5]),
        ("aaabb", "length", [3, 5, 2, 4, 1]),
        ("abab", "grouped", [1, 3, 2, 4]),
        ("abab", "given", [1, 2, 3, 4]),
    ],
)
def test_orders(sources: str, order: Any, rows: list[int]) -> None:
    taken, lengths = records(sources), list(range(len(sources), 0, -1))
    assert [taken[place].row for place in order_positions(taken, lengths, order, seed=1)] == rows


@settings(deadline=None)
@given(st.text("abc", min_size=1, max_size=30), st.integers(0, 2**63 - 1))
def test_every_order_does_the_same_work(sources: str, seed: int) -> None:
    lengths = [record.row for record in records(sources)]
    assert sorted(lengths) == list(range(1, len(sources) + 1))
    for order in ORDERS:
        positions = order_positions(records(sources), lengths, order, seed)
        assert sorted(positions) == list(range(len(sources)))


def test_shuffling_follows_the_seed() -> None:
    same = records("a" * 50)
    first, again, other = (order_positions(same, [], "shuffled", seed) for seed in (1, 1, 2))
    assert first == again != other


def test_orders_do_not_change_the_hash(tmp_path: Path) -> None:
    rows = [{"prompt": "word " * length, "source": "xy"[length % 2]} for length in range(1, 9)]
    data = str(put(tmp_path / "p.jsonl", rows))
    workloads = {order: workload(n=6, dataset=data, dataset_order=order) for order in ORDERS}
    assert len({ordered.prompt_hash for ordered in workloads.values()}) == 1
    lengths = [len(request.prompt_token_ids) for request in workloads["length"].requests]
    assert lengths == sorted(lengths)


def test_a_data_set_that_means_nothing() -> None:
    with pytest.raises(ConfigurationError, match="neither synthetic"):
        read_dataset("what is this?")
    with pytest.raises(ConfigurationError, match="no such file"):
        read_dataset("missing.jsonl")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=re.escape(install_command("datasets"))) as caught:
        read_dataset("aienergyscore")
    assert "dataset: synthetic" in str(caught.value)


def test_a_folder_as_the_hub_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    put(folder / "train.jsonl", [{"text": "one"}, {"text": "two"}])
    put(folder / "test.jsonl", {"text": "three"})
    assert [record.text for record in read_dataset(str(folder))] == ["one", "two"]
    put(folder / "train.jsonl", [{"text": "one"}, {"text": " "}])
    with pytest.raises(ConfigurationError, match="row 2: text is empty"):
        read_dataset(str(folder))


def test_offline_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(BackendError, match="dataset: synthetic") as caught:
        read_dataset("aienergyscore")
    assert ".jsonl" in str(caught.value)
