"""Reading a catalogue from a release's sources, never running them."""

import sys
from pathlib import Path

import pytest

from catalogue.releases import (
    SGLANG,
    SGLANG_BEFORE,
    TENSORRT,
    VLLM,
    unpack,
    wheel,
)
from llenergymeasure.config.catalogue.knob import Catalogue, Knob
from llenergymeasure.config.catalogue.reading.engines import read_release
from llenergymeasure.errors import ConfigurationError


@pytest.fixture
def vllm(tmp_path: Path) -> Catalogue:
    return read_release("vllm", unpack(VLLM, tmp_path))


def test_names_in_the_order_of_the_engine(vllm: Catalogue) -> None:
    assert list(vllm.sections["engine"]) == [
        *("model", "gpu_memory_utilization", "kv_cache_dtype", "cache_bytes", "layers", "kernel"),
        *("compilation_config", "worker", "worker_name", "old", "_rank"),
    ]
    assert list(vllm.sections["sampling"]) == ["n", "_internal", "output_kind"]
    assert vllm.version == "9.9.1"


def test_defaults_help_and_bounds_are_followed_to_where_they_are_defined(vllm: Catalogue) -> None:
    engine = vllm.sections["engine"]
    assert engine["gpu_memory_utilization"] == Knob(
        "gpu_memory_utilization",
        ("float",),
        default=0.9,
        help="Share of the memory.",
        bounds={"gt": 0, "le": 1},
    )
    assert engine["cache_bytes"].default == 16384
    assert engine["layers"].default == []
    assert engine["layers"].type == ({"list": ["str"]},)


def test_choices_come_from_literals_and_enumerations(vllm: Catalogue) -> None:
    engine = vllm.sections["engine"]
    assert engine["kv_cache_dtype"].type == ({"choices": ["auto", "fp8"]}, "str")
    assert engine["kernel"].choices == ("FLASH", "TRITON")
    assert vllm.classes["CompilationConfig"]["mode"].choices == (0, 3, "NONE", "FULL")
    assert vllm.classes["CompilationConfig"]["mode"].default == 0


def test_what_only_python_can_hold_is_marked(vllm: Catalogue) -> None:
    engine = vllm.sections["engine"]
    assert engine["worker"].type == ("python",)
    assert engine["worker_name"].type == ("str",)
    assert engine["_rank"].internal
    assert vllm.sections["sampling"]["output_kind"].internal
    assert not vllm.sections["sampling"]["n"].internal


def test_deprecation_is_seen_in_messages(vllm: Catalogue) -> None:
    assert vllm.sections["engine"]["old"].deprecated
    assert vllm.sections["engine"]["old"].help == "An old one."
    assert not vllm.sections["engine"]["model"].deprecated


def test_sglang_by_namespaces(tmp_path: Path) -> None:
    catalogue = read_release("sglang", unpack(SGLANG, tmp_path))
    engine = catalogue.sections["engine"]
    assert list(engine) == [
        *("model_path", "load_format", "tp_size", "stops", "plain", "sampling_backend", "gone"),
        *("filled", "_seen"),
    ]
    assert engine["model_path"].required
    assert engine["model_path"].aliases == ("model",)
    assert engine["load_format"].choices == ("auto", "dummy")
    assert engine["load_format"].help == "The format."
    assert engine["tp_size"].aliases == ("tensor_parallel_size",)
    assert engine["stops"].type == ({"list": [{"choices": ["x", "y"]}]},)
    assert engine["plain"].help == "Plain help."
    assert set(engine["sampling_backend"].choices) == {"a", "b"}
    assert engine["gone"].deprecated
    assert engine["filled"].default == 7
    assert engine["_seen"].internal
    sampling = catalogue.sections["sampling"]
    assert sampling["top_k"].default == 1 << 30
    assert sampling["logit_bias"].type == ({"dict": ["float"]},)
    assert sampling["is_normalized"].internal


def test_sglang_before_it_had_namespaces(tmp_path: Path) -> None:
    catalogue = read_release("sglang", unpack(SGLANG_BEFORE, tmp_path))
    assert list(catalogue.sections["engine"]) == ["model_path", "tp_size", "gone_since"]


def test_tensorrt_takes_the_arguments_of_both_its_backends(tmp_path: Path) -> None:
    catalogue = read_release("tensorrt", unpack(TENSORRT, tmp_path))
    engine = catalogue.sections["engine"]
    assert {"max_batch_size", "kv_cache_config", "attn_backend", "fast_build"} <= set(engine)
    assert engine["model"].required
    assert engine["max_batch_size"].bounds == {"gt": 0}
    assert engine["max_batch_size"].help == "Sequences."
    assert engine["kv_cache_config"].type == ({"class": "KvCacheConfig"},)
    assert catalogue.classes["KvCacheConfig"]["enable_block_reuse"].default is True
    assert "_stop_word_ids" not in catalogue.sections["sampling"]


def test_a_wheel_reads_like_a_folder(tmp_path: Path) -> None:
    folder = read_release("vllm", unpack(VLLM, tmp_path / "folder"))
    path = wheel(VLLM, tmp_path / "vllm-9.9.8-py3-none-any.whl", "vllm", "9.9.8")
    packed = read_release("vllm", path)
    assert packed.version == "9.9.8"
    assert packed.sections == folder.sections


def test_installed_release_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(unpack(SGLANG, tmp_path)))
    assert read_release("sglang", None).version == "9.9.2"
    assert "sglang" not in sys.modules


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no package vllm"),
        ({**VLLM, "vllm/engine/arg_utils.py": "x = 1\n"}, "no class EngineArgs"),
        ({**VLLM, "vllm/engine/arg_utils.py": "def :\n"}, "cannot be read by this Python"),
    ],
)
def test_another_layout_is_told(files: dict[str, str], words: str, tmp_path: Path) -> None:
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(ConfigurationError, match=words):
        read_release("vllm", unpack(files, tmp_path))


def test_what_is_no_wheel_is_told(tmp_path: Path) -> None:
    path = tmp_path / "vllm.whl"
    path.write_text("no archive")
    with pytest.raises(ConfigurationError, match="neither a folder nor a wheel"):
        read_release("vllm", path)
    with pytest.raises(ConfigurationError, match="neither a folder nor a wheel"):
        read_release("vllm", tmp_path / "missing.whl")


def test_an_engine_that_is_not_installed_is_told() -> None:
    with pytest.raises(ConfigurationError, match="tensorrt_llm is not installed here"):
        read_release("tensorrt", None)
