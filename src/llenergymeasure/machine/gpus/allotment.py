"""The GPUs that one experiment will use, before its engine starts.

The supervisor asks in a process of its own: a driver that hangs must not take it along.
"""

import ctypes
import functools
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llenergymeasure.errors import LlemError
from llenergymeasure.processes import ChildError, RefusedError, call_in_child

if TYPE_CHECKING:
    from llenergymeasure.machine.gpus.inventory import Gpu, Inventory

ASK_LIMIT_S = 60.0
_VISIBLE = "CUDA_VISIBLE_DEVICES"

_PARALLEL_SETTINGS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "prefill_context_parallel_size",
    "context_parallel_size",
    "tp_size",
    "pp_size",
    "dp_size",
)
"""What engines call the ways in which they share the work among GPUs; their product is taken."""


class GpuAllotmentError(LlemError):
    """The GPUs that an experiment asks for are not there, or do not say."""


@dataclass(frozen=True)
class Demand:
    """How many GPUs an experiment computes on.

    Attributes:
        count: so many; None for all that are visible.
        first: place of the first one in CUDA's order, if the study names it; else any will do.
        needed: whether it cannot run without a GPU.
    """

    count: int | None
    first: int | None = None
    needed: bool = False


@dataclass(frozen=True)
class Allotment:
    """The GPUs of one run.

    Attributes:
        uuids: in CUDA's order; empty on a machine without.
        usable: those of which as many will do, the preferred first.
        chosen: whether the engine has to be given them, so that it uses these and no others.
        warnings: what may make the choice wrong.
        memory_used_bytes: in use on each at this moment; those that do not say are left out.
        numbers: CUDA's number of each card here, in the order of the PCI bus; empty where it
            cannot be known.
    """

    uuids: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()
    chosen: bool = False
    warnings: tuple[str, ...] = ()
    memory_used_bytes: Mapping[str, int] = field(default_factory=dict, compare=False)
    numbers: Mapping[str, int] = field(default_factory=dict, compare=False)

    def with_uuids(self, uuids: tuple[str, ...]) -> "Allotment":
        """Return it with these cards, chosen from the usable ones, for its own."""
        used_bytes = {uuid: n for uuid, n in self.memory_used_bytes.items() if uuid in uuids}
        chosen = self.chosen or len(uuids) < len(self.usable)
        return replace(self, uuids=uuids, chosen=chosen, memory_used_bytes=used_bytes)

    def environment(self) -> dict[str, str]:
        """Return what an engine's environment needs so that it uses these GPUs.

        By number where that can be: engines read a UUID as one and end (vllm 20939, sglang 25996).
        """
        names = self.uuids if self.chosen else os.environ.get(_VISIBLE, "").split(",")
        if names and self.numbers.keys() >= set(names):
            cuda_numbers = ",".join(str(self.numbers[uuid]) for uuid in names)
            return {_VISIBLE: cuda_numbers, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return {_VISIBLE: ",".join(self.uuids)} if self.chosen else {}


def demand(config: Mapping[str, Any]) -> Demand:
    """Return how many GPUs a resolved experiment configuration computes on.

    A server that is already running (``openai``) may be on any of them.
    """
    backend = config["backend"]
    section = config.get(backend) or {}
    gpu = config.get("gpu") or {}
    needed = bool(gpu) or backend == "tensorrt"
    if backend == "openai":
        return Demand(None, needed=needed)
    if backend == "pytorch":
        return _pytorch_demand(section, needed)
    settings = section | (section.get("engine") or {}) | (config.get("passthrough_kwargs") or {})
    if settings.get("device") == "cpu":
        return Demand(0)
    count = 1
    for name in _PARALLEL_SETTINGS:
        # SGLang's copies of the attention alone share the GPUs of tensor parallelism.
        if name == "dp_size" and settings.get("enable_dp_attention"):
            continue
        try:
            ways = int(settings.get(name) or 1)
        except (ValueError, TypeError, OverflowError):
            ways = 0
        if ways < 1:  # the engine's own word, or one that it will refuse
            return Demand(None, needed=needed)
        count *= ways
    return Demand(count, needed=needed)


def gpus_needed(config: Mapping[str, Any]) -> int:
    """Return how many GPUs to ask a scheduler for; one where the experiment does not say."""
    devices = (config.get("gpu") or {}).get("devices")
    if devices is not None:
        return len(devices)
    requirement = demand(config)
    return 1 if requirement.count is None else (requirement.first or 0) + requirement.count


def _pytorch_demand(section: Mapping[str, Any], needed: bool) -> Demand:
    device_map = section.get("device_map")
    if device_map is None:
        processes = section.get("num_processes") or section.get("tensor_parallel_size") or 1
        return Demand(int(processes), needed=needed)
    kind, _, number = str(device_map).partition(":")
    if kind == "cpu":
        return Demand(0)
    if kind == "cuda":
        return Demand(1, first=int(number) if number.isdecimal() else None, needed=True)
    return Demand(None, needed=needed)


def fetch_allotment(config: Mapping[str, Any], limit_s: float = ASK_LIMIT_S) -> Allotment:
    """Return the GPUs of an experiment, asked for in a process of its own.

    Raises:
        GpuAllotmentError: those it names are not there, or the driver does not answer.
    """
    if demand(config).count == 0 or not driver_there():
        return Allotment()
    try:
        answer = call_in_child(f"{__name__}:allotment_now", dict(config), limit_s=limit_s)
    except RefusedError as error:
        raise GpuAllotmentError(str(error)) from None
    except ChildError as error:
        raise GpuAllotmentError(
            f"the GPUs cannot be listed: {error}; see whether nvidia-smi does"
        ) from None
    lists = {name: tuple(value) for name, value in answer.items() if isinstance(value, list)}
    return Allotment(**{**answer, **lists})


def discover_if_answered() -> "Inventory":
    """Return what NVML shows, for a process that people or a workflow wait for.

    The driver is asked once in a process of its own before.

    Raises:
        GpuAllotmentError: it does not answer.
    """
    from llenergymeasure.machine.gpus import inventory

    problem = _no_answer_reason()
    if problem is not None:
        raise GpuAllotmentError(problem)
    return inventory.discover()


@functools.cache
def _no_answer_reason() -> str | None:
    """Return why the driver does not answer; None where it does, or there is none."""
    try:
        fetch_allotment({"backend": "openai"})  # of all that are visible
    except GpuAllotmentError as error:
        return str(error)
    return None


def allot(config: Mapping[str, Any], cards: "Inventory | None" = None) -> Allotment:
    """Return the GPUs of an experiment through NVML in this process, as if all were free.

    Raises:
        GpuAllotmentError: those it names are not among those this process may use.
    """
    from llenergymeasure.errors import ConfigurationError
    from llenergymeasure.machine.gpus import inventory

    cards = inventory.discover() if cards is None else cards
    selection = inventory.visible_gpus(cards)
    names = (config.get("gpu") or {}).get("devices")
    if names is not None:
        visible = inventory.Inventory(selection.gpus, cards.driver, cards.unavailable)
        try:
            chosen = inventory.select_gpus([str(name) for name in names], visible)
        except ConfigurationError as error:
            raise GpuAllotmentError(f"gpu.{error}") from error
        uuids = tuple(gpu.uuid for gpu in chosen.gpus)
        return Allotment(uuids, uuids, True, selection.warnings)
    requirement = demand(config)
    usable = tuple(gpu.uuid for gpu in selection.gpus)
    if requirement.first is not None:
        usable = usable[requirement.first :][: requirement.count]
    # A scheduler that has set no more than its own variable leaves the engine unaware of it.
    must_choose = requirement.first is None and selection.source.startswith("SLURM")
    return Allotment(usable[: requirement.count], usable, must_choose, selection.warnings)


def allotted_cards(config: Mapping[str, Any]) -> tuple["Gpu", ...]:
    """Return the GPUs of an experiment as NVML describes them, in CUDA's order.

    Raises:
        GpuAllotmentError: those it names are not among those this process may use.
    """
    from llenergymeasure.machine.gpus import inventory

    cards = inventory.discover()
    return cards.by_uuids(allot(config, cards).uuids)


def allotment_now(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the GPUs of an experiment with what is in use on each: was it all given back later?"""
    from llenergymeasure.machine.gpus import inventory

    cards = inventory.discover()
    allotment = allot(config, cards)
    readings = {
        gpu.uuid: inventory.memory_used_bytes(gpu) for gpu in cards.by_uuids(allotment.usable)
    }
    used_bytes = {uuid: value for uuid, value in readings.items() if value is not None}
    return asdict(replace(allotment, memory_used_bytes=used_bytes, numbers=_cuda_numbers(cards)))


def _cuda_numbers(all_cards: "Inventory") -> dict[str, int]:
    """Return CUDA's number of each card in the order of the PCI bus; none where that is unknown."""
    from llenergymeasure.machine.gpus import inventory

    cards = inventory.visible_gpus(all_cards, {}).gpus
    # Of a partitioned card CUDA counts the parts.
    countable = all(gpu.pci_bus_id and not gpu.mig_enabled for gpu in cards)
    return {gpu.uuid: number for number, gpu in enumerate(cards)} if countable else {}


def number_own_cards() -> None:
    """Have CUDA_VISIBLE_DEVICES name by number what it names by UUID.

    For an engine that Docker starts: its container is given cards by UUID and counts them from 0.
    """
    from llenergymeasure.machine.gpus import inventory

    if "GPU-" in os.environ.get(_VISIBLE, ""):
        os.environ.update(Allotment(numbers=_cuda_numbers(inventory.discover())).environment())


def driver_there() -> bool:
    """Whether NVML's library is; loading it asks the driver nothing yet."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True
