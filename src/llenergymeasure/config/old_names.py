"""Names that studies of earlier releases use, ours and the engines': what stands for them now."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FORMER_NAMES = {
    "model_name": "model",
    "fp_precision": "precision",
    "num_input_prompts": "n",
    "extra_metadata": "passthrough_kwargs",
}
"""Names from before version 2 of the original tool: no longer read, but known to messages."""

FORMER_FIELDS: Mapping[str, Mapping[str, str]] = {
    "vllm.engine.compilation_config": {"level": "mode"},
}
"""Fields of an engine's classes under the names of older releases: read as today's."""

ATTENTION_LEFT = (
    "use_prefill_decode_attention",
    "use_cudnn_prefill",
    "use_trtllm_ragged_deepseek_prefill",
    "disable_flashinfer_prefill",
)
"""Fields of ``vllm.engine.attention`` that newer vLLM has no place for."""

REPLACED = {
    "vllm.engine.swap_space": "newer vLLM has no CPU swap; it recomputes, or cpu_offload_gb keeps "
    "weights in CPU memory",
    "vllm.engine.speculative_model": "newer vLLM takes it as speculative_config: {model: …, "
    "num_speculative_tokens: …}",
    "vllm.engine.attention": "newer vLLM takes it as attention_config: {backend: …}",
    "vllm.engine.compilation_config.level": "newer vLLM calls it mode",
    **{
        f"vllm.engine.attention.{name}": "newer vLLM has no such setting, and it is left out"
        for name in ATTENTION_LEFT
    },
}
"""Settings that are still read, with a word on what replaced them."""


def of_vllm_today(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's arguments under today's names; what has no successor is left out."""
    today = {key: value for key, value in given.items() if key != "swap_space"}
    draft, tokens = today.pop("speculative_model", None), today.pop("num_speculative_tokens", None)
    if draft is not None:
        today["speculative_config"] = {"model": draft, "num_speculative_tokens": tokens}
    attention = today.pop("attention", None) or {}
    kept = {key: value for key, value in attention.items() if key not in ATTENTION_LEFT}
    if kept:
        today["attention_config"] = kept
    compilation = today.get("compilation_config")
    if isinstance(compilation, Mapping):
        former = FORMER_FIELDS["vllm.engine.compilation_config"]
        today["compilation_config"] = {former.get(k, k): v for k, v in compilation.items()}
    return today


def notes(configs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each replaced setting that some experiment's configuration sets."""
    left = dict(REPLACED)
    for config in configs:
        if not left or "vllm" not in config:
            continue
        for key in [key for key in left if _has(config, key)]:
            yield f"{key}: {left.pop(key)}"


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return config is not None
