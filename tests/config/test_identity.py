"""Ids: the same experiment keeps its id, and what is read from disk counts by content."""

import os
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import study_from_mapping

# These ids name results that people have paid for. A change here orphans them: a new setting
# must default to null, and a changed meaning needs a new hash version.
GOLDEN: list[tuple[str, dict[str, Any]]] = [
    ("minimal", {"model": "tiny-llama"}),
    (
        "demo",
        {
            "model": "tiny-llama",
            "n": 16,
            "max_input_tokens": 32,
            "max_output_tokens": 32,
            "decoder": {"preset": "deterministic"},
            "precision": "fp32",
            "pytorch": {"batch_size": 8},
        },
    ),
    (
        "vllm",
        {
            "model": "meta-llama/Llama-3.1-8B",
            "backend": "vllm",
            "dataset": {"n": 8},
            "vllm": {"engine": {"gpu_memory_utilization": 0.9}},
        },
    ),
    (
        "everything else",
        {
            "model": "gpt2",
            "weights": "random",
            "backend": "openai",
            "openai": {"base_url": "http://localhost:8000/v1"},
            "energy": {"backend": None},
            "warmup": {"n_warmup": 3},
            "baseline": {"enabled": False},
            "window": {"min_seconds": 2.5},
            "lora": {"adapter_id": "a/b"},
            "passthrough_kwargs": {"x": [1, 2.0, {"y": None}]},
            "protocol": "publication",
        },
    ),
]
IDS = {
    "minimal": "32c8d8bbc052",
    "demo": "23669e75554b",
    "vllm": "ed13a1e305ee",
    "everything else": "2a69fcd366b6",
}


def only_id(study: dict[str, Any]) -> str:
    (experiment,) = study_from_mapping(study).experiments
    return experiment.id


@pytest.mark.parametrize(("name", "study"), GOLDEN, ids=[name for name, _ in GOLDEN])
def test_ids_stay_as_they_are(name: str, study: dict[str, Any]) -> None:
    assert only_id(study) == IDS[name]


@pytest.mark.parametrize(
    "extra",
    [
        {"n": 100},
        {"precision": "bf16", "decoder": {"temperature": 1, "top_k": 50}},
        {"warmup": {"enabled": True}, "energy": {"backend": "auto"}},
        {"pytorch": {}},
        {"pytorch": {"batch_size": None}, "lora": None},
        {"name": "another", "execution": {"n_cycles": 9}, "output_dir": "elsewhere"},
        {"runners": {"pytorch": "docker"}},
        {"backend": "pytorch"},
        {"answer_length": "fixed"},
        {"answer_length": None, "chat": None},
    ],
)
def test_what_does_not_change_the_measurement_does_not_change_the_id(extra: dict[str, Any]) -> None:
    assert only_id({"model": "tiny-llama", **extra}) == only_id({"model": "tiny-llama"})


@pytest.mark.parametrize(
    "extra",
    [
        {"n": 99},
        {"random_seed": 1},
        {"protocol": "quick"},
        {"pytorch": {"batch_size": 1}},
        {"answer_length": "natural"},
    ],
)
def test_what_changes_the_measurement_changes_the_id(extra: dict[str, Any]) -> None:
    assert only_id({"model": "tiny-llama", **extra}) != only_id({"model": "tiny-llama"})


@pytest.mark.parametrize(
    "body", [{"ignore_eos": None}, {"seed": None}, {"chat_template_kwargs": {"x": None}}]
)
def test_a_null_in_a_request_leaves_something_out_and_counts(body: dict[str, Any]) -> None:
    server = {"base_url": "http://127.0.0.1:1/v1"}
    study = {"model": "tiny-llama", "backend": "openai"}
    full_id = only_id({**study, "openai": server})
    assert only_id({**study, "openai": {**server, "body": body}}) != full_id
    assert only_id({**study, "openai": {**server, "body": {}}}) == full_id


