"""Whether a model can be fetched, and fits: on the disk, in memory, in its own length."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.nearest import did_you_mean, nearest_names
from llenergymeasure.errors import LlemError, PreflightError, Problem
from llenergymeasure.files import lfs_pointer_problem, load_json
from llenergymeasure.machine.folders import free_bytes
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.run.preflight.memory import (
    FITS,
    bytes_per_weight,
    longest_tokens,
    memory_here,
    memory_need,
)
from llenergymeasure.workload.models.hub import (
    cached_file,
    hub_cache,
    offline,
    unreachable_reason,
)
from llenergymeasure.workload.models.resolve import (
    ModelSource,
    is_hub_id,
    requested_revision,
    resolve_model,
)
from llenergymeasure.workload.requests import Workload

_WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

MAX_NAMED_SHARDS = 3


def check_model(
    config: ExperimentConfig,
    source: ModelSource,
    workload: Workload | None,
    cards: tuple[Gpu, ...],
) -> Iterator[Problem]:
    """Yield what is wrong with running this model on these cards; on the CPU without any."""
    yield from _check_weights(config, source)
    yield from _check_memory(config, source, workload, cards)
    yield from _check_length(config, source, workload)


def check_models_available(
    configs: Iterable[Mapping[str, Any]], *, in_jobs: bool = False
) -> list[str]:
    """Check at a study's start that models which are not on this machine can be downloaded.

    With HF_HUB_OFFLINE runs fail at once with a clear message; without a network each would retry
    for half a minute. Jobs of a cluster may wait for hours before they fail, and may have another
    cache or network than this machine: for them this only warns and never refuses.

    Returns:
        Warnings for the models that cannot.

    Raises:
        PreflightError: the hub cannot be reached, and no experiment has its model; names them.
    """
    cache, configs = hub_cache(), list(configs)
    if offline() != in_jobs or cache is None:  # without its package nobody can look
        return []
    from_hub = filter(_is_from_hub, configs)
    hub_configs = [ExperimentConfig.model_validate(config) for config in from_hub]
    hub_models = {(config.model, requested_revision(config)): config for config in hub_configs}
    missing = [pair for pair, config in hub_models.items() if not _is_cached(config)]
    names = ", ".join(
        name if revision is None else f"{name} at revision {revision}" for name, revision in missing
    )
    if in_jobs and missing:
        message = (
            f"not in the hub's cache of this machine ({cache}), and HF_HUB_OFFLINE forbids to "
            f"download: {names}. Jobs that have no other cache will fail; set HF_HOME as it was "
            "for the download, or download it"
        )
        return [str(Problem(message, key="model"))]
    reason = unreachable_reason() if missing else None
    if reason is None:
        return []
    message = (
        f"not in the local cache of the hub, and {reason}; fetch it first, or name a local folder, "
        f"tiny-llama, or an architecture with weights: random{_suggested_folders(missing)}"
    )
    problem = Problem(message, key="model", found=names)
    if len(missing) == len(hub_models) and len(hub_configs) == len(configs):
        raise PreflightError(problem)
    return [str(problem)]


def _suggested_folders(missing: Iterable[tuple[str, str | None]]) -> str:
    """Return the end of a message that names models' folders here of nearly these names."""
    try:
        folder_names = [path.parent.name for path in Path().glob("*/config.json")]
    except OSError:
        folder_names = []
    nearest = [name for model, _ in missing for name in nearest_names(model, folder_names)[:1]]
    return did_you_mean(dict.fromkeys(f"./{name}" for name in nearest))


def _is_from_hub(config: Mapping[str, Any]) -> bool:
    """Return whether a run's model comes from there, with its weights."""
    if config.get("weights") == "random" or config["backend"] == "openai":
        return False
    return is_hub_id(str(config["model"]))


def _is_cached(config: ExperimentConfig) -> bool:
    if cached_file(config.model, "config.json", requested_revision(config)) is None:
        return False
    try:
        return are_weights_local(config, resolve_model(config))
    except LlemError:  # the run's own preflight says what is wrong with it
        return True


def are_weights_local(config: ExperimentConfig, source: ModelSource) -> bool:
    """Whether no weights have to be fetched: a folder, random ones, a server's, or cached ones."""
    if source.folder is not None or source.random or config.backend == "openai":
        return True
    first = _weights_file(source)
    return first is not None and not _missing_shards(source, first)


