"""Ids: the same experiment keeps its id, and what is read from disk counts by content."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.merge_settings import assign
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import load_study, study_from_mapping

CALIBRATION = '{"gpus": {"A100": {"gain": 0.95, "u_gain_rel": 0.01, "source": "a meter"}}}'


def only_id(study: dict[str, Any]) -> str:
    return study_from_mapping({"model": "tiny-llama", **study}).experiments[0].id


def test_the_id_of_a_study_with_a_setting_in_every_section_stays() -> None:
    """Like those in test_recorded_ids.py, it names results that people have paid for.

    A new setting must default to null, and a changed meaning needs a new hash version.
    """
    study = {
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
    }
    assert only_id(study) == "2a69fcd366b6"


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
        # Another backend's settings, where the study has both.
        {"backend": ["pytorch", "vllm"], "vllm": {"engine": {"max_num_seqs": 3}}},
    ],
)
def test_what_does_not_change_the_measurement_does_not_change_the_id(extra: dict[str, Any]) -> None:
    assert only_id(extra) == only_id({})


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
    assert only_id(extra) != only_id({})


@pytest.mark.parametrize(
    "body", [{"ignore_eos": None}, {"seed": None}, {"chat_template_kwargs": {"x": None}}]
)
def test_a_null_in_a_request_leaves_something_out_and_counts(body: dict[str, Any]) -> None:
    server = {"base_url": "http://127.0.0.1:1/v1"}
    study = {"backend": "openai"}
    full_id = only_id({**study, "openai": server})
    assert only_id({**study, "openai": {**server, "body": body}}) != full_id
    assert only_id({**study, "openai": {**server, "body": {}}}) == full_id


def test_preset_and_its_values_are_the_same_experiment() -> None:
    preset = only_id({"decoder": {"preset": "deterministic"}})
    assert preset == only_id({"decoder": {"temperature": 0, "do_sample": False}})


CONTENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dataset": (".jsonl", '{"prompt": "a"}\n', {}),
    "chat.template": (".jinja", "{{ x }}", {"dataset": "arc"}),
    "energy.calibration": (".json", CALIBRATION, {}),
    "serving.trace": (".csv", "timestamp,x\n0,1\n", {"serving": {"arrivals": "trace"}}),
    "model": ("", "{}", {}),
    "lora.adapter_path": ("", "{}", {}),
    "tensorrt.engine_path": ("", "{}", {"backend": "tensorrt"}),
}
"""Settings that name what is on this machine: how its name ends, what it holds, what goes with it.

Without an ending it is a folder.
"""


@pytest.mark.parametrize("key", CONTENTS)
def test_what_is_on_this_machine_counts_by_its_content(tmp_path: Path, key: str) -> None:
    suffix, content, rest = CONTENTS[key]
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "copy", "other")]
    if not suffix:
        files = [path / "sub" / "config.json" for path in files]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content} " if path is files[2] else content)

    def named(path: Path) -> str:
        """Return the id of a study that names it relative to itself."""
        place = path if suffix else path.parents[1]
        written = {tuple(key.split(".")): f"./{place.name}"}
        study = tmp_path / "study.yaml"
        study.write_text(yaml.safe_dump(assign({"model": "tiny-llama", **rest}, written)))
        (experiment,) = load_study(study).experiments
        assert value_at(experiment.config, key) == str(place)
        return experiment.id

    one, copy, other = map(named, files)
    assert one == copy
    assert one != other
    if not suffix:
        renamed = files[2].rename(files[2].with_name("settings.json"))
        (tmp_path / "one" / ".hidden").write_text("")
        assert named(files[0]) == one
        assert named(renamed) not in (one, other)


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


def test_the_parts_of_a_chat_count(tmp_path: Path) -> None:
    def named(chat: dict[str, Any] | None) -> str:
        return only_id({"dataset": "arc", "chat": chat})

    assert named({}) == named({"template": "auto"})
    assert len({named({}), named({"template": "none"}), named(None)}) == 3
    assert named({"system": "x"}) != named({"arguments": {"x": True}}) != named({})
    with pytest.raises(ConfigurationError, match="no such file"):
        named({"template": str(tmp_path / "absent.jinja")})


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
