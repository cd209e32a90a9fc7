import json
import re
import shutil
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
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from llenergymeasure.workload.prompts import (
    build_workload,
    check_files,
    interleave,
    order_positions,
    read_dataset,
)
from llenergymeasure.workload.requests import Request, Workload, prompt_hash
from llenergymeasure.workload.tokens import ordinary_token_ids

FIRST_PROMPT = (1463, 1821, 1266, 42)
GOLDEN_HASH = "4033277b61fdf6f6ec57c0f3f2bf344b0db11db94a814bfa73967fa8d781dbb1"


def workload(**values: Any) -> Workload:
    return build_workload(ExperimentConfig.model_validate({"model": "tiny-llama", **values}))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_synthetic_prompts_have_the_lengths_asked_for() -> None:
    requested = workload(n=5, dataset={"input_len": 17, "output_len": 9})
    assert [len(request.prompt_token_ids) for request in requested.requests] == [17] * 5
    assert [request.max_output_tokens for request in requested.requests] == [9] * 5
    assert [request.index for request in requested.requests] == list(range(5))
    assert (requested.input_tokens, requested.output_tokens) == (85, 45)
    named = workload(n=2, max_input_tokens=11, max_output_tokens=3)
    assert (named.input_tokens, named.output_tokens) == (22, 6)


def test_synthetic_prompts_are_the_same_everywhere() -> None:
    requested = workload(n=2, dataset={"input_len": 4, "output_len": 2, "seed": 7})
    assert requested.requests[0].prompt_token_ids == FIRST_PROMPT
    assert requested.prompt_hash == GOLDEN_HASH


def test_more_prompts_do_not_change_the_first_ones() -> None:
    few = workload(n=3, dataset={"input_len": 8})
    many = workload(n=30, dataset={"input_len": 8})
    assert many.requests[:3] == few.requests


def test_synthetic_prompts_may_begin_alike() -> None:
    lengths = {"n": 3, "input_len": 20, "output_len": 4}
    unshared = workload(dataset=lengths).requests
    alike = workload(dataset={**lengths, "shared_prefix_len": 12}).requests
    assert {request.prompt_token_ids[:12] for request in alike} == {
        unshared[0].prompt_token_ids[:12]
    }
    assert [request.prompt_token_ids[12:] for request in alike] == [
        request.prompt_token_ids[12:] for request in unshared
    ]


def test_synthetic_prompts_hold_no_special_tokens() -> None:
    requested = workload(n=50, dataset={"input_len": 200})
    ids = {token for request in requested.requests for token in request.prompt_token_ids}
    assert min(ids) >= 4
    assert max(ids) == KNOWN["tiny-llama"].vocab_size - 1


def test_a_folders_added_tokens_are_special(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "mamba", "vocab_size": 12, "bos_token_id": 0, "eos_token_id": [1, 2]}'
    )
    added = [{"id": 5, "content": "<a>"}, {"id": 6, "content": "<b>"}]
    vocabulary = {str(number): number for number in range(10)}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"added_tokens": added, "model": {"vocab": vocabulary}})
    )
    requested = workload(model=str(tmp_path), n=1, dataset={"input_len": 500})
    assert set(requested.requests[0].prompt_token_ids) == {3, 4, 7, 8, 9}


def test_a_text_model_s_settings_that_are_null_are_the_model_s_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "mamba", "vocab_size": 3, "text_config": null, "eos_token_id": 0}'
    )
    requested = workload(model=str(tmp_path), n=1, dataset={"input_len": 100})
    assert set(requested.requests[0].prompt_token_ids) == {1, 2}


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
    requested = workload(n=5, dataset=jsonl(tmp_path / "p.jsonl", rows), max_input_tokens=12)
    lengths = [len(request.prompt_token_ids) for request in requested.requests]
    assert lengths == [12, lengths[1], 12, lengths[1], 12]
    assert lengths[1] < 12
    cycle_note, cut_note = requested.notes
    assert "holds 2 prompts; they are cycled to make 5" in cycle_note
    assert "cut to 12 tokens" in cut_note
    assert all(request.prompt_token_ids[0] == 0 for request in requested.requests)


