"""Whether the GPUs of a run are there, free, and set as a comparable result needs them."""

from collections.abc import Iterator
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.allotment import GpuAllotmentError, allot, demand
from llenergymeasure.machine.gpus.inventory import Gpu, discover
from llenergymeasure.machine.gpus.state import SLOWED, gpu_state
from llenergymeasure.sensors.base import SensorError
from llenergymeasure.sensors.foreign_processes import RunProcesses

IN_USE_BYTES = 1_500_000_000
"""A driver keeps some hundred MB of an idle card to itself; more than this is somebody's."""


class GpuChecks:
    """Looks at the GPUs of one run before it uses them."""

    def __init__(self, config: ExperimentConfig, run_pid: int) -> None:
        """Take the experiment, and the process at the root of the run's tree."""
        self._config = config
        self._plain = config.model_dump(exclude_none=True)
        self._run_pid = run_pid
        self.cards: tuple[Gpu, ...] = ()
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def look(self) -> None:
        """Fill ``cards``, ``errors`` and ``warnings``; nothing on a machine without a GPU."""
        if demand(self._plain).count == 0:
            return
        inventory = discover()
        try:
            allotment = allot(self._plain)
        except GpuAllotmentError as error:
            self.errors.append(Problem(str(error)))
            return
        by_uuid = {gpu.uuid: gpu for gpu in inventory.gpus}
        self.cards = tuple(by_uuid[uuid] for uuid in allotment.uuids)
        self.warnings += [Problem(text) for text in allotment.warnings]
        self.errors += self._missing(inventory.unavailable, inventory.remedy)
        running = RunProcesses(self._run_pid)
        for card in self.cards:
            self._look_at(card, running)

    def _missing(self, unavailable: str | None, remedy: str | None) -> Iterator[Problem]:
        wanted = demand(self._plain)
        there = len(self.cards)
        if wanted.needed and there == 0:
            why = unavailable or "CUDA_VISIBLE_DEVICES or the scheduler hides them all"
            key = "gpu" if self._config.gpu is not None else "backend"
            yield Problem(f"needs a GPU: {why}{f'; {remedy}' if remedy else ''}", key=key)
        elif there and wanted.count is not None and there < wanted.count:
            yield Problem(
                f"needs {wanted.count} GPUs, and {there} can be used here; lower the parallelism, "
                "or make more visible (CUDA_VISIBLE_DEVICES)",
                key=self._config.backend,
            )

    def _look_at(self, card: Gpu, running: RunProcesses) -> None:
        state = gpu_state(card)
        if "unavailable" in state:
            self.errors.append(
                Problem(f"GPU {card.uuid} does not answer: {state['unavailable']}; see nvidia-smi")
            )
            return
        # A server that is already running is at work on the card by right.
        if self._config.backend != "openai":
            self._in_use(card, state, running)
        self.warnings += _settings(card, state, self._asked_w())

    def _asked_w(self) -> float | None:
        return self._config.gpu.power_limit_w if self._config.gpu else None

    def _in_use(self, card: Gpu, state: dict[str, Any], running: RunProcesses) -> None:
        try:
            strangers = running.strangers(card)
        except SensorError as error:
            self.warnings.append(Problem(f"GPU {card.uuid} does not say who uses it: {error}"))
            return
        if strangers:
            names = ", ".join(f"{one.name} (pid {one.pid})" for one in strangers)
            self.errors.append(
                Problem(
                    f"GPU {card.uuid} is in use by {names}: its energy would be counted as the "
                    "run's; end it, or choose another GPU (CUDA_VISIBLE_DEVICES or gpu.devices)"
                )
            )
            return
        used = state["memory_used_bytes"]
        if used is not None and used > IN_USE_BYTES:
            self.warnings.append(
                Problem(
                    f"GPU {card.uuid} has {used / 1e9:.1f} GB in use, and no process is named for "
                    "it: one may be hidden in another container, or have died and left it"
                )
            )


def _settings(card: Gpu, state: dict[str, Any], asked_w: float | None) -> Iterator[Problem]:
    name = f"GPU {card.uuid}"
    if state["mig"] is not None and state["mig"]["current"]:
        yield Problem(
            f"{name} is partitioned (MIG): its sensor sees the whole card, so that the energy of "
            "one part cannot be separated from the others'"
        )
    if state["persistence_mode"] is False:
        yield Problem(
            f"{name} is not in persistence mode: the driver may unload between runs, which changes "
            "idle power and start-up; nvidia-smi -pm 1, as root"
        )
    limit_w, default_w = state["power_limit_w"], state["power_limits_w"].get("default")
    if None not in (limit_w, default_w) and limit_w not in (default_w, asked_w):
        yield Problem(
            f"{name} has a power limit of {limit_w:g} W, its default is {default_w:g} W: results "
            "will differ from those of a card as delivered"
        )
    clocks, usual = state["application_clocks_mhz"], state["application_clocks_default_mhz"]
    if None not in (clocks, usual) and clocks != usual:
        yield Problem(
            f"{name} has its application clocks at {_megahertz(clocks)}, not at its default "
            f"{_megahertz(usual)}"
        )
    slowed = sorted(SLOWED & set(state["throttle_reasons"] or ()))
    if slowed:
        yield Problem(f"{name} is slowed down before the run begins: {', '.join(slowed)}")
    yield from _ecc(name, state["ecc"])


def _ecc(name: str, ecc: dict[str, bool] | None) -> Iterator[Problem]:
    if ecc is None:
        return
    if not ecc["current"]:
        yield Problem(f"{name} has ECC off: memory is larger and faster than with it")
    if ecc["current"] != ecc["pending"]:
        state = "on" if ecc["pending"] else "off"
        yield Problem(f"{name} will have ECC {state} after its next reset: cycles may then differ")


def _megahertz(clocks: dict[str, int]) -> str:
    return " and ".join(f"{mhz} MHz ({domain})" for domain, mhz in sorted(clocks.items()))
