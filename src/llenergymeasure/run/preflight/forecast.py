"""Estimates for a plan's runs before any is made: models, devices, time and memory.

Nothing is fetched; the preflight looks again on the machine where a run is.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError
from llenergymeasure.machine.gpus.allotment import allot, demand, discover_if_answered
from llenergymeasure.machine.gpus.inventory import Gpu, Inventory
from llenergymeasure.machine.gpus.peak_rates import peak
from llenergymeasure.plan.estimate import Device, Estimates, ModelAndDevice, ModelSize, Work
from llenergymeasure.run.preflight.memory import (
    MemoryNeed,
    Room,
    bytes_per_weight,
    engine_setting,
    memory_here,
    memory_need,
    model_copies,
    model_parts,
    places_layers_freely,
)
from llenergymeasure.run.preflight.model_checks import are_weights_local, checkpoint_bytes
from llenergymeasure.workload.models.hub import built_in_suggestion, cached_file
from llenergymeasure.workload.models.known import known_architecture
from llenergymeasure.workload.models.resolve import (
    ModelSource,
    is_hub_id,
    requested_revision,
    resolve_model,
)
from llenergymeasure.workload.requests import Workload

MAX_MEMORY_LINES = 20
"""Most lines about memory; the largest needs come first."""

CORE_FLOPS_PER_S, CORE_BYTES_PER_S, CPU_BYTES_PER_S = 1e10, 5e9, 1e11
"""A guess at one core's operations and bytes read per second, and at the whole CPU's bytes."""


class Forecast:
    """Looks at the machine and at each model once, for all runs of a plan."""

    def __init__(self, *, local: bool = True, job_bytes: int | None = None) -> None:
        """Say where the runs will be made.

        Args:
            local: on this machine; else in jobs of a cluster whose machines are not known.
            job_bytes: how much of its machine's memory such a job is given.
        """
        self._is_local = local
        self._job_bytes = job_bytes
        self._sources: dict[str, ModelSource | str] = {}
        self._cards: dict[str, tuple[Gpu, ...] | str] = {}
        self.estimates = Estimates(self.facts)

    def facts(self, config: ExperimentConfig) -> ModelAndDevice:
        """Return what is known of an experiment's model and device."""
        cards = self._cards_for(config)
        facts = model_and_device(
            config, self._source(config), () if isinstance(cards, str) else cards
        )
        if not self._is_local:
            device_kind = "GPUs" if isinstance(cards, str) else "processors"
            return replace(facts, device=f"the speed of the cluster's {device_kind}")
        return replace(facts, device="its GPU's speed") if isinstance(cards, str) else facts

    def memory_lines(
        self, configs: Sequence[Mapping[str, Any]], labels: Sequence[str] = ()
    ) -> Iterator[str]:
        """Yield the least memory that the experiments need, and whether it is available.

        Args:
            configs: the experiments' configurations.
            labels: their names for people; without them they are only counted.
        """
        needs: dict[tuple[int, int, int], tuple[int, str]] = {}
        labels_by_need: dict[tuple[int, str], list[str]] = {}
        for config, label in zip(configs, labels or [""] * len(configs), strict=True):
            key = self.estimates.memory_key(config)
            if key not in needs:
                needs[key] = self._memory_text(self.estimates.config(config))
            labels_by_need.setdefault(needs[key], []).append(label)
        largest_first = sorted(labels_by_need.items(), reverse=True)
        for (_, text), names in largest_first[:MAX_MEMORY_LINES]:
            count = f"{len(names)} experiment{'' if len(names) == 1 else 's'}"
            yield f"  {names[0] if len(names) == 1 and names[0] else count}: {text}"
        remaining = sum(len(names) for _, names in largest_first[MAX_MEMORY_LINES:])
        if remaining:
            yield f"  … and {remaining} experiments that need no more than the last of these"

    def job_memory_need(self, config: ExperimentConfig) -> int | None:
        """Return the least bytes of its machine's memory that an experiment needs.

        None where it computes on GPUs, or the model is not known here.
        """
        need, source = self._need(config), self._source(config)
        if isinstance(need, str) or isinstance(source, str) or self._cards_for(config) != ():
            return None
        return need.bytes * model_copies(config, source)

    def _memory_text(self, config: ExperimentConfig) -> tuple[int, str]:
        """Return the bytes that an experiment needs, and a text on whether they are available."""
        if config.backend == "openai":
            return 0, "what the server needs is its own to know"
        need, cards = self._need(config), self._cards_for(config)
        if isinstance(need, str):
            return 0, f"not known here: {need}"
        if not self._is_local and isinstance(cards, str):
            return need.bytes, f"{need}; {cards} is not known here"
        if isinstance(cards, str):
            return 0, f"not known here: {cards}"
        source = self._source(config)
        room = None if isinstance(source, str) else self._room(config, source, cards)
        if room is None:
            return need.bytes, f"{need}; the memory there is not known here"
        return need.bytes, f"{need}; {room}: {room.verdict(need)}"

    def _room(
        self, config: ExperimentConfig, source: ModelSource, cards: tuple[Gpu, ...]
    ) -> Room | None:
        if self._is_local:
            return memory_here(config, source, cards)
        if self._job_bytes is None:
            return None
        return Room(self._job_bytes // model_copies(config, source), "the job's memory (mem_mb)")

    def _need(self, config: ExperimentConfig) -> MemoryNeed | str:
        source = self._source(config)
        if isinstance(source, str):
            return source
        need = memory_need(config, source, None)
        return "the dimensions of this model's family are not known" if need is None else need

    def _cards_for(self, config: ExperimentConfig) -> tuple[Gpu, ...] | str:
        """Return the GPUs of an experiment, none where it computes on the CPU; or why not known."""
        key_fields = {"backend", "gpu", "passthrough_kwargs", config.backend}
        key = config.model_dump_json(include=key_fields)
        if key not in self._cards:
            self._cards[key] = self._allot_cards(config.model_dump(exclude_none=True))
        return self._cards[key]

    def _allot_cards(self, content: Mapping[str, Any]) -> tuple[Gpu, ...] | str:
        gpu_demand = demand(content)
        if gpu_demand.count == 0:
            return ()
        if not self._is_local:
            return "the memory of the cluster's GPUs"
        try:
            cards = self._inventory.by_uuids(allot(content, self._inventory).uuids)
        except LlemError as error:
            return str(error)
        if not cards and (gpu_demand.needed or content["backend"] not in ("pytorch", "openai")):
            return "it needs a GPU, and this machine has none"
        return cards

    @cached_property
    def _inventory(self) -> Inventory:
        return discover_if_answered()

    def _source(self, config: ExperimentConfig) -> ModelSource | str:
        """Return where an experiment's model comes from, asked once each; or why not known."""
        key_fields = {"model", "weights", "backend", "passthrough_kwargs", config.backend}
        key = config.model_dump_json(include=key_fields)
        if key not in self._sources:
            try:
                self._sources[key] = _offline_source(config) or resolve_model(config)
            except LlemError as error:
                self._sources[key] = str(error).splitlines()[0]
            except ImportError as error:
                self._sources[key] = f"{error.name} is not installed"
        return self._sources[key]


def model_and_device(
    config: ExperimentConfig, source: ModelSource | str | None, cards: tuple[Gpu, ...]
) -> ModelAndDevice:
    """Return the model's size and the device's speed, for an estimate of time."""
    return ModelAndDevice(_model_size(config, source), _device(config, cards))


def estimated_work(config: ExperimentConfig, workload: Workload | None) -> Work:
    """Return the work of an experiment; without its requests, as the configuration says."""
    work = Work.from_config(config, config.model_dump(exclude_none=True))
    if workload is None or not workload.requests:
        return work
    longest_output = max(request.max_output_tokens for request in workload.requests)
    longest_input = max(
        workload.longest_in_trace_tokens - longest_output,
        *(len(request.prompt_token_ids) for request in workload.requests),
    )
    return Work(len(workload.requests), longest_input, longest_output, work.at_once)


def _model_size(config: ExperimentConfig, source: ModelSource | str | None) -> ModelSize | str:
    if not isinstance(source, ModelSource) or source.architecture is None:
        return f"the size of {config.model}"
    shape = source.architecture
    local = are_weights_local(config, source)
    to_fetch_bytes = 0.0 if local else checkpoint_bytes(config, source) or 0.0
    idle_experts = max(0, shape.experts - shape.experts_per_token)
    return ModelSize(
        parameters=shape.parameters() - shape.layers * idle_experts * shape.mlp_weights(),
        weights_bytes=shape.parameters() * bytes_per_weight(config, source),
        layers=shape.layers,
        to_fetch_bytes=to_fetch_bytes,
    )


def _device(config: ExperimentConfig, cards: tuple[Gpu, ...]) -> Device | str:
    if not cards:
        cores = len(os.sched_getaffinity(0))
        read_bytes_per_s = min(CPU_BYTES_PER_S, cores * CORE_BYTES_PER_S)
        return Device(f"{cores} processors", cores * CORE_FLOPS_PER_S, read_bytes_per_s)
    if places_layers_freely(config) or engine_setting(config, "cpu_offload_gb"):
        return "the speed of what is kept outside the GPU"
    rate = peak(cards[0].name)
    if rate is None:
        return f"the speed of GPU {cards[0].name}"
    # Processes of pytorch each do a share of the requests; layers on several cards take turns.
    at_once = model_parts(config) if config.backend == "pytorch" else len(cards)
    return Device(cards[0].name, at_once * rate.flops_per_s, at_once * rate.bytes_per_s)


def _offline_source(config: ExperimentConfig) -> ModelSource | str | None:
    """Return what is known of a model that only the hub could describe: a plan does not ask it.

    None for one that is here: built in, in a folder, or in the hub's cache.
    """
    name = config.model
    if config.weights == "random" or not is_hub_id(name):
        return None
    if cached_file(name, "config.json", requested_revision(config)) is not None:
        return None
    architecture = known_architecture(name)
    if architecture is None:
        return f"the preflight fetches its dimensions from the hub{built_in_suggestion(name)}"
    return ModelSource(name, name, False, {}, architecture)