def test_a_chat_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama_folder(), model)
    settings_file = model / "tokenizer_config.json"
    content = json.loads(settings_file.read_text())
    content["chat_template"] = "{{ raise_exception('no system role here') }}"
    settings_file.write_text(json.dumps(content))
    data = jsonl(tmp_path / "p.jsonl", [{"messages": [{"role": "user", "content": "x"}]}])
    with pytest.raises(ConfigurationError, match=r"row 1: .*no system role here"):
        workload(model=str(model), dataset=data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pre_tokenizer": {"type": "FromTheFuture"}}, "may need newer packages tokenizers"),
        (None, "Unterminated string"),
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_named(
    tmp_path: Path, change: dict[str, Any] | None, says: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama_folder(), model)
    file = model / "tokenizer.json"
    text = file.read_text()
    file.write_text(text[:1000] if change is None else json.dumps(json.loads(text) | change))
    data = jsonl(tmp_path / "p.jsonl", [{"prompt": "x"}])
    with pytest.raises(BackendError, match=rf"model {model}: its tokenizer cannot.*{says}"):
        workload(model=str(model), dataset=data)


@pytest.mark.parametrize("lacks", ["tokenizer.json", "generation_config.json", "pad_token"])
def test_what_synthetic_prompts_do_not_need_may_be_missing(tmp_path: Path, lacks: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama_folder(), model)
    if lacks.endswith(".json"):
        (model / lacks).unlink()
    else:
        file = model / "tokenizer_config.json"
        content = json.loads(file.read_text())
        del content[lacks]
        file.write_text(json.dumps(content))
    assert len(workload(model=str(model), n=2).requests) == 2


@pytest.mark.parametrize("kind", ["prompts", "trace", "silence", "sheet"])
def test_files_that_no_run_could_use_are_refused_with_the_plan(tmp_path: Path, kind: str) -> None:
    values: dict[str, Any] = {"dataset": jsonl(tmp_path / "p.jsonl", [{"answer": "x"}])}
    says = "row 1: no prompt in it"
    if kind == "sheet":
        values, says = {"dataset": "prompts.xlsx"}, "nor a file"
    elif kind != "prompts":
        rows = "0,5,5\n1000,5,5\n" if kind == "silence" else "0,-5,5\n"
        trace = tmp_path / "t.csv"
        trace.write_text("timestamp,input_tokens,output_tokens\n" + rows)
        values = {"serving": {"arrivals": "trace", "trace": str(trace)}, "backend": "vllm"}
        says = "nothing comes in the" if kind == "silence" else "no number of tokens: -5"
    with pytest.raises(ConfigurationError, match=says):
        check_files([ExperimentConfig.model_validate({"model": "tiny-llama", **values})])


def test_a_plan_says_what_of_a_file_is_asked_again_or_left_out(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b", "system": "c"}])
    variants = [{"n": 2}, {"n": 7}, {"n": 9, "serving": {"rate_per_s": 1}}]
    configs = [{"model": "tiny-llama", "dataset": data, **values} for values in variants]
    again, unread = "holds 2 prompts; they are cycled to make 7", "have a column system"
    notes = check_files(map(ExperimentConfig.model_validate, configs))
    assert [unread in notes[0], again in notes[1], len(notes)] == [True, True, 2]
    assert check_files([]) == []


def test_an_architecture_alone_cannot_read_texts(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "p.jsonl", [{"prompt": "x"}])
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        workload(model="Llama-3.1-8B", weights="random", dataset=data)


def records(*sources: str) -> list[Record]:
    return [Record(row, source, text="x") for row, source in enumerate(sources, start=1)]


def rows_in(order: Any, given_records: list[Record], lengths: list[int]) -> list[int]:
    return [
        given_records[position].row
        for position in order_positions(given_records, lengths, order, seed=1)
    ]


def test_orders() -> None:
    interleaved = interleave(records("a", "a", "a", "b", "b"))
    lengths = [5, 4, 3, 2, 1]
    assert rows_in("interleaved", interleaved, lengths) == [1, 4, 2, 5, 3]
    assert rows_in("grouped", interleaved, lengths) == [1, 2, 3, 4, 5]
    assert rows_in("given", interleaved, lengths) == [1, 2, 3, 4, 5]
    assert rows_in("length", interleaved, lengths) == [3, 5, 2, 4, 1]
    assert sorted(rows_in("shuffled", interleaved, lengths)) == [1, 2, 3, 4, 5]
    interleaved = interleave(records("a", "b", "a", "b"))
    assert rows_in("grouped", interleaved, [1] * 4) == [1, 3, 2, 4]
    assert rows_in("given", interleaved, [1] * 4) == [1, 2, 3, 4]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.integers(0, 2**63 - 1),
)
def test_every_order_does_the_same_work(sources: list[str], seed: int) -> None:
    interleaved = interleave(records(*sources))
    lengths = [record.row for record in interleaved]
    assert sorted(lengths) == list(range(1, len(sources) + 1))
    for order in ("interleaved", "grouped", "shuffled", "given", "length"):
        positions = order_positions(interleaved, lengths, order, seed)
        assert sorted(positions) == list(range(len(sources)))


def test_shuffling_follows_the_seed() -> None:
    interleaved = interleave(records(*"a" * 50))
    first, again, other = (
        order_positions(interleaved, [1] * 50, "shuffled", seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_orders_do_not_change_the_hash(tmp_path: Path) -> None:
    rows = [{"prompt": "word " * length, "source": "xy"[length % 2]} for length in range(1, 9)]
    data = jsonl(tmp_path / "p.jsonl", rows)
    workloads = {
        order: workload(n=6, dataset=data, dataset_order=order)
        for order in ("interleaved", "grouped", "shuffled", "given", "length")
    }
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
    jsonl(folder / "train.jsonl", [{"text": "one"}, {"text": "two"}])
    jsonl(folder / "test.jsonl", [{"text": "three"}])
    assert [record.text for record in read_dataset(str(folder))] == ["one", "two"]
    jsonl(folder / "train.jsonl", [{"text": "one"}, {"text": " "}])
    with pytest.raises(ConfigurationError, match="row 2: text is empty"):
        read_dataset(str(folder))


def test_offline_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(BackendError, match="dataset: synthetic") as caught:
        read_dataset("aienergyscore")
    assert ".jsonl" in str(caught.value)