def checkpoint_bytes(config: ExperimentConfig, source: ModelSource) -> int | None:
    """Return the size of a checkpoint, in 16 bits as a rule, whatever it is loaded as."""
    if source.architecture is None:
        return None
    return round(source.architecture.parameters() * min(2.0, bytes_per_weight(config, source)))


def _check_weights(config: ExperimentConfig, source: ModelSource) -> Iterator[Problem]:
    """Yield why weights are none, or why those still to be fetched will not come, or not fit."""
    first = None if source.random or config.backend == "openai" else _weights_file(source)
    if first is not None:
        yield from _check_weight_files(source, first)
    if are_weights_local(config, source):
        return
    if offline():
        message = (
            "its weights are not in the local cache of the hub, and HF_HUB_OFFLINE forbids to "
            "fetch them; fetch them first, or use weights: random"
        )
        yield Problem(message, key="model", found=source.name)
        return
    cache = hub_cache()
    free = None if cache is None else free_bytes(cache)
    size = checkpoint_bytes(config, source)
    if free is not None and size is not None and size > free:
        message = (
            f"its weights take some {size / 1e9:.0f} GB and {free / 1e9:.0f} GB are free; make "
            "room, or set HF_HOME to a larger disk"
        )
        yield Problem(message, key="model", found=source.name, file=cache)


def _check_weight_files(source: ModelSource, first: Path) -> Iterator[Problem]:
    shards = _shards(first)
    missing = _missing_shards(source, first)
    if missing and source.folder is not None:
        more = ", …" if len(missing) > MAX_NAMED_SHARDS else ""
        names = ", ".join(missing[:MAX_NAMED_SHARDS]) + more
        yield Problem(
            f"{len(missing)} of the {len(shards)} files it names are not there: {names}; fetch "
            "them, or the model again",
            file=first,
        )
    for path in (first, *(_find_file(source, name) for name in shards)):
        if path is not None and (pointer := lfs_pointer_problem(path)) is not None:
            yield Problem(pointer, file=path)
            return


def _weights_file(source: ModelSource) -> Path | None:
    """Return the weights, or the index of their shards: in the model's folder or the cache."""
    paths = (_find_file(source, name) for name in _WEIGHT_FILES)
    return next((path for path in paths if path is not None), None)


def _missing_shards(source: ModelSource, first: Path) -> list[str]:
    """Return the shards that an index names and that are not there."""
    return [name for name in _shards(first) if _find_file(source, name) is None]


def _shards(first: Path) -> list[str]:
    if first.suffix != ".json":
        return []
    try:
        return sorted(set(load_json(first)["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []  # The engine says what is wrong with it.


def _find_file(source: ModelSource, name: str) -> Path | None:
    if source.folder is None:
        return cached_file(source.name, name, source.revision)
    path = source.folder / name
    return path if path.is_file() else None


def _check_memory(
    config: ExperimentConfig,
    source: ModelSource,
    workload: Workload | None,
    cards: tuple[Gpu, ...],
) -> Iterator[Problem]:
    need = memory_need(config, source, workload)
    room = memory_here(config, source, cards)
    if need is None or room is None:
        return
    text, verdict = f"needs {need}, and {room}", room.verdict(need)
    if room.too_small(need):
        advice = "use a smaller model, precision, batch or length, or more GPUs"
        yield Problem(f"{text}; {advice}", key="model", found=config.model)
    elif verdict != FITS:
        yield Problem(f"{text}: {verdict}", key="model", fatal=False)


def _check_length(
    config: ExperimentConfig, source: ModelSource, workload: Workload | None
) -> Iterator[Problem]:
    shape = source.architecture
    if shape is None or workload is None or not workload.requests:
        return
    longest = longest_tokens(config, workload)
    if longest > shape.max_positions:
        message = (
            f"prompt and output take up to {longest} tokens together, and this model is made for "
            f"{shape.max_positions}; lower max_input_tokens or max_output_tokens"
        )
        # Learned positions have a table that ends there; rotary ones only grow worse.
        yield Problem(message, key="max_output_tokens", fatal=shape.learned_positions)
