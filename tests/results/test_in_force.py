"""What an engine has in force is held against what was asked of it."""

from typing import Any

import pytest

from llenergymeasure.results.effective_settings import differing_settings, settings_in_force

VLLM = {
    "engine": {
        "attention_config": {"backend": "FLASH_ATTN"},
        "cache_config": {"block_size": 128, "cache_dtype": "auto"},
        "model_config": {"dtype": "torch.bfloat16", "quantization": "awq_marlin"},
        "parallel_config": {"tensor_parallel_size": 1},
        "scheduler_config": {"max_num_seqs": 64, "policy": "fcfs"},
        "other_config": {"policy": "lru"},
    },
    "workers": [{"attention": ["CPU_ATTN"]}, {"attention": ["CPU_ATTN"]}],
}


@pytest.mark.parametrize(
    ("name", "asked", "otherwise"),
    [
        ("attention_backend", "FLASH_ATTN", "FLASH_ATTN was asked for and CPU_ATTN is in force"),
        ("attention_backend", "cpu_attn", None),
        ("quantization", "awq", "awq was asked for and awq_marlin is in force"),
        ("block_size", 16, "16 was asked for and 128 is in force"),
        ("max_num_seqs", 64, None),
        ("dtype", "bfloat16", None),
        ("kv_cache_dtype", "auto", None),
        ("policy", "lru", None),
        ("not_told", 5, None),
        ("compilation_config", {"mode": 0}, None),
    ],
)
def test_a_value_other_than_asked_is_said(name: str, asked: Any, otherwise: str | None) -> None:
    config = {"backend": "vllm", "vllm": {"engine": {name: asked}}}
    found = differing_settings(config, VLLM)
    assert found == ({} if otherwise is None else {f"vllm.engine.{name}": otherwise})


def test_swept_settings_have_their_value_where_there_is_one() -> None:
    names = ("attention_backend", "max_num_seqs", "policy", "not_told")
    swept = {f"vllm.engine.{name}": None for name in names} | {"precision": "bf16"}
    assert settings_in_force(swept, "vllm", VLLM) == {
        "vllm.engine.attention_backend": "CPU_ATTN",
        "vllm.engine.max_num_seqs": 64,
    }
    assert settings_in_force(swept, "openai", None) == {}


def test_a_batch_of_several_processes_is_no_other_batch() -> None:
    config = {"backend": "pytorch", "pytorch": {"batch_size": 2, "num_processes": 4}}
    assert differing_settings(config, {"batch_size": 8, "num_processes": 1}) == {
        "pytorch.num_processes": "4 was asked for and 1 is in force"
    }
