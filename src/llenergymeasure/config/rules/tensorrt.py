"""TensorRT-LLM's rules, each from a check in its public sources."""

from collections.abc import Mapping
from typing import Any

from llenergymeasure.config.backends.tensorrt import TensorRTConfig
from llenergymeasure.config.rules import common
from llenergymeasure.config.rules.rule import Facts, Found, Rule

_ARGUMENTS = "TensorRT-LLM 1.2.1, llmapi/llm_args.py"

COMPILED_ALONE = frozenset(
    {
        "batching_type",
        "build_config",
        "calib_config",
        "embedding_parallel_mode",
        "enable_prompt_adapter",
        "enable_tqdm",
        "extended_runtime_perf_knob_config",
        "fast_build",
        "max_prompt_adapter_token",
        "normalize_log_probs",
        "quant_config",
        "workspace",
    }
)
"""Arguments of ``TrtLlmArgs`` that ``TorchLlmArgs`` refuses."""

PYTORCH_ALONE = frozenset(
    {
        "allreduce_strategy",
        "attention_dp_config",
        "attn_backend",
        "batch_wait_max_tokens_ratio",
        "batch_wait_timeout_iters",
        "batch_wait_timeout_ms",
        "checkpoint_format",
        "checkpoint_loader",
        "cuda_graph_config",
        "disable_flashinfer_sampling",
        "disable_overlap_scheduler",
        "enable_autotuner",
        "enable_iter_perf_stats",
        "enable_iter_req_stats",
        "enable_layerwise_nvtx_marker",
        "enable_min_latency",
        "enable_sleep",
        "force_dynamic_quantization",
        "garbage_collection_gen0_threshold",
        "kv_connector_config",
        "max_stats_len",
        "mm_encoder_only",
        "moe_config",
        "nvfp4_gemm_config",
        "perf_metrics_max_requests",
        "print_iter_log",
        "ray_placement_config",
        "ray_worker_extension_cls",
        "sampler_force_async_worker",
        "sampler_type",
        "stream_interval",
        "torch_compile_config",
    }
)
"""Arguments of ``TorchLlmArgs`` that ``TrtLlmArgs`` refuses."""

_COMPILED_SPECULATION = frozenset({"Medusa", "Lookahead", "Eagle"})
_PYTORCH_SPECULATION = frozenset({"NGram", "DraftTarget", "MTP", "AUTO", "Eagle", "SaveState"})
_GIVEN_BY_CODE = "UserProvided"
_COMPILED_LOADING = ("auto", "dummy")


_ABOVE_ZERO: Mapping[str | None, tuple[str, ...]] = {
    "DraftTarget": ("max_draft_len",),
    "Eagle": ("max_draft_len",),
    "Medusa": ("max_draft_len",),
    "NGram": ("max_draft_len", "max_matching_ngram_size"),
}


def _compiled(facts: Facts) -> bool:
    return (facts.config.tensorrt or TensorRTConfig()).compiled


def _tensor_parallel(facts: Facts) -> Found:
    section = facts.config.tensorrt
    size = None if section is None else section.tp_size
    yield from common.heads_divide(facts, "tensorrt.tp_size", size)
    theirs = facts.engine.get("tensor_parallel_size")
    yield from common.heads_divide(facts, "tensorrt.engine.tensor_parallel_size", theirs)


def _pipeline_parallel(facts: Facts) -> Found:
    size = facts.engine.get("pipeline_parallel_size")
    yield from common.enough_layers(facts, "tensorrt.engine.pipeline_parallel_size", size)


def _one_backend(facts: Facts) -> Found:
    compiled = _compiled(facts)
    for name in sorted((PYTORCH_ALONE if compiled else COMPILED_ALONE) & set(facts.engine)):
        if compiled:
            yield f"tensorrt.engine.{name}", "belongs to PyTorch; set tensorrt.engine.backend to it"
        else:
            yield f"tensorrt.engine.{name}", "needs tensorrt.engine.backend: tensorrt"
    section = facts.config.tensorrt
    if not compiled and section is not None:
        for name in ("quantization", "engine_path"):
            if getattr(section, name) is not None:
                yield f"tensorrt.{name}", "needs tensorrt.engine.backend: tensorrt"
    loading = facts.engine.get("load_format", "auto")
    if compiled and loading not in _COMPILED_LOADING:
        yield "tensorrt.engine.load_format", "can only be auto or dummy in a compiled engine"


def _cache_dtype(facts: Facts) -> Found:
    cache: Any = facts.engine.get("kv_cache_config")
    dtype = cache.get("dtype", "auto") if isinstance(cache, Mapping) else "auto"
    if _compiled(facts) and dtype != "auto":
        key = "tensorrt.engine.kv_cache_config.dtype"
        yield key, "can only be auto in a compiled engine; set quant_config.kv_cache_quant_algo"


def _graphs(facts: Facts) -> Found:
    graphs: Any = facts.engine.get("cuda_graph_config")
    if not isinstance(graphs, Mapping) or not graphs.get("batch_sizes"):
        return
    most = graphs.get("max_batch_size") or 0
    padded = bool(graphs.get("enable_padding"))
    if most and sorted(graphs["batch_sizes"]) != _graph_sizes(most, padded):
        key = "tensorrt.engine.cuda_graph_config.max_batch_size"
        yield key, "must be left out where batch_sizes lists the sizes"


