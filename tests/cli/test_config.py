"""``llem config``: an engine's parameters by words."""

import json
import sys
from collections.abc import Callable

import pytest

from cli.commands import Call


@pytest.fixture
def output(call: Call) -> Callable[..., str]:
    """What a command prints."""

    def said(*arguments: str) -> str:
        result = call(*arguments)
        assert result.code == 0, result.err
        return result.out

    return said


def test_parameters_by_part_of_their_name_with_help(output: Callable[..., str]) -> None:
    text = output("config", "vllm", "kv")
    assert "vllm.engine.kv_cache_dtype: " in text
    assert '"fp8_e4m3"' in text
    assert '= "auto"' in text
    assert "Data type for kv cache storage." in text
    assert "max_loras" not in text
    full_text = output("config", "vllm", "kv_cache_dtype")
    assert output("config", "vllm.engine.kv_cache_dtype") == full_text  # a study's own key


@pytest.mark.parametrize(
    ("backend", "words", "shown"),
    [
        ("vllm", "prefix caching", "vllm.engine.enable_prefix_caching"),
        ("sglang", "RadixAttention", "sglang.engine.disable_radix_cache"),
        ("pytorch", "batch_size", "pytorch.batch_size"),
        ("vllm", "swap_space", "not among the arguments"),
        ("vllm", "hf_token", "not for a study to set"),
    ],
)
def test_parameters_by_words_and_what_a_study_may_not_set(
    backend: str, words: str, shown: str, output: Callable[..., str]
) -> None:
    assert shown in output("config", backend, words)


def test_everything_in_brief(output: Callable[..., str]) -> None:
    text = output("config", "sglang")
    assert len(text.splitlines()) > 570
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "shows those that fit" in text


def test_for_programs(output: Callable[..., str]) -> None:
    parameters = json.loads(output("config", "vllm", "max_num_seqs", "--json"))
    assert parameters[0]["key"] == "vllm.engine.max_num_seqs"
    assert parameters[0]["type"] == "int >= 1"


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("sglang", "radixx"), "did you mean radix"),
        (("vlm",), "did you mean vllm?"),
        (("openai",), "pytorch, vllm, sglang, tensorrt"),
    ],
)
def test_what_fits_nothing_is_told_with_the_nearest(
    words: tuple[str, ...], nearest: str, call: Call
) -> None:
    result = call("config", *words)
    assert result.code == 2
    assert nearest in result.err


def test_no_engine_is_imported(output: Callable[..., str]) -> None:
    output("config", "vllm", "kv")
    assert not {"vllm", "sglang", "tensorrt_llm"} & set(sys.modules)
