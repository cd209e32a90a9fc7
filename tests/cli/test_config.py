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


def test_parameters_by_several_words_and_by_help() -> None:
    assert "vllm.engine.enable_prefix_caching" in output("config", "vllm", "prefix caching")
    assert "sglang.engine.disable_radix_cache" in output("config", "sglang", "RadixAttention")


def test_a_study_s_own_key_is_understood() -> None:
    assert output("config", "vllm.engine.kv_cache_dtype") == output(
        "config", "vllm", "kv_cache_dtype"
    )


def test_everything_in_brief() -> None:
    text = output("config", "sglang")
    assert len(text.splitlines()) > 570
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "shows those that fit" in text


def test_our_own_settings_and_what_may_not_be_set_are_shown_as_such() -> None:
    assert "pytorch.batch_size" in output("config", "pytorch", "batch_size")
    assert "not among the arguments" in output("config", "vllm", "swap_space")
    assert "not for a study to set" in output("config", "vllm", "hf_token")


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
