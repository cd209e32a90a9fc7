"""Whether the GPUs and CPUs of a run are there, free, and set as a comparable result needs them."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.allotment import Demand
from llenergymeasure.machine.gpus.inventory import Gpu, Inventory
from llenergymeasure.machine.gpus.state import gpu_state, unlike_delivered
from llenergymeasure.sensors.base import SensorError
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import OTHERS_MAX, HostCpu

IN_USE_BYTES = 1_500_000_000
"""A driver keeps some hundred MB of an idle card to itself; more than this is somebody's."""

LEAST_S = 0.5
"""Shorter looks say little: the kernel counts in ticks of 10 ms."""
NAMED = 3


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


class CpuWatch:
    """Looks whether others use the CPUs while the rest of the preflight is made."""

    def __init__(self, host: HostCpu) -> None:
        """Take what reads the CPUs, and look a first time."""
        self._host = host
        self._began_s = time.monotonic()
        self._before = self._look()

    @classmethod
    def of_run(cls, run_pid: int) -> "CpuWatch":
        """Return one for the run whose process tree has this root."""
        return cls(HostCpu(RunProcesses(run_pid)))

    def warnings(self) -> Iterator[Problem]:
        """Yield what others use, if that is more than leaves a run as it is alone."""
        time.sleep(max(0.0, LEAST_S - (time.monotonic() - self._began_s)))
        after = self._look()
        if self._before is None or after is None:
            return
        (totals_before, each_before), (totals, each) = self._before, after
        rose = {name: totals[name] - totals_before[name] for name in totals_before}
        used_s = rose["cpu_busy_s"] - rose["cpu_own_s"]
        share = used_s / rose["cpu_total_s"] if rose["cpu_total_s"] else 0.0
        if share <= OTHERS_MAX:
            return
        took = {pid: each[pid] - each_before.get(pid, 0.0) for pid in each}
        most = sorted(took, key=lambda pid: took[pid], reverse=True)[:NAMED]
        names = [f"{self._host.name(pid)} (pid {pid})" for pid in most if took[pid] > 0]
        who = f": {', '.join(names)}" if names else ""
        yield Problem(
            f"at the start other processes used {share:.0%} of the CPUs{who}; beyond "
            f"{OTHERS_MAX:.0%} a run gets slower and costs more than it would alone: end them "
            "or wait",
            fatal=False,
        )

    def _look(self) -> tuple[dict[str, float], dict[int, float]] | None:
        try:
            totals = self._host.totals()
        except SensorError:
            return None
        counts = {each.quantity: each.value for each in totals if each.value is not None}
        return {str(name): value for name, value in counts.items()}, self._host.others()