def test_preset_and_its_values_are_the_same_experiment() -> None:
    preset = only_id({"model": "tiny-llama", "decoder": {"preset": "deterministic"}})
    values = only_id({"model": "tiny-llama", "decoder": {"temperature": 0, "do_sample": False}})
    assert preset == values


def test_other_backends_settings_do_not_count() -> None:
    both = study_from_mapping(
        {
            "model": "tiny-llama",
            "backend": ["pytorch", "vllm"],
            "vllm": {"engine": {"max_num_seqs": 3}},
        }
    )
    assert both.experiments[0].id == only_id({"model": "tiny-llama"})


def test_local_model_counts_by_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "sub").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "sub" / "weights").write_bytes(b"\0" * 2_000_000)
        (folder / ".hidden").write_text(folder.name)
    same = only_id({"model": str(one)})
    assert only_id({"model": str(two)}) == same
    (two / "config.json").write_text("{ }")
    changed = only_id({"model": str(two)})
    assert changed != same
    (two / "config.json").rename(two / "settings.json")
    assert only_id({"model": str(two)}) not in (same, changed)


def test_results_in_a_model_s_folder_do_not_change_what_it_is(tmp_path: Path) -> None:
    """As with ``llem run --model .``, whose results go below the working folder."""
    (tmp_path / "config.json").write_text("{}")
    before = only_id({"model": str(tmp_path)})
    study = tmp_path / "results" / "run"
    study.mkdir(parents=True)
    for name in (".lock", "plan.json", "study.yaml"):
        (study / name).write_text("")
    assert only_id({"model": str(tmp_path)}) == before
    (tmp_path / "results" / "weights").write_text("")
    assert only_id({"model": str(tmp_path)}) != before


def test_a_chat_template_counts_by_content(tmp_path: Path) -> None:
    data, template = tmp_path / "prompts.jsonl", tmp_path / "template.jinja"
    data.write_text('{"prompt": "a"}\n')
    template.write_text("one")

    def named(chat: dict[str, Any] | None) -> str:
        return only_id({"model": "tiny-llama", "dataset": str(data), "chat": chat})

    before = named({"template": str(template)})
    assert named({}) == named({"template": "auto"})
    assert len({before, named({}), named({"template": "none"}), named(None)}) == 4
    assert named({"system": "x"}) != named({"arguments": {"x": True}}) != named({})
    moved = tmp_path / "moved.jinja"
    moved.write_text("one")
    assert named({"template": str(moved)}) == before
    template.write_text("two")
    assert named({"template": str(template)}) != before
    with pytest.raises(ConfigurationError, match="no such file"):
        named({"template": "absent.jinja"})


def test_local_data_counts_by_content(tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "a"}\n')
    before = only_id({"model": "tiny-llama", "dataset": str(data)})
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(data.read_bytes())
    assert only_id({"model": "tiny-llama", "dataset": str(moved)}) == before
    data.write_text('{"prompt": "b"}\n')
    assert only_id({"model": "tiny-llama", "dataset": str(data)}) != before


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model"
    model.mkdir()
    weights = model / "weights"
    weights.write_bytes(b"a" * 2_000_000)
    before = only_id({"model": str(model)})
    assert (tmp_path / "cache" / "llenergymeasure" / "hashes.json").is_file()
    stamp = weights.stat().st_mtime_ns
    weights.write_bytes(b"b" * 2_000_000)
    os.utime(weights, ns=(stamp, stamp))
    assert only_id({"model": str(model)}) == before, "size and time the same: not read again"
    os.utime(weights, ns=(stamp, stamp + 1))
    assert only_id({"model": str(model)}) != before


def test_damaged_cache_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = tmp_path / "cache" / "llenergymeasure" / "hashes.json"
    cache.parent.mkdir(parents=True)
    cache.write_text("[1, 2")
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"a" * 2_000_000)
    assert len(only_id({"model": str(model)})) == 12