def _graph_sizes(largest: int, padded: bool) -> list[int]:
    """Return the batch sizes that TensorRT-LLM makes graphs of by itself, up to the largest."""
    small = {1, 2, 4, *range(8, 129, 8)} if padded else {*range(1, 33), 64, 128}
    doubled = {2**power for power in range(8, largest.bit_length())}
    return sorted(size for size in small | doubled | {largest} if size <= largest)


def _speculation(facts: Facts) -> Found:
    config: Any = facts.engine.get("speculative_config")
    if not isinstance(config, Mapping):
        return
    key, kind = "tensorrt.engine.speculative_config", config.get("decoding_type")
    compiled = _compiled(facts)
    fit = _COMPILED_SPECULATION if compiled else _PYTORCH_SPECULATION
    if kind is None:
        yield f"{key}.decoding_type", f"must be given: one of {', '.join(sorted(fit))}"
    elif kind not in fit and kind != _GIVEN_BY_CODE:
        where = "a compiled engine" if compiled else "the PyTorch backend"
        yield (
            f"{key}.decoding_type",
            f"{kind} does not run in {where}; use {', '.join(sorted(fit))}",
        )
    for name in _ABOVE_ZERO.get(kind, ()):
        if (config.get(name) or 0) <= 0:
            yield f"{key}.{name}", f"must be above 0 for {kind}"
    if kind in ("Eagle", "DraftTarget") and config.get("speculative_model") is None:
        yield f"{key}.speculative_model", f"{kind} needs a draft model"


def _guided(facts: Facts) -> Found:
    if _compiled(facts) and facts.engine.get("guided_decoding_backend") == "llguidance":
        yield "tensorrt.engine.guided_decoding_backend", "llguidance runs in PyTorch alone"


def _ray(facts: Facts) -> Found:
    if facts.engine.get("orchestrator_type") == "ray":
        return
    for name in ("ray_worker_extension_cls", "ray_placement_config"):
        if facts.engine.get(name) is not None:
            yield f"tensorrt.engine.{name}", "needs orchestrator_type: ray"


def _workload(facts: Facts) -> Found:
    length = facts.engine.get("max_seq_len")
    yield from common.workload_fits(facts, "tensorrt.engine.max_seq_len", length)


def _own_names(facts: Facts) -> Found:
    yield from common.precision_agrees(facts, "tensorrt.engine.dtype", facts.engine.get("dtype"))
    seed = facts.sampling.get("seed")
    yield from common.seed_agrees(facts, "tensorrt.sampling.seed", seed)


def _sampling(facts: Facts) -> Found:
    least, most = facts.sampling.get("min_tokens"), facts.sampling.get("max_tokens")
    yield from common.least_below_most(facts, "tensorrt.sampling.min_tokens", least, most)
    number, best = facts.sampling.get("n", 1), facts.sampling.get("best_of")
    if best is not None and best < number:
        yield "tensorrt.sampling.best_of", f"{best} is fewer than the {number} answers of n"
    if not facts.sampling.get("use_beam_search"):
        yield from common.greedy_gives_one(facts, "tensorrt.sampling.n")


RULES = (
    Rule(
        "heads against tensor parallelism",
        "arithmetic of splitting attention by heads; not read from TensorRT-LLM's sources",
        _tensor_parallel,
    ),
    Rule(
        "layers against pipeline parallelism",
        "arithmetic of splitting a model by layers; not read from TensorRT-LLM's sources",
        _pipeline_parallel,
    ),
    Rule(
        "arguments against the backend",
        f"{_ARGUMENTS}: StrictBaseModel, which forbids fields of the other class, and load_format",
        _one_backend,
    ),
    Rule(
        "the cache's data type in a compiled engine",
        f"{_ARGUMENTS}: TrtLlmArgs.validate_kv_cache_dtype",
        _cache_dtype,
    ),
    Rule(
        "CUDA graphs' largest batch against their list",
        f"{_ARGUMENTS}: TorchLlmArgs.validate_cuda_graph_config",
        _graphs,
    ),
    Rule(
        "speculative decoding against the backend, its draft and its length",
        f"{_ARGUMENTS}: from_dict and supports_backend of each, and validate_speculative_config",
        _speculation,
    ),
    Rule(
        "guided decoding against the backend",
        f"{_ARGUMENTS}: BaseLlmArgs.guided_decoding_backend",
        _guided,
    ),
    Rule(
        "Ray's settings against the orchestrator",
        f"{_ARGUMENTS}: TorchLlmArgs.validate_ray_worker_extension_cls and _placement_config",
        _ray,
    ),
    Rule(
        "prompt and answer against max_seq_len",
        f"{_ARGUMENTS}: BaseLlmArgs.max_seq_len, which ends answers",
        _workload,
    ),
    Rule(
        "dtype and seed against the study's",
        "fairness: one precision and one seed for every engine of a study",
        _own_names,
    ),
    Rule(
        "sampling parameters",
        "TensorRT-LLM 1.2.1, sampling_params.py: SamplingParams._validate",
        _sampling,
    ),
)
