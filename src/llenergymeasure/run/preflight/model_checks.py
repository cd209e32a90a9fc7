"""Whether a model can be had, and fits: on the disk, in memory, in its own length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.disk import free_bytes
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.machine.host import memory_bytes, memory_limit_bytes
from llenergymeasure.run.preflight.memory_need import bytes_per_weight, engine_setting, memory_need
from llenergymeasure.workload.models.hub import cached_file, offline
from llenergymeasure.workload.models.resolve import ModelSource
from llenergymeasure.workload.requests import Workload

TIGHT = 0.9
"""Share of the memory that weights and cache may take before it is likely to be too little."""

_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class ModelChecks:
    """What was found of one model.

    Attributes:
        errors: why a run cannot start.
        warnings: what may go wrong.
    """

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def look_at_model(
    config: ExperimentConfig,
    source: ModelSource,
    workload: Workload | None,
    cards: tuple[Gpu, ...],
) -> ModelChecks:
    """Return what is wrong with running this model on these cards; on the CPU without any."""
    found = [*_weights(config, source), *_fit(config, source, workload, cards)]
    found += _length(source, workload)
    return ModelChecks(
        errors=tuple(problem for problem, fatal in found if fatal),
        warnings=tuple(problem for problem, fatal in found if not fatal),
    )


Found = tuple[Problem, bool]
"""A problem, and whether it is an error."""


def weights_here(config: ExperimentConfig, source: ModelSource) -> bool:
    """Whether no weights have to be fetched: a folder, random ones, a server's, or cached ones."""
    if source.folder is not None or source.random or config.backend == "openai":
        return True
    return any(cached_file(source.name, name, source.revision) for name in _WEIGHT_FILES)


def _weights(config: ExperimentConfig, source: ModelSource) -> Iterator[Found]:
    """Say why weights that are still to be fetched will not come, or not fit the cache."""
    if weights_here(config, source):
        return
    if offline():
        problem = Problem(
            "its weights are not in the local cache of the hub, and HF_HUB_OFFLINE forbids to "
            "fetch them; fetch them first, or use weights: random",
            key="model",
            found=source.name,
        )
        yield problem, True
        return
    cache = _hub_cache()
    free = None if cache is None else free_bytes(cache)
    if free is None or source.architecture is None:
        return
    # A checkpoint is stored in 16 bits as a rule, whatever it is loaded as.
    size = round(source.architecture.parameters() * min(2.0, bytes_per_weight(config, source)))
    if size > free:
        problem = Problem(
            f"its weights take some {size / 1e9:.0f} GB and {free / 1e9:.0f} GB are free; make "
            "room, or set HF_HOME to a larger disk",
            key="model",
            found=source.name,
            file=cache,
        )
        yield problem, True


def _hub_cache() -> Path | None:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE)


@dataclass(frozen=True)
class _Room:
    """Memory for one copy of the model.

    Attributes:
        bytes: what can be had at most.
        name: where it is, in words.
        spills: whether what does not fit goes elsewhere, slowly, instead of failing.
    """

    bytes: int
    name: str
    spills: bool = False


def _gpu_room(config: ExperimentConfig, cards: tuple[Gpu, ...]) -> _Room | None:
    totals = [card.memory_total_bytes for card in cards]
    known = [total for total in totals if total is not None]
    if len(known) < len(totals):
        return None
    section: Any = getattr(config, config.backend)
    if config.backend == "pytorch":
        spread = section is not None and section.device_map is not None
        if spread and ":" not in section.device_map and section.device_map != "cuda":
            return _Room(sum(known), f"the memory of {len(known)} GPUs", spills=True)
        return _Room(min(known), f"the memory of GPU {cards[0].name}")
    share = engine_setting(config, "gpu_memory_utilization")
    share = engine_setting(config, "mem_fraction_static") if share is None else share
    offload = engine_setting(config, "cpu_offload_gb") or 0.0
    room = sum(known) * (share or 1.0) + offload * 2**30 * len(known)
    return _Room(round(room), f"what the engine may use of {len(known)} GPUs")


def _ram_room(config: ExperimentConfig) -> _Room | None:
    total, limit = memory_bytes("MemTotal"), memory_limit_bytes()
    known = [value for value in (total, limit) if value is not None]
    if not known:
        return None
    copies = (config.pytorch and config.pytorch.num_processes) or 1
    return _Room(min(known) // copies, "this machine's memory")


@dataclass(frozen=True)
class MemoryVerdict:
    """Whether a model fits.

    Attributes:
        need: of weights and cache, in words.
        room: what there is, in words.
        verdict: ``fits``; ``tight``, where activations may no longer fit; ``spills``, where what
            is too much goes to slower memory; ``too large``, where a run cannot start.
    """

    need: str
    room: str
    verdict: Literal["fits", "tight", "spills", "too large"]


def memory_verdict(
    config: ExperimentConfig,
    source: ModelSource,
    workload: Workload | None,
    cards: tuple[Gpu, ...],
) -> MemoryVerdict | None:
    """Return whether this model fits on these cards, or in the machine's memory without any.

    Null where the model's shape, or the memory, is not known.
    """
    need = memory_need(config, source, workload)
    room = _gpu_room(config, cards) if cards else _ram_room(config)
    if need is None or room is None:
        return None
    verdict: Literal["fits", "tight", "spills", "too large"] = "too large"
    if need.bytes <= TIGHT * room.bytes:
        verdict = "fits"
    elif need.bytes <= room.bytes:
        verdict = "tight"
    elif room.spills:
        verdict = "spills"
    return MemoryVerdict(str(need), f"{room.name} is {room.bytes / 1e9:.1f} GB", verdict)


def _fit(
    config: ExperimentConfig,
    source: ModelSource,
    workload: Workload | None,
    cards: tuple[Gpu, ...],
) -> Iterator[Found]:
    found = memory_verdict(config, source, workload, cards)
    if found is None or found.verdict == "fits":
        return
    text = f"needs {found.need}, and {found.room}"
    if found.verdict == "tight":
        yield Problem(f"{text}: activations may no longer fit", key="model"), False
    elif found.verdict == "spills":
        yield Problem(f"{text}: what is too much goes to slower memory", key="model"), False
    else:
        advice = "use a smaller model, precision, batch or length, or more GPUs"
        yield Problem(f"{text}; {advice}", key="model", found=config.model), True


def _length(source: ModelSource, workload: Workload | None) -> Iterator[Found]:
    shape = source.architecture
    if shape is None or workload is None or not workload.requests:
        return
    longest = max(
        len(request.prompt_token_ids) + request.max_output_tokens for request in workload.requests
    )
    if longest <= shape.max_positions:
        return
    problem = Problem(
        f"prompt and output take up to {longest} tokens together, and this model is made for "
        f"{shape.max_positions}; lower max_input_tokens or max_output_tokens",
        key="max_output_tokens",
    )
    # Learned positions have a table that ends there; rotary ones only grow worse.
    yield problem, shape.rope_theta is None
