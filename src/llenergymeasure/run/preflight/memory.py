"""The least memory that an experiment needs, weights and cache, and whether it is available."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.machine.host import memory_bytes, memory_limit_bytes
from llenergymeasure.workload.models.resolve import ModelSource
from llenergymeasure.workload.requests import Workload

_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
_EIGHT_BITS = re.compile(r"fp8|int8|w8a8|8bit|modelopt$|ptpc")
_WEIGHTS_ALONE = re.compile(r"awq|gptq|int4|4bit|bitsandbytes|gguf|hqq|aqlm")
"""Ways to quantise that leave the multiplication in the precision of the rest."""

_GB, _MB = 1e9, 1e6

FITS = "fits"

TIGHT_SHARE = 0.9
"""Share of the memory that weights and cache may take before it is likely to be too little."""


@dataclass(frozen=True)
class MemoryNeed:
    """A lower bound on memory: activations and an engine's own buffers are not in it.

    Attributes:
        weights_bytes: of one copy of the model.
        cache_bytes: keys and values of the sequences in progress at once.
        sequences: the number of those sequences.
        tokens: of the longest of them, prompt and output together.
    """

    weights_bytes: int
    cache_bytes: int
    sequences: int
    tokens: int

    @property
    def bytes(self) -> int:
        """Both together."""
        return self.weights_bytes + self.cache_bytes

    def __str__(self) -> str:
        """Return it in words."""
        sequences = "1 sequence" if self.sequences == 1 else f"{self.sequences} sequences"
        return (
            f"at least {format_size(self.bytes)} ({format_size(self.weights_bytes)} of weights and "
            f"{format_size(self.cache_bytes)} of keys and values for {sequences} of "
            f"up to {self.tokens} tokens)"
        )


def memory_need(
    config: ExperimentConfig, source: ModelSource, workload: Workload | None
) -> MemoryNeed | None:
    """Return the memory that one copy of the model needs; None if its shape is not known here.

    An engine that batches by itself takes as many sequences as fit: at least one has to.
    transformers takes the whole batch.
    """
    shape = source.architecture
    if shape is None or config.backend == "openai":
        return None
    longest = longest_tokens(config, workload)
    if shape.sliding_window is not None:
        longest = min(longest, shape.sliding_window)
    sequences = _sequences(config, workload)
    weights = shape.parameters() * bytes_per_weight(config, source)
    cache = shape.kv_cache_bytes_per_token(_cache_bytes(config)) * sequences * longest
    return MemoryNeed(round(weights), round(cache), sequences, longest)


def memory_record(
    config: ExperimentConfig, source: ModelSource | None, workload: Workload
) -> dict[str, int]:
    """Return the computed size of weights and cache; empty if the model's shape is not known."""
    need = None if source is None else memory_need(config, source, workload)
    if need is None:
        return {}
    record = {"weights_bytes": need.weights_bytes}
    # An engine that batches by itself decides how many sequences it keeps.
    return record | ({"kv_cache_bytes": need.cache_bytes} if config.backend == "pytorch" else {})


def bytes_per_weight(config: ExperimentConfig, source: ModelSource) -> float:
    """Return the least bytes of one weight: parts of a quantised model stay unquantised."""
    method = _quantization(config, source)
    if method is None:
        return _BYTES[config.precision]
    return 1.0 if _EIGHT_BITS.search(method) else 0.5


def compute_precision(config: ExperimentConfig, source: ModelSource | None) -> str:
    """Return the precision that matrices are multiplied in, or how a model is quantised for it."""
    method = _quantization(config, source)
    weights_alone = method is not None and not _EIGHT_BITS.search(method)
    if method is None or (weights_alone and _WEIGHTS_ALONE.search(method)):
        return config.precision
    return method


def _quantization(config: ExperimentConfig, source: ModelSource | None) -> str | None:
    """Return how the model's weights are quantised; None where they are not."""
    if config.backend == "pytorch" and config.pytorch is not None:
        if config.pytorch.load_in_4bit:
            return "4bit"
        if config.pytorch.load_in_8bit:
            return "8bit"
    method = engine_setting(config, "quantization")
    stored = None if source is None or source.random else source.config.get("quantization_config")
    if method is None and isinstance(stored, dict):
        bits = stored.get("bits")
        method = f"int{bits}" if bits else str(stored.get("quant_method", "unknown"))
    return None if method is None else str(method)


def engine_setting(config: ExperimentConfig, name: str) -> Any:
    """Return the study's value for one of the engine's own arguments; None if it sets none."""
    section: Any = getattr(config, config.backend)
    arguments = getattr(section, "engine", None)
    settings = {} if arguments is None else arguments.explicit_values()
    return settings.get(name, getattr(section, name, None))


