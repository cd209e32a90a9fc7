"""``llem config`` and ``llem catalogue``."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from catalogue.releases import VLLM, unpack
from llenergymeasure.cli.app import app
from llenergymeasure.config.catalogue import store
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


def test_knobs_by_part_of_their_name_with_help() -> None:
    text = output("config", "vllm", "kv")
    assert "vllm.engine.kv_cache_dtype: " in text
    assert '"fp8_e4m3"' in text
    assert '= "auto"' in text
    assert "Data type for kv cache storage." in text
    assert "max_loras" not in text


def test_knobs_by_several_words_and_by_help() -> None:
    assert "vllm.engine.enable_prefix_caching" in output("config", "vllm", "prefix caching")
    assert "sglang.engine.disable_radix_cache" in output("config", "sglang", "RadixAttention")


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
    assert "pytorch, vllm, sglang, tensorrt" in problem("catalogue", "openai")


def test_a_release_is_read_into_a_file_and_compared_with_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "vllm.json"
    folder = unpack(VLLM, tmp_path / "one")
    text = output("catalogue", "vllm", "--wheel", str(folder), "--out", str(out))
    assert "vllm 9.9.1" in text
    assert "engine: 11 knobs, 9 of them for a study to set" in text
    newer = {
        **VLLM,
        "vllm/_version.py": "__version__ = '9.9.2'\n",
        "vllm/engine/arg_utils.py": VLLM["vllm/engine/arg_utils.py"].replace(
            'model: str = "x"', 'model: str = "x"\n    fresh: int = 1'
        ),
    }
    folder = unpack(newer, tmp_path / "two")
    text = output("catalogue", "vllm", "--wheel", str(folder), "--out", str(out))
    assert "Since 9.9.1" in text
    assert "added: engine.fresh" in text
    stored = store.from_json(json.loads(out.read_text()))
    assert stored.version == "9.9.2"
    assert stored.changes is not None
    assert stored.changes.added == ("engine.fresh",)
    # The same release again keeps what changed since the one before it.
    before = out.read_bytes()
    output("catalogue", "vllm", "--wheel", str(folder), "--out", str(out))
    assert out.read_bytes() == before


def test_what_is_known_is_said_without_reading_a_release() -> None:
    text = output("catalogue", "sglang")
    assert "sglang 0.5" in text
    assert "Since" in text
    assert "Incomplete" in output("catalogue", "tensorrt")


def test_one_release_at_a_time(tmp_path: Path) -> None:
    message = problem("catalogue", "vllm", "--wheel", str(tmp_path), "--installed")
    assert "not both" in message


def test_no_engine_is_imported() -> None:
    output("config", "vllm", "kv")
    assert not {"vllm", "sglang", "tensorrt_llm"} & set(sys.modules)
