"""``llem config``: an engine's parameters by words."""

import json
import sys

import pytest
from typer.testing import CliRunner

from llenergymeasure.cli.app import app
from llenergymeasure.errors import ConfigurationError


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def problem(*arguments: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_parameters_by_part_of_their_name_with_help() -> None:
    text = output("config", "vllm", "kv")
    assert "vllm.engine.kv_cache_dtype: " in text
    assert '"fp8_e4m3"' in text
    assert '= "auto"' in text
    assert "Data type for kv cache storage." in text
    assert "max_loras" not in text
    whole = output("config", "vllm", "kv_cache_dtype")
    assert output("config", "vllm.engine.kv_cache_dtype") == whole  # a study's own key


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
    backend: str, words: str, shown: str
) -> None:
    assert shown in output("config", backend, words)


def test_everything_in_brief() -> None:
    text = output("config", "sglang")
    assert len(text.splitlines()) > 570
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "shows those that fit" in text


def test_for_programs() -> None:
    found = json.loads(output("config", "vllm", "max_num_seqs", "--json"))
    assert found[0]["key"] == "vllm.engine.max_num_seqs"
    assert found[0]["type"] == "int >= 1"


def test_what_fits_nothing_is_told_with_the_nearest() -> None:
    assert "did you mean radix" in problem("config", "sglang", "radixx")
    assert "did you mean vllm?" in problem("config", "vlm")
    assert "pytorch, vllm, sglang, tensorrt" in problem("config", "openai")


def test_no_engine_is_imported() -> None:
    output("config", "vllm", "kv")
    assert not {"vllm", "sglang", "tensorrt_llm"} & set(sys.modules)
