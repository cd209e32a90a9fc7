"""Well-known architectures, for ``weights: random``: a cost can be measured without a download.

Random weights cost the same energy per token as trained ones at a fixed token count, so the
dimensions are enough. They are those of the ``config.json`` that each model's owner publishes.
"""

import difflib
import re
from dataclasses import replace

from llenergymeasure.workload.models.architecture import Architecture

TINY_LLAMA = "tiny-llama"

_LLAMA3_TOKENS = (0, 128_000)
_QWEN_TOKENS = (0, 151_643)
_LLAMA2_TOKENS = (259, 32_000)


def _llama3(
    name: str, size: tuple[int, int, int, int, int], head_dim: int, tied: bool, factor: float
) -> Architecture:
    hidden, layers, heads, kv_heads, intermediate = size
    return Architecture(
        name=name,
        model_type="llama",
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=128_256,
        max_positions=131_072,
        tied=tied,
        rope_theta=500_000.0,
        rope_scaling={
            "factor": factor,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        text_tokens=_LLAMA3_TOKENS,
        bos_token_id=128_000,
        eos_token_id=128_001,
    )


def _qwen(
    name: str,
    model_type: str,
    size: tuple[int, int, int, int, int],
    tied: bool,
    *,
    head_dim: int = 128,
    vocab_size: int = 151_936,
) -> Architecture:
    hidden, layers, heads, kv_heads, intermediate = size
    return Architecture(
        name=name,
        model_type=model_type,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate,
        vocab_size=vocab_size,
        max_positions=40_960 if model_type == "qwen3" else 32_768,
        norm_eps=1e-6,
        tied=tied,
        rope_theta=1_000_000.0,
        text_tokens=_QWEN_TOKENS,
        bos_token_id=151_643,
        eos_token_id=151_645,
    )


def _gpt2(name: str, hidden: int, layers: int, heads: int) -> Architecture:
    return Architecture(
        name=name,
        model_type="gpt2",
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=4 * hidden,
        vocab_size=50_257,
        max_positions=1024,
        tied=True,
        rope_theta=None,
        text_tokens=(0, 50_256),
        bos_token_id=50_256,
        eos_token_id=50_256,
    )


_LLAMA2_7B = Architecture(
    name="Llama-2-7B",
    model_type="llama",
    hidden_size=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    intermediate_size=11_008,
    vocab_size=32_000,
    max_positions=4096,
    text_tokens=_LLAMA2_TOKENS,
    bos_token_id=1,
    eos_token_id=2,
)

_MISTRAL_V01 = replace(
    _LLAMA2_7B,
    name="Mistral-7B-v0.1",
    model_type="mistral",
    kv_heads=8,
    intermediate_size=14_336,
    max_positions=32_768,
    sliding_window=4096,
)

_MISTRAL_V03 = replace(
    _MISTRAL_V01,
    name="Mistral-7B-v0.3",
    vocab_size=32_768,
    rope_theta=1_000_000.0,
    sliding_window=None,
    text_tokens=(1027, 32_768),
)

_MIXTRAL_8X7B = replace(
    _MISTRAL_V01,
    name="Mixtral-8x7B-v0.1",
    model_type="mixtral",
    rope_theta=1_000_000.0,
    sliding_window=None,
    experts=8,
    experts_per_token=2,
)

_SMOLLM2_135M = Architecture(
    name="SmolLM2-135M",
    model_type="llama",
    hidden_size=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=49_152,
    max_positions=8192,
    tied=True,
    rope_theta=100_000.0,
    text_tokens=(17, 49_152),
    bos_token_id=0,
    eos_token_id=0,
)

TINY_LLAMA_ARCHITECTURE = Architecture(
    name=TINY_LLAMA,
    model_type="llama",
    hidden_size=256,
    layers=4,
    heads=4,
    kv_heads=2,
    head_dim=64,
    intermediate_size=704,
    vocab_size=2048,
    max_positions=4096,
    text_tokens=(4, 2048),
    bos_token_id=0,
    eos_token_id=1,
)

_TINY_MIXTRAL = replace(
    TINY_LLAMA_ARCHITECTURE,
    name="tiny-mixtral",
    model_type="mixtral",
    intermediate_size=352,
    experts=4,
    experts_per_token=2,
)

KNOWN: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        TINY_LLAMA_ARCHITECTURE,
        _TINY_MIXTRAL,
        _llama3("Llama-3.1-8B", (4096, 32, 32, 8, 14_336), 128, tied=False, factor=8.0),
        _llama3("Llama-3.1-70B", (8192, 80, 64, 8, 28_672), 128, tied=False, factor=8.0),
        _llama3("Llama-3.2-1B", (2048, 16, 32, 8, 8192), 64, tied=True, factor=32.0),
        _llama3("Llama-3.2-3B", (3072, 28, 24, 8, 8192), 128, tied=True, factor=32.0),
        _LLAMA2_7B,
        replace(
            _LLAMA2_7B,
            name="TinyLlama-1.1B",
            hidden_size=2048,
            layers=22,
            kv_heads=4,
            head_dim=64,
            intermediate_size=5632,
            max_positions=2048,
        ),
        _qwen("Qwen3-0.6B", "qwen3", (1024, 28, 16, 8, 3072), tied=True),
        _qwen("Qwen3-1.7B", "qwen3", (2048, 28, 16, 8, 6144), tied=True),
        _qwen("Qwen3-4B", "qwen3", (2560, 36, 32, 8, 9728), tied=True),
        _qwen("Qwen3-8B", "qwen3", (4096, 36, 32, 8, 12_288), tied=False),
        _qwen("Qwen3-14B", "qwen3", (5120, 40, 40, 8, 17_408), tied=False),
        _qwen("Qwen3-32B", "qwen3", (5120, 64, 64, 8, 25_600), tied=False),
        _qwen("Qwen2.5-0.5B", "qwen2", (896, 24, 14, 2, 4864), tied=True, head_dim=64),
        _qwen("Qwen2.5-7B", "qwen2", (3584, 28, 28, 4, 18_944), tied=False, vocab_size=152_064),
        _MISTRAL_V01,
        _MISTRAL_V03,
        _MIXTRAL_8X7B,
        _SMOLLM2_135M,
        replace(
            _SMOLLM2_135M,
            name="SmolLM2-360M",
            hidden_size=960,
            layers=32,
            heads=15,
            kv_heads=5,
            intermediate_size=2560,
        ),
        _gpt2("GPT-2", 768, 12, 12),
        _gpt2("GPT-2-medium", 1024, 24, 16),
        _gpt2("GPT-2-large", 1280, 36, 20),
        _gpt2("GPT-2-xl", 1600, 48, 25),
    )
}

