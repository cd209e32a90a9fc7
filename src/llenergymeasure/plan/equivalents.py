"""The same knob under each engine's name, side by side, for studies that compare engines."""

import json
from collections.abc import Mapping
from typing import Any

from llenergymeasure.config.catalogue import store
from llenergymeasure.config.study import value_at
from llenergymeasure.plan.model import Plan

EQUIVALENT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "quantisation": {
        "pytorch": ("load_in_4bit", "load_in_8bit"),
        "vllm": ("engine.quantization",),
        "sglang": ("engine.quantization",),
        "tensorrt": ("engine.quant_config",),
    },
    "KV cache type": {
        "pytorch": ("cache_implementation",),
        "vllm": ("engine.kv_cache_dtype",),
        "sglang": ("engine.kv_cache_dtype",),
        "tensorrt": ("engine.kv_cache_config.dtype",),
    },
    "sequences at once": {
        "pytorch": ("batch_size",),
        "vllm": ("engine.max_num_seqs",),
        "sglang": ("engine.max_running_requests",),
        "tensorrt": ("engine.max_batch_size",),
    },
    "tokens in a step": {
        "vllm": ("engine.max_num_batched_tokens",),
        "sglang": ("engine.max_prefill_tokens", "engine.max_total_tokens"),
        "tensorrt": ("engine.max_num_tokens",),
    },
    "share of memory": {
        "pytorch": ("max_memory",),
        "vllm": ("engine.gpu_memory_utilization",),
        "sglang": ("engine.mem_fraction_static",),
        "tensorrt": ("engine.kv_cache_config.free_gpu_memory_fraction",),
    },
    "tensor parallel": {
        "pytorch": ("tensor_parallel_size",),
        "vllm": ("engine.tensor_parallel_size",),
        "sglang": ("engine.tp_size",),
        "tensorrt": ("engine.tensor_parallel_size",),
    },
    "CUDA graphs": {
        "vllm": ("engine.enforce_eager",),
        "sglang": ("engine.disable_cuda_graph",),
        "tensorrt": ("engine.cuda_graph_config",),
    },
    "compiling": {
        "pytorch": ("torch_compile",),
        "vllm": ("engine.compilation_config",),
        "sglang": ("engine.enable_torch_compile",),
        "tensorrt": ("engine.torch_compile_config",),
    },
    "prefix cache": {
        "vllm": ("engine.enable_prefix_caching",),
        "sglang": ("engine.disable_radix_cache",),
        "tensorrt": ("engine.kv_cache_config.enable_block_reuse",),
    },
    "chunked prefill": {
        "pytorch": ("prefill_chunk_size",),
        "vllm": ("engine.enable_chunked_prefill",),
        "sglang": ("engine.chunked_prefill_size",),
        "tensorrt": ("engine.enable_chunked_prefill",),
    },
    "speculative decoding": {
        "pytorch": ("prompt_lookup_num_tokens",),
        "vllm": ("engine.speculative_config",),
        "sglang": ("engine.speculative_algorithm",),
        "tensorrt": ("engine.speculative_config",),
    },
    "attention": {
        "pytorch": ("attn_implementation",),
        "vllm": ("engine.attention_backend",),
        "sglang": ("engine.attention_backend",),
        "tensorrt": ("engine.attn_backend",),
    },
}
"""By what they do, the settings of each backend's section. An engine without one has no entry.

Equivalent is not equal: values differ in kind and meaning, and the engines' pages say how.
"""


def equivalents(plan: Plan) -> list[dict[str, Any]]:
    """Return each knob that two or more of the plan's backends have; none for one backend.

    Each is ``{"knob", <backend>: [{"key", "values", "default"}]}``: ``values`` are those that its
    experiments set, null among them where some leave it; ``default`` is the engine's own, where
    its catalogue tells it.
    """
    configs: dict[str, list[Mapping[str, Any]]] = {}
    for run in plan.runs:
        configs.setdefault(run.backend, []).append(run.config)
    if len(configs) < 2:
        return []
    rows = []
    for knob, by_backend in EQUIVALENT.items():
        had = [backend for backend in configs if backend in by_backend]
        if len(had) > 1:
            cells = {
                backend: [_cell(backend, key, configs[backend]) for key in by_backend[backend]]
                for backend in had
            }
            rows.append({"knob": knob, **cells})
    return rows


def _cell(backend: str, key: str, configs: list[Mapping[str, Any]]) -> dict[str, Any]:
    values: list[Any] = []
    for config in configs:
        value = value_at(config, f"{backend}.{key}")
        if value not in values:
            values.append(value)
    values.sort(key=_rank)
    return {"key": f"{backend}.{key}", "values": values, "default": _default(backend, key)}


def _rank(value: Any) -> tuple[int, float, str]:
    """Return the order of values: none, numbers by size, all others as text."""
    if value is None or isinstance(value, bool | int | float):
        return (0 if value is None else 1), float(value or 0), ""
    return 2, 0.0, json.dumps(value, sort_keys=True)


def _default(backend: str, key: str) -> Any:
    """Return an engine's own default as its catalogue has it; null where it does not tell one."""
    name = key.removeprefix("engine.")
    for knobs in store.load(backend).sections.values():
        if name in knobs:
            knob = knobs[name]
            return knob.default_text or knob.default
    return None


def equivalent_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table for people: a column for each backend, empty where it has no such knob."""
    if not rows:
        return []
    backends = list(dict.fromkeys(name for row in rows for name in row if name != "knob"))
    table = [["", *backends]]
    table += [[row["knob"], *(_text(row.get(backend, [])) for backend in backends)] for row in rows]
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    ]
    head = "Equivalent settings, as set in this study; (…) is an engine's own default"
    return [head, *(line.rstrip() for line in lines)]


def _text(cells: list[dict[str, Any]]) -> str:
    return (
        ", ".join(
            f"{cell['key'].partition('.')[2].removeprefix('engine.')}={_values(cell)}"
            for cell in cells
        )
        or "-"
    )


def _values(cell: Mapping[str, Any]) -> str:
    shown = [_shown(value) for value in cell["values"] if value is not None]
    if None in cell["values"]:
        shown.append(f"({_shown(cell['default'])})")
    return "|".join(shown)


def _shown(value: Any) -> str:
    if value is None:
        return "its own"
    return value if isinstance(value, str) else json.dumps(value)
