"""vLLM's rules, each from a check in its sources."""

from collections.abc import Mapping
from typing import Any

from llenergymeasure.config.rules import common
from llenergymeasure.config.rules.common import ANY, BF16, HALF, Method
from llenergymeasure.config.rules.rule import Facts, Found, Rule

_RELEASE = "vLLM 0.33.0"
_DEFAULT_LONG_PREFILL = 0

METHODS: Mapping[str, Method] = {
    "awq": Method(75, HALF),
    "auto_awq": Method(75, HALF),
    "awq_marlin": Method(75, HALF),
    "gptq": Method(60, HALF),
    "auto_gptq": Method(60, HALF),
    "gptq_marlin": Method(60, HALF),
    "fp8": Method(75, HALF),
    "fbgemm_fp8": Method(80, HALF),
    "fp_quant": Method(100, BF16),
    "modelopt": Method(80, HALF),
    "modelopt_mxfp8": Method(80, BF16),
    "experts_int8": Method(80, HALF),
    "moe_wna16": Method(70, HALF),
    "mxfp4": Method(80, BF16),
    "torchao": Method(75, ANY),
    "humming": Method(75, HALF),
}
"""``get_min_capability`` and ``get_supported_act_dtypes`` of the classes in
``vllm/model_executor/layers/quantization``, release 0.33.0."""


def _tensor_parallel(facts: Facts) -> Found:
    size = facts.engine.get("tensor_parallel_size")
    yield from common.heads_divide(facts, "vllm.engine.tensor_parallel_size", size)


def _pipeline_parallel(facts: Facts) -> Found:
    size = facts.engine.get("pipeline_parallel_size")
    yield from common.enough_layers(facts, "vllm.engine.pipeline_parallel_size", size)