_OWNERS = {
    "huggingfacetb",
    "meta-llama",
    "mistralai",
    "nousresearch",
    "openai-community",
    "qwen",
    "tinyllama",
    "unsloth",
}
"""Whose model names are trusted to mean the architecture; others may reuse a name for their own."""

_SPELLINGS = {
    "mistral-7b": "mistral-7b-v0-3",
    "mistral-7b-v0-2": "mistral-7b-v0-3",
    "mixtral-8x7b": "mixtral-8x7b-v0-1",
    "gpt2": "gpt-2",
    "gpt2-small": "gpt-2",
    "gpt2-medium": "gpt-2-medium",
    "gpt2-large": "gpt-2-large",
    "gpt2-xl": "gpt-2-xl",
    "tinyllama-1-1b-v1-0": "tinyllama-1-1b",
}
_TRAINING = re.compile(r"-(instruct|chat|hf|base|it|bf16)(?=-|$)")


def known_architecture(name: str) -> Architecture | None:
    """Return the architecture a model name means; None if it is not in the table.

    Accepts the table's names, Hugging Face ids of the models' owners, any case, and the names of
    fine-tuned variants of the same shape (``-Instruct``, ``-chat``, ``-hf``).
    """
    owner, _, rest = name.rpartition("/")
    if owner and owner.lower() not in _OWNERS:
        return None
    return _BY_SPELLING.get(_spelling(rest))


def closest_known(name: str) -> str | None:
    """Return the table's name that looks most like ``name``, for a suggestion."""
    match = difflib.get_close_matches(_spelling(name.rpartition("/")[2]), _BY_SPELLING, n=1)
    return _BY_SPELLING[match[0]].name if match else None


def _spelling(name: str) -> str:
    plain = re.sub(r"[._ ]+", "-", name.strip().lower()).removeprefix("meta-")
    plain = _TRAINING.sub("", plain)
    return _SPELLINGS.get(plain, plain)


_BY_SPELLING = {_spelling(name): architecture for name, architecture in KNOWN.items()}
