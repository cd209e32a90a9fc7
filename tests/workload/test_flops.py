from typing import Any

import pytest

from llenergymeasure.workload.models.architecture import Architecture
from llenergymeasure.workload.models.flops import decode_flops, prefill_flops
from llenergymeasure.workload.models.known import KNOWN
from llenergymeasure.workload.models.resolve import architecture_folder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
FlopCounterMode = pytest.importorskip("torch.utils.flop_counter").FlopCounterMode


def two_layers(name: str) -> Architecture:
    """A known shape with two layers, which torch goes through in a fraction of the time."""
    known = KNOWN[name]
    layers = "n_layer" if "n_layer" in known.config else "num_hidden_layers"
    shape = Architecture.from_config({**known.config, layers: 2}, f"{name}, 2 layers")
    assert shape is not None
    return shape


def model_of(shape: Architecture, device: str) -> Any:
    config = transformers.AutoConfig.from_pretrained(str(architecture_folder(shape)))
    options = {"experts_implementation": "eager"} if shape.experts else {}
    if device == "cpu":
        # torch's counter does not know the fused attention kernel of the CPU.
        options["attn_implementation"] = "eager"
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, **options
        ).eval()


def counted(shape: Architecture, device: str, input_len: int, output_len: int) -> tuple[int, int]:
    """Operations that torch counts in a prefill and in the decoding after it."""
    torch.set_num_threads(1)
    model = model_of(shape, device)

    def tokens(length: int) -> Any:
        return torch.ones((1, length), dtype=torch.long, device=device)

    with torch.no_grad(), FlopCounterMode(display=False) as prefill:
        out = model(tokens(input_len), use_cache=True, logits_to_keep=1)
    with torch.no_grad(), FlopCounterMode(display=False) as decode:
        for _ in range(output_len - 1):
            model(tokens(1), past_key_values=out.past_key_values, use_cache=True)
    return prefill.get_total_flops(), decode.get_total_flops()


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("Llama-3.1-8B", "meta"),
        ("Llama-3.2-1B", "meta"),
        ("Qwen3-8B", "meta"),
        ("GPT-2", "meta"),
        ("tiny-llama", "cpu"),
        ("tiny-mixtral", "cpu"),
    ],
)
def test_within_one_per_cent_of_what_torch_counts(name: str, device: str) -> None:
    shape = KNOWN[name] if device == "cpu" else two_layers(name)
    prefill, decode = counted(shape, device, 96, 4)
    assert prefill_flops(shape, 96) == pytest.approx(prefill, rel=0.01)
    assert decode_flops(shape, 96, 4) == pytest.approx(decode, rel=0.01)


@pytest.mark.parametrize("name", list(KNOWN))
def test_parameters_are_those_of_transformers(name: str) -> None:
    shape = two_layers(name)
    model = model_of(shape, "meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters()


def test_decoding_is_two_operations_a_parameter_and_the_attention() -> None:
    llama = KNOWN["Llama-3.1-8B"]
    embedding = llama.vocab_size * llama.hidden_size
    step = decode_flops(llama, 1, 2)
    assert step == pytest.approx(2 * (llama.parameters() - embedding), rel=0.001)


def test_a_window_limits_what_is_attended() -> None:
    mistral = KNOWN["Mistral-7B-v0.1"]
    at_window = decode_flops(mistral, 4096, 3) - decode_flops(mistral, 4096, 2)
    beyond = decode_flops(mistral, 9000, 3) - decode_flops(mistral, 9000, 2)
    assert at_window == beyond


def test_an_answer_without_a_token_took_no_step_of_decoding() -> None:
    """The end of a sequence is no token of the answer to every engine."""
    architecture = KNOWN["tiny-llama"]
    assert decode_flops(architecture, 10, 0) == decode_flops(architecture, 10, 1) == 0
