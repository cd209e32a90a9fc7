"""Whether a plan's models fit into this machine's memory, as text for people."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError
from llenergymeasure.machine.gpus.allotment import allot, demand
from llenergymeasure.machine.gpus.inventory import Gpu, discover
from llenergymeasure.run.preflight.model_checks import memory_verdict
from llenergymeasure.workload.models.hub import cached_file
from llenergymeasure.workload.models.known import TINY_LLAMA, known_architecture
from llenergymeasure.workload.models.resolve import ModelSource, looks_like_folder, resolve_model

_MEANS = {
    "fits": "fits",
    "tight": "tight, activations may no longer fit",
    "spills": "what is too much goes to slower memory",
    "too large": "too large, the preflight will refuse it",
}


def memory_lines(configs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the experiments need at the least and whether this machine has it.

    Like the preflight, which looks again on the machine where a run is.

    Args:
        configs: the resolved configuration of each experiment.
    """
    inventory = discover()
    by_uuid = {gpu.uuid: gpu for gpu in inventory.gpus}
    sources: dict[str, ModelSource | str] = {}
    told = Counter(_told(config, by_uuid, sources) for config in configs)
    for line, count in told.items():
        experiments = "1 experiment" if count == 1 else f"{count} experiments"
        yield f"  {experiments}: {line}"


def _told(
    content: Mapping[str, Any], by_uuid: Mapping[str, Gpu], sources: dict[str, ModelSource | str]
) -> str:
    config = ExperimentConfig.model_validate(content)
    if config.backend == "openai":
        return "a server that runs already has its memory"
    source = _source(config, sources)
    if isinstance(source, str):
        return f"not known here: {source}"
    try:
        cards = tuple(by_uuid[uuid] for uuid in allot(content).uuids)
    except LlemError as error:
        return f"not known here: {error}"
    wanted = demand(content)
    if not cards and (wanted.needed or (config.backend != "pytorch" and wanted.count != 0)):
        return "not known here: it needs a GPU, and this machine has none"
    found = memory_verdict(config, source, None, cards)
    if found is None:
        return "not known here: the dimensions of this model's family are not known"
    return f"{found.need}; {found.room}: {_MEANS[found.verdict]}"


def _source(config: ExperimentConfig, sources: dict[str, ModelSource | str]) -> ModelSource | str:
    """Return where an experiment's model comes from, asked once each; or why it is not known."""
    told = {"model", "weights", "backend", "passthrough_kwargs", config.backend}
    key = config.model_dump_json(include=told)
    if key not in sources:
        try:
            sources[key] = _known_here(config) or resolve_model(config)
        except LlemError as error:
            sources[key] = str(error).splitlines()[0]
        except ImportError as error:
            sources[key] = f"{error.name} is not installed"
    return sources[key]


def _known_here(config: ExperimentConfig) -> ModelSource | str | None:
    """Return what is known of a model that would have to be asked for on the hub; a plan does not.

    Null for one that is here: built in, in a folder, or in the hub's cache.
    """
    name = config.model
    if config.weights == "random" or name == TINY_LLAMA or looks_like_folder(name):
        return None
    if "/" not in name or cached_file(name, "config.json", None) is not None:
        return None
    architecture = known_architecture(name)
    if architecture is None:
        return "the hub has its dimensions; the preflight fetches them"
    return ModelSource(name, name, False, {}, architecture)
