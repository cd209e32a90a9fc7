"""SGLang's rules, each from a check in its sources."""

from collections.abc import Mapping

from llenergymeasure.config.rules import common
from llenergymeasure.config.rules.common import ANY, HALF, Method
from llenergymeasure.config.rules.rule import Facts, Found, Rule

_RELEASE = "SGLang 0.5.23"
_MOST_PENALTY = 2.0
_VALIDATION = f"{_RELEASE}, srt/arg_groups/validation_hook.py"

METHODS: Mapping[str, Method] = {
    "awq": Method(75, HALF),
    "bitsandbytes": Method(70, ANY),
    "gguf": Method(60, ANY),
    "moe_wna16": Method(70, HALF),
    "mxfp4": Method(80, HALF),
    "petit_nvfp4": Method(90, HALF),
    "w8a8_int8": Method(75, HALF),
    "w8a8_fp8": Method(89, HALF),
    "humming": Method(75, HALF),
}
"""``get_min_capability`` and ``get_supported_act_dtypes`` of the classes in
``sglang/srt/layers/quantization``, release 0.5.23."""


def _tensor_parallel(facts: Facts) -> Found:
    attention = facts.engine.get("attn_dp_size") or facts.engine.get("enable_dp_attention")
    if not attention:
        size = facts.engine.get("tp_size")
        yield from common.heads_divide(facts, "sglang.engine.tp_size", size)


def _pipeline_parallel(facts: Facts) -> Found:
    size = facts.engine.get("pp_size", 1)
    yield from common.enough_layers(facts, "sglang.engine.pp_size", size)
    if size > 1 and facts.engine.get("speculative_algorithm") is not None:
        yield "sglang.engine.speculative_algorithm", "does not go with pp_size in one server"
    if size > 1 and facts.engine.get("min_free_slots_delay") is not None:
        yield "sglang.engine.min_free_slots_delay", "does not go with pp_size"


def _context_length(facts: Facts) -> Found:
    yield from common.within_positions(
        facts,
        "sglang.engine.context_length",
        facts.engine.get("context_length"),
        "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN=1",
    )


def _workload(facts: Facts) -> Found:
    length = facts.engine.get("context_length")
    yield from common.workload_fits(facts, "sglang.engine.context_length", length)


def _chunks(facts: Facts) -> Found:
    size, page = facts.engine.get("chunked_prefill_size"), facts.engine.get("page_size")
    if size is not None and page is not None and size > 0 and size % page:
        yield "sglang.engine.chunked_prefill_size", f"{size} is no multiple of page_size ({page})"


def _graphs(facts: Facts) -> Found:
    if facts.engine.get("disable_cuda_graph_padding") and facts.engine.get("enable_torch_compile"):
        key = "sglang.engine.disable_cuda_graph_padding"
        yield key, "does not go with enable_torch_compile, which would compile for every batch size"


def _priorities(facts: Facts) -> Found:
    policy = facts.engine.get("schedule_policy", "fcfs")
    if facts.engine.get("enable_priority_scheduling"):
        if policy not in ("fcfs", "lof"):
            key = "sglang.engine.schedule_policy"
            yield key, f"must be fcfs or lof with enable_priority_scheduling, not {policy}"
    elif facts.engine.get("retraction_policy") == "priority":
        yield "sglang.engine.retraction_policy", "priority needs enable_priority_scheduling: true"


def _dense_layers(facts: Facts) -> Found:
    size, tensor = facts.engine.get("moe_dense_tp_size"), facts.engine.get("tp_size", 1)
    if size is not None and size not in (1, tensor):
        yield "sglang.engine.moe_dense_tp_size", f"can only be 1 or the tp_size of {tensor}"


def _quantisation(facts: Facts) -> Found:
    name = facts.engine.get("quantization")
    method = METHODS.get(str(name))
    yield from common.quantisation_fits(facts, "sglang.engine.quantization", name, method)


def _speculation(facts: Facts) -> Found:
    algorithm = facts.engine.get("speculative_algorithm")
    if algorithm not in ("EAGLE", "EAGLE3") or facts.engine.get("speculative_adaptive"):
        return
    if facts.engine.get("speculative_num_steps") is not None:
        return
    for name in ("speculative_eagle_topk", "speculative_num_draft_tokens"):
        if facts.engine.get(name) is not None:
            yield f"sglang.engine.{name}", "needs speculative_num_steps, or neither of the two"


def _own_names(facts: Facts) -> Found:
    yield from common.precision_agrees(facts, "sglang.engine.dtype", facts.engine.get("dtype"))
    seed = facts.engine.get("random_seed")
    yield from common.seed_agrees(facts, "sglang.engine.random_seed", seed)


def _sampling(facts: Facts) -> Found:
    least, most = facts.sampling.get("min_new_tokens"), facts.sampling.get("max_new_tokens")
    yield from common.least_below_most(facts, "sglang.sampling.min_new_tokens", least, most)
    yield from common.share_above_zero(facts)
    penalty = facts.sampling.get("repetition_penalty", facts.config.decoder.repetition_penalty)
    if penalty > _MOST_PENALTY:
        yield "decoder.repetition_penalty", f"{penalty:g} is more than SGLang's {_MOST_PENALTY:g}"
    width, number = facts.sampling.get("beam_width"), facts.sampling.get("n", 1)
    if width is not None and number > width:
        yield "sglang.sampling.n", f"{number} answers are more than the beam_width of {width}"


RULES = (
    Rule(
        "heads against tp_size",
        f"{_RELEASE}, srt/models/llama.py: LlamaAttention",
        _tensor_parallel,
    ),
    Rule(
        "layers and speculative decoding against pp_size",
        f"{_VALIDATION}: check_pipeline_parallel_compat",
        _pipeline_parallel,
    ),
    Rule(
        "context_length against the model's positions",
        f"{_RELEASE}, srt/configs/model_config.py: ModelConfig._derive_context_length",
        _context_length,
    ),
    Rule(
        "prompt and answer against context_length",
        f"{_RELEASE}, srt/configs/model_config.py: ModelConfig.context_len, which ends answers",
        _workload,
    ),
    Rule(
        "chunked_prefill_size against page_size",
        f"{_VALIDATION}: check_server_args",
        _chunks,
    ),
    Rule("CUDA graph padding against torch.compile", f"{_VALIDATION}: check_server_args", _graphs),
    Rule("priorities against the policy", f"{_VALIDATION}: check_server_args", _priorities),
    Rule("moe_dense_tp_size against tp_size", f"{_VALIDATION}: check_server_args", _dense_layers),
    Rule(
        "quantization against precision and compute capability",
        f"{_RELEASE}, srt/model_loader/loader.py: _get_quantization_config",
        _quantisation,
    ),
    Rule(
        "the parts of EAGLE's tree",
        f"{_RELEASE}, srt/arg_groups/speculative_hook.py: _handle_eagle_family",
        _speculation,
    ),
    Rule(
        "dtype and random_seed against the study's",
        "fairness: one precision and one seed for every engine of a study",
        _own_names,
    ),
    Rule(
        "sampling parameters",
        f"{_RELEASE}, srt/sampling/sampling_params.py: SamplingParams.verify",
        _sampling,
    ),
)
