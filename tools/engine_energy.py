"""The parameters that change what a token costs in energy, and how: our words."""

from collections.abc import Mapping

_BATCH = (
    "Usually the largest lever. Decoding reads every weight once a step whatever the batch, so "
    "energy a token falls as the batch grows, until compute or the KV cache is full."
)
_TP = (
    "Splits each layer over GPUs: latency falls, but every layer then waits for an all-reduce, and "
    "all GPUs draw power while they wait. Energy a token rises unless the model or batch needs the "
    "memory."
)
_PP = "Splits the layers into stages: less talk than tensor parallelism, but stages idle in turn."
_CHUNKED = (
    "Mixes prefill of long prompts with decoding, so that decoding requests do not stall. Steps "
    "grow more even; energy a token falls where prompts are long and arrivals steady."
)
_EAGER = (
    "Without CUDA graphs each kernel is launched by the CPU: at small batches the GPU idles "
    "between launches, and idle power is paid for a longer time."
)
_COMPILE = (
    "Fused kernels move less data. Compiling costs energy once, before the window; a short study "
    "never earns it back."
)
_WEIGHTS = (
    "Fewer bytes a weight means less memory traffic, which is most of decoding's energy at small "
    "batches. At large batches the extra arithmetic of unpacking can cost more than it saves."
)
_KV = (
    "A smaller KV cache lets more sequences run at once and moves fewer bytes a step: it matters "
    "with long contexts and large batches, hardly at all with short ones."
)
_MEMORY = (
    "More memory for the KV cache lets more sequences run at once. Beyond what the workload fills, "
    "it changes nothing."
)
_SPECULATIVE = (
    "A draft guesses tokens that the model then checks in one pass. It saves energy where most "
    "guesses hold and batches are small; at large batches rejected guesses are pure cost."
)
_ATTENTION = (
    "Kernels differ in speed and in power; the best one depends on GPU, head size and length."
)
_OFFLOAD = (
    "Weights cross the bus at every step. The GPU waits at idle power: energy a token rises "
    "steeply. CPU and memory power count too, and a GPU sensor does not see them."
)
_DUMMY = "Random weights cost the same energy a token as trained ones at a fixed token count."

_PREFIX = (
    "Requests that start alike share the prefill of their common part. With a shared system prompt "
    "it can save most of the prefill energy; with prompts that differ from the first token it "
    "saves nothing. In a measurement that repeats the same prompts it makes every repetition but "
    "the first cheaper than real use would be: switch it off, or use fresh prompts each time."
)

