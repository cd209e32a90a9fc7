import json
from pathlib import Path

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, ConfigurationError
from llenergymeasure.workload.models.architecture import Architecture
from llenergymeasure.workload.models.known import KNOWN, known_architecture
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.tokens import eos_token_ids

# As published with each model (the sum over its safetensors index or model card).
PUBLISHED_PARAMETERS = {
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "Llama-2-7B": 6_738_415_616,
    "TinyLlama-1.1B": 1_100_048_384,
    "Qwen3-8B": 8_190_735_360,
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-7B": 7_615_616_512,
    "Mistral-7B-v0.1": 7_241_732_096,
    "Mistral-7B-v0.3": 7_248_023_552,
    "Mixtral-8x7B-v0.1": 46_702_792_704,
    "SmolLM2-135M": 134_515_008,
    "GPT-2": 124_439_808,
}


def experiment(model: str, **settings: object) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"model": model, **settings})


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED_PARAMETERS.items())
def test_parameters_are_those_published(name: str, parameters: int) -> None:
    assert KNOWN[name].parameters() == parameters


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Llama-3.1-8B", "Llama-3.1-8B"),
        ("llama-3.1-8b", "Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-8B", "Llama-3.1-8B"),
        ("meta-llama/Llama-2-7b-chat-hf", "Llama-2-7B"),
        ("Qwen/Qwen3-8B", "Qwen3-8B"),
        ("Qwen/Qwen3-8B-Base", "Qwen3-8B"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B"),
        ("mistralai/Mistral-7B-v0.1", "Mistral-7B-v0.1"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "Mistral-7B-v0.3"),
        ("Mistral-7B", "Mistral-7B-v0.3"),
        ("gpt2", "GPT-2"),
        ("GPT-2", "GPT-2"),
        ("openai-community/gpt2-xl", "GPT-2-xl"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "TinyLlama-1.1B"),
        ("tiny-mixtral", "tiny-mixtral"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    architecture = known_architecture(spelling)
    assert architecture is not None
    assert architecture.name == name


@pytest.mark.parametrize(
    "name", ["someone/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-AWQ", "Llama-3.1-9B", ""]
)
def test_what_may_be_another_shape_is_not_taken_for_a_known_one(name: str) -> None:
    assert known_architecture(name) is None


def test_a_window_that_qwen_switches_off_is_none() -> None:
    config = {**KNOWN["Qwen3-8B"].config, "sliding_window": 4096, "use_sliding_window": False}
    read = Architecture.from_config(config, "x")
    assert read is not None
    assert read.sliding_window is None


def test_a_token_in_the_cache_is_its_keys_and_values() -> None:
    # 2 (keys and values) x 32 layers x 8 heads x 128 x 2 bytes = 128 KiB a token.
    assert KNOWN["Llama-3.1-8B"].kv_cache_bytes_per_token(2) == 131_072


def test_tiny_llama_is_a_local_folder() -> None:
    source = resolve_model(experiment("tiny-llama"))
    assert source.folder is not None
    assert (source.folder / "model.safetensors").is_file()
    assert source.architecture is not None
    assert source.architecture.parameters() == KNOWN["tiny-llama"].parameters()


def test_random_weights_need_the_architecture_alone() -> None:
    source = resolve_model(experiment("meta-llama/Llama-3.1-8B", weights="random"))
    assert source.random
    assert source.architecture is KNOWN["Llama-3.1-8B"]
    assert source.folder is not None
    written = json.loads((source.folder / "config.json").read_text())
    assert written == KNOWN["Llama-3.1-8B"].config


def test_an_unknown_architecture_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"Did you mean Llama-3\.1-8B") as caught:
        resolve_model(experiment("Lama-3.1-8B", weights="random"))
    assert "Qwen3-8B" in str(caught.value)
    assert caught.value.problems[0].key == "model"


def test_a_known_shape_without_weights_says_so() -> None:
    with pytest.raises(ConfigurationError, match="weights: random"):
        resolve_model(experiment("Llama-3.1-8B"))


def test_a_folder_that_is_missing_or_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        resolve_model(experiment(str(tmp_path / "missing")))
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        resolve_model(experiment(str(tmp_path)))


SHAPE = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 0, "vocab_size": 9}


@pytest.mark.parametrize(
    "content",
    [
        *("{", "[]", "\x00", '\ufeff{"model_type": "llama"}', '{"model_type": "llama"}'),
        json.dumps({**SHAPE, "num_hidden_layers": 1, "intermediate_size": 8}),
        json.dumps({**SHAPE, "rope_scaling": "linear"}),
        "[" * 100_000,
    ],
    ids=range(8),
)
def test_a_damaged_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BackendError, match=r"config\.json"):
        resolve_model(experiment(str(tmp_path)))


def test_an_unknown_family_has_no_architecture(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba", "vocab_size": 10}')
    assert resolve_model(experiment(str(tmp_path))).architecture is None


def test_a_name_that_is_no_id() -> None:
    with pytest.raises(ConfigurationError, match="neither a local folder"):
        resolve_model(experiment("what is this?"))


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({"eos_token_id": [1, 106], "text_config": {"vocab_size": 9}}, [1, 106]),
        ({"text_config": {"vocab_size": 9, "eos_token_id": 5}}, [5]),
        ({"eos_token_id": 0, "text_config": None}, [0]),
        ({"vocab_size": 9}, []),
    ],
)
def test_a_sequence_ends_where_a_checkpoint_of_several_modalities_says(
    tmp_path: Path, config: dict[str, object], ids: list[int]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", **config}))
    assert eos_token_ids(resolve_model(experiment(str(tmp_path)))) == ids


def test_a_gpt2_has_no_keys_of_other_families() -> None:
    config = {"model_type": "gpt2", "n_embd": 12, "n_layer": 1, "n_head": 2, "vocab_size": 9}
    strays = {"num_key_value_heads": 1, "head_dim": 3, "sliding_window": 4}
    plain = Architecture.from_config(config, "x")
    strayed = Architecture.from_config(config | strays, "x")
    assert plain is not None
    assert strayed is not None
    assert plain.parameters() == strayed.parameters()
    assert strayed.sliding_window is None
    assert Architecture.from_config({"model_type": ["gpt2"]}, "x") is None