def longest_tokens(config: ExperimentConfig, workload: Workload | None) -> int:
    """Return the tokens of the longest sequence, prompt and output together."""
    if workload is None or not workload.requests:
        synthetic = config.synthetic()
        if synthetic is None:
            return config.max_input_tokens + config.max_output_tokens
        return synthetic.input_len + synthetic.output_len
    requests = workload.requests
    lengths = (len(request.prompt_token_ids) + request.max_output_tokens for request in requests)
    return max(workload.longest_in_trace_tokens, *lengths)


def _sequences(config: ExperimentConfig, workload: Workload | None) -> int:
    if config.backend != "pytorch":
        return 1
    section = config.pytorch
    if section is not None and section.use_cache is False:
        return 0
    batch = (section and section.batch_size) or 1
    beams = (section and section.num_beams) or 1
    requests = config.n if workload is None else len(workload.requests)
    return min(batch, requests) * beams


def _cache_bytes(config: ExperimentConfig) -> float:
    cache_dtype = engine_setting(config, "kv_cache_dtype")
    return 1.0 if cache_dtype is not None and "fp8" in cache_dtype else _BYTES[config.precision]


@dataclass(frozen=True)
class Room:
    """Memory for one copy of the model.

    Attributes:
        bytes: what is available at most.
        name: where it is, in words.
        spills: whether the rest goes to slower memory if it does not fit, instead of failing.
    """

    bytes: int
    name: str
    spills: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.name} is {format_size(self.bytes)}"

    def too_small(self, need: MemoryNeed) -> bool:
        """Return whether a run with this need would fail."""
        return need.bytes > self.bytes and not self.spills

    def verdict(self, need: MemoryNeed) -> str:
        """Return in words whether there is room."""
        if need.bytes <= TIGHT_SHARE * self.bytes:
            return FITS
        if need.bytes <= self.bytes:
            return "tight, activations may no longer fit"
        if self.spills:
            return "what is too much goes to slower memory"
        return "too large, the preflight will refuse it"


def memory_here(
    config: ExperimentConfig, source: ModelSource, cards: tuple[Gpu, ...]
) -> Room | None:
    """Return the memory of these cards, or of this machine without any; None if not known."""
    if cards:
        return _gpu_room(config, source, cards)
    total_bytes = _machine_bytes()
    if total_bytes is None:
        return None
    return Room(total_bytes // model_copies(config, source), "this machine's memory")


@cache  # a plan asks for each of its experiments
def _machine_bytes() -> int | None:
    return memory_limit_bytes() or memory_bytes("MemTotal")


def model_copies(config: ExperimentConfig, source: ModelSource) -> int:
    """Return how many processes, or groups of them, each hold the model."""
    if config.backend == "pytorch":
        return (config.pytorch and config.pytorch.num_processes) or 1
    shape = source.architecture
    if shape is None or shape.experts or engine_setting(config, "enable_dp_attention"):
        return 1  # copies split the experts between them; SGLang's split all but the attention
    name = "dp_size" if config.backend == "sglang" else "data_parallel_size"
    return engine_setting(config, name) or 1


def model_parts(config: ExperimentConfig) -> int:
    """Return into how many parts transformers cuts the model, each on a GPU of its own."""
    return (config.pytorch and config.pytorch.tensor_parallel_size) or 1


def places_layers_freely(config: ExperimentConfig) -> bool:
    """Return whether transformers may lay a model's parts wherever there is room."""
    device_map = config.pytorch and config.pytorch.device_map
    return bool(device_map) and ":" not in str(device_map) and device_map not in ("cuda", "cpu")


def _gpu_room(config: ExperimentConfig, source: ModelSource, cards: tuple[Gpu, ...]) -> Room | None:
    sizes_bytes = [card.memory_total_bytes for card in cards if card.memory_total_bytes is not None]
    if len(sizes_bytes) < len(cards):
        return None
    if config.backend == "pytorch":
        if places_layers_freely(config):
            return Room(sum(sizes_bytes), f"the memory of {len(cards)} GPUs", spills=True)
        parts = model_parts(config)
        name = f"GPU {cards[0].name}" if parts == 1 else f"{parts} GPUs"
        return Room(parts * min(sizes_bytes), f"the memory of {name}")
    share = engine_setting(config, "gpu_memory_utilization")
    share = engine_setting(config, "mem_fraction_static") if share is None else share
    offload = engine_setting(config, "cpu_offload_gb") or 0.0
    total_bytes = sum(sizes_bytes) * (share or 1.0) + offload * 2**30 * len(cards)
    copies = model_copies(config, source)
    name = f"what the engine may use of {len(cards) // copies} GPUs"
    return Room(round(total_bytes) // copies, name)


def format_size(size_bytes: float) -> str:
    """Return a size in GB, or in MB below one GB, in enough digits to show a difference."""
    if size_bytes < _GB:
        return f"{size_bytes / _MB:.1f} MB"
    return f"{size_bytes / _GB:.3f} GB"