MATTERS: Mapping[str, Mapping[str, str]] = {
    "vllm": {
        "engine.enable_prefix_caching": f"{_PREFIX} On by default.",
        "engine.max_num_seqs": _BATCH,
        "engine.max_num_batched_tokens": "Tokens in a step, prefill and decode together: larger "
        "steps use the GPU better, smaller ones keep latency even.",
        "engine.enable_chunked_prefill": _CHUNKED,
        "engine.tensor_parallel_size": _TP,
        "engine.pipeline_parallel_size": _PP,
        "engine.enforce_eager": _EAGER,
        "engine.compilation_config": _COMPILE,
        "engine.optimization_level": _COMPILE,
        "engine.performance_mode": "Chooses several of these at once; set them one by one to know "
        "what did what.",
        "engine.quantization": _WEIGHTS,
        "engine.kv_cache_dtype": _KV,
        "engine.gpu_memory_utilization": _MEMORY,
        "engine.kv_cache_memory_bytes": "Fixes the KV cache whatever the GPU has: the way to give "
        "two GPUs, or two engines, the same.",
        "engine.max_model_len": "A shorter context leaves room for more sequences in the same "
        "memory.",
        "engine.block_size": "Larger blocks waste more of the last one; smaller ones share "
        "prefixes more finely.",
        "engine.attention_backend": _ATTENTION,
        "engine.attention_config": _ATTENTION,
        "engine.speculative_config": _SPECULATIVE,
        "engine.cpu_offload_gb": _OFFLOAD,
        "engine.offload_group_size": _OFFLOAD,
        "engine.async_scheduling": "The CPU plans the next step while the GPU works on this one, "
        "so that the GPU waits less.",
        "engine.load_format": _DUMMY,
        "engine.data_parallel_size": "Whole copies of the engine: each draws power of its own, so "
        "keep the batch of each full.",
        "engine.stream_interval": "How often answers are handed over: CPU energy, not the GPU's.",
        "sampling.n": "Several answers share one prefill.",
        "sampling.ignore_eos": "Fixes the count of output tokens, without which runs do not "
        "compare.",
        "sampling.detokenize": "Text is made on the CPU; without it the CPU does less.",
        "sampling.logprobs": "Log-probabilities cost a pass over the vocabulary for each token.",
    },
    "sglang": {
        "engine.disable_radix_cache": f"{_PREFIX} SGLang keeps prefixes in a radix tree, shared at "
        "any token, and it is on by default: true switches it off.",
        "engine.radix_eviction_policy": "Which prefixes stay when the cache is full: it decides "
        "how much prefill is saved.",
        "engine.schedule_policy": "lpm takes requests with the longest cached prefix first: more "
        "reuse, less prefill energy, less even waiting.",
        "engine.page_size": "Prefixes are shared in whole pages: larger pages share less.",
        "engine.max_running_requests": _BATCH,
        "engine.chunked_prefill_size": f"{_CHUNKED} -1 switches it off.",
        "engine.max_prefill_tokens": "Prompt tokens in a prefill step: larger steps use the GPU "
        "better.",
        "engine.enable_mixed_chunk": "Prefill chunks and decoding in the same step, as vLLM does "
        "by default.",
        "engine.tp_size": _TP,
        "engine.pp_size": _PP,
        "engine.dp_size": "Whole copies of the engine: each draws power of its own, so keep the "
        "batch of each full.",
        "engine.disable_cuda_graph": _EAGER,
        "engine.cuda_graph_max_bs_decode": f"Batches above it run without CUDA graphs. {_EAGER}",
        "engine.enable_torch_compile": _COMPILE,
        "engine.quantization": _WEIGHTS,
        "engine.kv_cache_dtype": _KV,
        "engine.mem_fraction_static": _MEMORY,
        "engine.max_total_tokens": "Fixes the KV cache whatever the GPU has: the way to give two "
        "GPUs, or two engines, the same.",
        "engine.context_length": "A shorter context leaves room for more sequences in the same "
        "memory.",
        "engine.attention_backend": _ATTENTION,
        "engine.sampling_backend": "Sampling kernels: a small share, larger with a big vocabulary.",
        "engine.speculative_algorithm": _SPECULATIVE,
        "engine.cpu_offload_gb": _OFFLOAD,
        "engine.disable_overlap_schedule": "Overlap lets the CPU plan the next step while the GPU "
        "works; without it the GPU waits.",
        "engine.num_continuous_decode_steps": "Decode steps between two looks at new requests: "
        "less CPU work, later first tokens.",
        "engine.sleep_on_idle": "An idle server's CPU power: it matters to the idle baseline.",
        "engine.load_format": _DUMMY,
        "sampling.n": "Several answers share one prefill.",
        "sampling.ignore_eos": "Fixes the count of output tokens, without which runs do not "
        "compare.",
    },
    "pytorch": {
        "generation.use_cache": "Without the KV cache every token computes the whole sequence "
        "again: energy grows with the square of the length.",
        "generation.cache_implementation": "A static cache lets the step be compiled and keeps "
        "memory fixed; an offloaded one crosses the bus at every layer.",
        "generation.num_beams": "Each beam is a sequence: energy an answer grows with their "
        "number.",
        "generation.prompt_lookup_num_tokens": f"{_SPECULATIVE} Here the guesses come from the "
        "prompt, so answers that repeat it gain most.",
        "generation.prefill_chunk_size": "Long prompts in pieces: less peak memory, more kernel "
        "launches.",
        "generation.disable_compile": _COMPILE,
        "generation.output_scores": "Keeps a row of the vocabulary's size for each token: memory "
        "traffic that is not generation.",
        "generation.output_logits": "Keeps a row of the vocabulary's size for each token: memory "
        "traffic that is not generation.",
        "generation.output_attentions": "Forces attention kernels that keep the full matrix: far "
        "slower and dearer.",
        "generation.guidance_scale": "Classifier-free guidance runs the model twice a token.",
        "loading.attn_implementation": _ATTENTION,
        "loading.experts_implementation": "How experts' matrices are multiplied: one by one, or "
        "grouped.",
        "loading.use_kernels": "Replaces layers with kernels from the hub.",
        "loading.device_map": "auto spreads layers over GPUs that then work in turn, each drawing "
        "idle power while it waits; what does not fit goes to the CPU.",
        "loading.offload_folder": _OFFLOAD,
    },
    "tensorrt": {
        "engine.kv_cache_config": f"{_PREFIX} (enable_block_reuse) {_KV} (dtype) {_MEMORY} "
        "(free_gpu_memory_fraction)",
        "engine.max_batch_size": _BATCH,
        "engine.max_num_tokens": "Tokens in a step, prefill and decode together.",
        "engine.enable_chunked_prefill": _CHUNKED,
        "engine.tensor_parallel_size": _TP,
        "engine.cuda_graph_config": _EAGER,
        "engine.torch_compile_config": _COMPILE,
        "engine.quant_config": _WEIGHTS,
        "engine.attn_backend": _ATTENTION,
        "engine.speculative_config": _SPECULATIVE,
    },
}
"""By backend and dotted name in its catalogue: why the knob matters to energy."""
