"""Whether the GPUs of a run are there, free, and set as a comparable result needs them."""

from collections.abc import Iterator, Sequence
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.allotment import Demand
from llenergymeasure.machine.gpus.inventory import Gpu, Inventory
from llenergymeasure.machine.gpus.state import gpu_state, unlike_delivered
from llenergymeasure.sensors.base import SensorError
from llenergymeasure.sensors.foreign_processes import RunProcesses

IN_USE_BYTES = 1_500_000_000
"""A driver keeps some hundred MB of an idle card to itself; more than this is somebody's."""


def check_gpu_count(
    config: ExperimentConfig, wanted: Demand, inventory: Inventory, there: int
) -> Iterator[Problem]:
    """Yield that fewer GPUs are there than the experiment computes on."""
    if wanted.needed and there == 0:
        why = inventory.unavailable or "CUDA_VISIBLE_DEVICES or the scheduler hides them all"
        remedy = f"; {inventory.remedy}" if inventory.remedy else ""
        key = "gpu" if config.gpu is not None else "backend"
        yield Problem(f"needs a GPU: {why}{remedy}", key=key)
    elif there and wanted.count is not None and there < wanted.count:
        yield Problem(
            f"needs {wanted.count} GPUs, and {there} can be used here; lower the parallelism, "
            "or make more visible (CUDA_VISIBLE_DEVICES)",
            key=config.backend,
        )


def check_gpus(
    config: ExperimentConfig, cards: Sequence[Gpu], run_pid: int, *, loaded: bool = False
) -> Iterator[Problem]:
    """Yield what keeps each card from being measured, or makes it unlike one as delivered."""
    running = RunProcesses(run_pid)
    asked_w = config.gpu.power_limit_w if config.gpu else None
    for card in cards:
        name, state = f"GPU {card.uuid}", gpu_state(card)
        if "unavailable" in state:
            yield Problem(f"{name} does not answer: {state['unavailable']}; see nvidia-smi")
            continue
        # A server that is already running may use the card.
        if not config.external_server:
            yield from _in_use(name, card, state, running, loaded=loaded)
        for text in unlike_delivered(state, asked_w):
            yield Problem(f"{name} {text}", fatal=False)


def _in_use(
    name: str, card: Gpu, state: dict[str, Any], running: RunProcesses, *, loaded: bool
) -> Iterator[Problem]:
    try:
        strangers = running.strangers(card)
    except SensorError as error:
        yield Problem(f"{name} does not say who uses it: {error}", fatal=False)
        return
    used = state["memory_used_bytes"]
    if strangers:
        names = ", ".join(f"{one.name} (pid {one.pid})" for one in strangers)
        yield Problem(
            f"{name} is in use by {names}: its energy would be counted as the "
            "run's; end it, or choose another GPU (CUDA_VISIBLE_DEVICES or gpu.devices)"
        )
    elif used is not None and used > IN_USE_BYTES and not loaded:
        yield Problem(
            f"{name} has {used / 1e9:.1f} GB in use, and no process is named for "
            "it: one may be hidden in another container, or have died and left it",
            fatal=False,
        )
