"""Checkpoints, whole and damaged, and adapters."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, ConfigurationError
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from llenergymeasure.workload.requests import Request
from support.checkpoints import changed_model
from support.data_files import put

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("nothing_to_collect")

REQUEST = Request(0, (10, 11, 12, 13), 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the test's own."""
    return changed_model(tmp_path / "model")


def load(folder: Path, **values: Any) -> Any:
    config = ExperimentConfig.model_validate({"model": str(folder), **values})
    return registry.get("pytorch").load(config)


def logits(engine: Any) -> Any:
    with torch.no_grad():
        return engine._loaded.model(torch.tensor([REQUEST.prompt_token_ids])).logits


def test_a_folder_is_the_model_also_when_transformers_has_saved_it(folder: Path) -> None:
    first = load(folder, precision="fp32")
    assert first.generate([REQUEST])[0].output_tokens == 5
    expected = logits(load(tiny_llama_folder(), precision="fp32"))
    assert torch.equal(logits(first), expected)
    first._loaded.model.save_pretrained(folder / "saved")
    assert torch.equal(logits(load(folder / "saved", precision="fp32")), expected)


def test_weights_in_a_file_of_pytorch_s_own(folder: Path) -> None:
    from safetensors.torch import load_file

    first = logits(load(folder, precision="fp32"))
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    assert torch.equal(logits(load(folder, precision="fp32")), first)


def test_random_weights_are_not_those_of_the_folder(folder: Path) -> None:
    random = load(folder, precision="fp32", weights="random")
    assert not torch.allclose(logits(load(folder, precision="fp32")), logits(random))
    again = load(folder, precision="fp32", weights="random")
    assert torch.equal(logits(random), logits(again))


@pytest.mark.parametrize("kept_bytes", [None, 0, 4 * 2**20], ids=["gone", "garbled", "truncated"])
def test_a_checkpoint_without_its_weights(folder: Path, kept_bytes: int | None) -> None:
    weights = folder / "model.safetensors"
    if kept_bytes is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:kept_bytes] or b"\xff" * 1000)
    with pytest.raises(BackendError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 5}, r"lacks 9 .*layers\.4"),
        ({"intermediate_size": 100}, "model"),
        ({"model_type": "no-such-thing"}, "cannot be loaded"),
    ],
    ids=["of a layer more", "of another width", "of an unknown family"],
)
def test_a_checkpoint_of_another_model(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BackendError, match=says):
        load(changed_model(tmp_path / "model", **change))


def test_a_generation_config_on_disk_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(folder).resolved_config()["generation_config"]
    others = {
        "do_sample": True,
        "temperature": 0.1,
        "top_p": 0.2,
        "repetition_penalty": 5.0,
        "num_beams": 4,
        "eos_token_id": list(range(2048)),
        "max_length": 3,
        "suppress_tokens": [5],
    }
    put(folder / "generation_config.json", others)
    engine = load(folder)
    assert engine.resolved_config()["generation_config"] == plain
    used: list[Any] = []
    kind = type(engine._loaded.model)
    sample = kind._sample

    def recorded(*arguments: Any, **options: Any) -> Any:
        used.append(options["generation_config"])
        return sample(*arguments, **options)

    monkeypatch.setattr(kind, "_sample", recorded)
    assert engine.generate([REQUEST])[0].output_tokens == 5
    (options,) = used
    assert options.num_beams in (None, 1)
    assert options.temperature == 1.0
    assert options.suppress_tokens is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings",
    [
        {"load_in_8bit": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
        {"load_in_4bit": True, "bnb_4bit_compute_dtype": "float32"},
    ],
    ids=["8 bits", "4 bits", "4 bits in fp32"],
)
def test_quantised(folder: Path, settings: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes")
    engine = load(folder, pytorch=settings)
    assert engine.generate([REQUEST])[0].output_tokens == 5
    resolved = engine.resolved_config()
    quantised = resolved["model_config"]["quantization_config"]
    expected = {"bnb_4bit_compute_dtype": "bfloat16"} if "load_in_4bit" in settings else {}
    assert {name: quantised[name] for name in expected | settings} == expected | settings
    assert resolved["parameters"] == 4_000_000


def adapter(folder: Path, tmp_path: Path) -> Path:
    peft = pytest.importorskip("peft")
    model = load(folder, precision="fp32")._loaded.model
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        peft.get_peft_model(model, lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_lora(folder: Path, tmp_path: Path) -> None:
    path = str(adapter(folder, tmp_path))
    apart = load(folder, precision="fp32", lora={"adapter_path": path})
    merged = load(folder, precision="fp32", lora={"adapter_path": path, "merge_weights": True})
    plain = load(folder, precision="fp32")
    for engine in (apart, merged):
        assert engine.generate([REQUEST])[0].output_tokens == 5
    assert torch.allclose(logits(apart), logits(merged), atol=1e-4)
    assert not torch.allclose(logits(plain), logits(merged), atol=1e-3)
    assert apart.resolved_config()["parameters"] > merged.resolved_config()["parameters"]
    assert merged.resolved_config()["parameters"] == plain.resolved_config()["parameters"]


def test_an_adapter_that_does_not_load(folder: Path, tmp_path: Path) -> None:
    path = adapter(folder, tmp_path)
    (path / "adapter_model.safetensors").write_bytes(b"\x00" * 10)
    with pytest.raises(BackendError, match="LoRA adapter"):
        load(folder, lora={"adapter_path": str(path)})


def test_an_unknown_backend() -> None:
    with pytest.raises(ConfigurationError, match="this version runs openai, pytorch, "):
        registry.get("ollama")
