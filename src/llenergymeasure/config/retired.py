"""Settings that newer engines no longer have: still read, with a word on what replaced them."""

from collections.abc import Iterable, Iterator

from llenergymeasure.config.backends.vllm import ATTENTION_LEFT
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.study import value_at

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


def notes(models: Iterable[ExperimentConfig]) -> Iterator[str]:
    """Yield a sentence for each retired setting that some experiment sets."""
    left = dict(REPLACED)
    for model in models:
        if model.vllm is None or not left:
            continue
        config = {"vllm": model.vllm.model_dump(exclude_none=True)}
        for key in [key for key in left if value_at(config, key) is not None]:
            yield f"{key}: {left.pop(key)}"