def _decode_context_parallel(facts: Facts) -> Found:
    key = "vllm.engine.decode_context_parallel_size"
    size = facts.engine.get("decode_context_parallel_size", 1)
    shape = facts.shape
    if size <= 1 or shape is None:
        return
    tensor = facts.engine.get("tensor_parallel_size", 1)
    if tensor <= shape.kv_heads:
        yield (
            key,
            f"needs tensor_parallel_size above the model's {shape.kv_heads} key and value heads",
        )
    elif size > tensor // shape.kv_heads:
        yield key, f"can be {tensor // shape.kv_heads} at most with tensor_parallel_size {tensor}"
    elif (shape.heads // shape.kv_heads) % size:
        queries = shape.heads // shape.kv_heads
        yield key, f"{size} does not divide the {queries} query heads that share a key head"


def _context(facts: Facts) -> int | None:
    """Return the longest context; null where only the engine will know."""
    given = facts.engine.get("max_model_len")
    if given is not None:
        return None if given == -1 else int(given)
    return None if facts.shape is None else facts.shape.max_positions


def _model_length(facts: Facts) -> Found:
    length = facts.engine.get("max_model_len")
    yield from common.within_positions(
        facts, "vllm.engine.max_model_len", length, "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"
    )


def _workload(facts: Facts) -> Found:
    length = facts.engine.get("max_model_len")
    yield from common.workload_fits(facts, "vllm.engine.max_model_len", length)


def _batched_tokens(facts: Facts) -> Found:
    key = "vllm.engine.max_num_batched_tokens"
    tokens = facts.engine.get("max_num_batched_tokens")
    if tokens is None:
        return
    context = _context(facts)
    chunked = facts.engine.get("enable_chunked_prefill", True)
    if not chunked and context is not None and tokens < context:
        yield (
            key,
            f"{tokens} are fewer than the context of {context} tokens, and chunked prefill is "
            "off; raise it, set enable_chunked_prefill, or lower max_model_len",
        )
    sequences = facts.engine.get("max_num_seqs")
    if sequences is not None and tokens < sequences:
        yield key, f"{tokens} are fewer than max_num_seqs ({sequences}); raise it"


def _active_sequences(facts: Facts) -> Found:
    active, most = facts.engine.get("max_num_active_seqs"), facts.engine.get("max_num_seqs")
    if active is not None and most is not None and active > most:
        yield "vllm.engine.max_num_active_seqs", f"{active} are more than max_num_seqs ({most})"


def _long_prefill(facts: Facts) -> Found:
    threshold = facts.engine.get("long_prefill_token_threshold", _DEFAULT_LONG_PREFILL)
    context = _context(facts)
    if context is not None and threshold > context:
        key = "vllm.engine.long_prefill_token_threshold"
        yield key, f"{threshold} is more than the context of {context} tokens"


def _offload(facts: Facts) -> Found:
    group = facts.engine.get("offload_group_size", 0)
    if group <= 0 and facts.engine.get("offload_backend") != "prefetch":
        return
    number = facts.engine.get("offload_num_in_group", 1)
    if number > group:
        yield "vllm.engine.offload_num_in_group", f"{number} are more than the group of {group}"
    if facts.engine.get("offload_prefetch_step", 1) < 1:
        yield "vllm.engine.offload_prefetch_step", "must be at least 1 where layers are offloaded"


def _quantisation(facts: Facts) -> Found:
    name = facts.engine.get("quantization")
    method = METHODS.get(str(name))
    yield from common.quantisation_fits(facts, "vllm.engine.quantization", name, method)


def _cache_dtype(facts: Facts) -> Found:
    dtype = facts.engine.get("kv_cache_dtype")
    if dtype in ("float16", "bfloat16"):
        yield from common.precision_agrees(facts, "vllm.engine.kv_cache_dtype", dtype)


def _speculation(facts: Facts) -> Found:
    config: Any = facts.engine.get("speculative_config")
    if not isinstance(config, Mapping):
        return
    key = "vllm.engine.speculative_config"
    if config.get("model") is None and config.get("method") is None:
        yield key, "needs a model, or a method that needs none (such as ngram)"
    least, most = config.get("prompt_lookup_min"), config.get("prompt_lookup_max")
    if least is not None and most is not None and least > most:
        yield f"{key}.prompt_lookup_min", f"{least} is more than prompt_lookup_max ({most})"
    draft = config.get("draft_tensor_parallel_size")
    target = facts.engine.get("tensor_parallel_size", 1)
    if draft is not None and draft not in (1, target):
        yield (
            f"{key}.draft_tensor_parallel_size",
            f"can only be 1 or the tensor_parallel_size of {target}",
        )


def _elastic_experts(facts: Facts) -> Found:
    if not facts.engine.get("enable_elastic_ep"):
        return
    key = "vllm.engine.enable_elastic_ep"
    if not facts.engine.get("enable_eplb"):
        yield key, "needs enable_eplb: true"
    if facts.engine.get("pipeline_parallel_size", 1) > 1:
        yield key, "does not go with pipeline_parallel_size"


def _expert_parallel(facts: Facts) -> Found:
    shape = facts.shape
    if facts.engine.get("enable_expert_parallel") and shape is not None and not shape.experts:
        yield "vllm.engine.enable_expert_parallel", "the model has no experts to spread"


def _own_names(facts: Facts) -> Found:
    yield from common.precision_agrees(facts, "vllm.engine.dtype", facts.engine.get("dtype"))
    yield from common.seed_agrees(facts, "vllm.engine.seed", facts.engine.get("seed"))


def _sampling(facts: Facts) -> Found:
    yield from common.greedy_gives_one(facts, "vllm.sampling.n")
    least, most = facts.sampling.get("min_tokens"), facts.sampling.get("max_tokens")
    yield from common.least_below_most(facts, "vllm.sampling.min_tokens", least, most)
    yield from common.share_above_zero(facts)
    if facts.sampling.get("stop") and facts.sampling.get("detokenize") is False:
        yield "vllm.sampling.stop", "is text, and detokenize is false; set detokenize: true"


RULES = (
    Rule(
        "heads against tensor_parallel_size",
        f"{_RELEASE}, config/model.py: ModelConfig.verify_with_parallel_config; "
        "model_executor/models/llama.py: LlamaAttention",
        _tensor_parallel,
    ),
    Rule(
        "layers against pipeline_parallel_size",
        f"{_RELEASE}, distributed/utils.py: get_pp_indices, which would leave stages empty",
        _pipeline_parallel,
    ),
    Rule(
        "key and value heads against decode_context_parallel_size",
        f"{_RELEASE}, config/model.py: ModelConfig.verify_with_parallel_config",
        _decode_context_parallel,
    ),
    Rule(
        "max_model_len against the model's positions",
        f"{_RELEASE}, config/model.py: _get_and_verify_max_len",
        _model_length,
    ),
    Rule(
        "prompt and answer against max_model_len",
        f"{_RELEASE}, v1/core/sched/utils.py: check_stop, which ends answers at max_model_len",
        _workload,
    ),
    Rule(
        "max_num_batched_tokens against the context, chunked prefill and max_num_seqs",
        f"{_RELEASE}, config/scheduler.py: SchedulerConfig.verify_max_model_len",
        _batched_tokens,
    ),
    Rule(
        "max_num_active_seqs against max_num_seqs",
        f"{_RELEASE}, config/scheduler.py: SchedulerConfig.verify_max_model_len",
        _active_sequences,
    ),
    Rule(
        "long_prefill_token_threshold against the context",
        f"{_RELEASE}, config/scheduler.py: SchedulerConfig.verify_max_model_len",
        _long_prefill,
    ),
    Rule(
        "offloaded layers against their group",
        f"{_RELEASE}, config/offload.py: OffloadConfig.validate_offload_config",
        _offload,
    ),
    Rule(
        "quantization against precision and compute capability",
        f"{_RELEASE}, config/vllm.py: VllmConfig._get_quantization_config",
        _quantisation,
    ),
    Rule(
        "kv_cache_dtype against precision",
        f"{_RELEASE}, config/cache.py: CacheConfig.cache_dtype",
        _cache_dtype,
    ),
    Rule(
        "speculative_config's parts",
        f"{_RELEASE}, config/speculative.py: SpeculativeConfig.__post_init__",
        _speculation,
    ),
    Rule(
        "elastic expert parallelism",
        f"{_RELEASE}, config/parallel.py: ParallelConfig.__post_init__",
        _elastic_experts,
    ),
    Rule(
        "enable_expert_parallel against the model",
        f"{_RELEASE}, config/model.py: ModelConfig._verify_with_expert_parallelism",
        _expert_parallel,
    ),
    Rule(
        "dtype and seed against precision and random_seed",
        "fairness: one precision and one seed for every engine of a study",
        _own_names,
    ),
    Rule(
        "sampling parameters",
        f"{_RELEASE}, sampling_params.py: SamplingParams._verify_args, _verify_greedy_sampling",
        _sampling,
    ),
)
