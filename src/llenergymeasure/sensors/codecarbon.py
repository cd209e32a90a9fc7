"""The host's CPU and memory as CodeCarbon models them: an estimate, never a measurement.

CodeCarbon's own hardware classes are asked, without its tracker: nothing is written, located or
looked up on a network. Where no counter can be read its CPU model is the thermal design power
times (0.1 + 0.9 load^3), with the power from its table of CPUs or 4 W a thread for a CPU it does
not know; its memory model knows only how much memory there is. CPU and memory are two devices
that do not overlap.
"""

import contextlib
import importlib.util
import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from llenergymeasure.machine.host import cpu, model_name
from llenergymeasure.sensors.base import Channel, Every, Sensor, SensorError, SensorInfo, Value

NAME = "codecarbon"
PERIOD_S = 0.25
_PACE = Every(PERIOD_S)
_CPU = "cpu"
_MEMORY = "dram"
_JOB_NUMBERS = ("SLURM_JOB_ID", "SLURM_JOBID")
"""Variables by which CodeCarbon knows a job of SLURM, which sets both (codecarbon/core/util.py)."""


class CodecarbonSensor(Sensor):
    """The modelled power of the whole host's CPU and memory."""

    def __init__(self) -> None:
        models: list[_Model] = []
        reason = remedy = None
        if importlib.util.find_spec("codecarbon") is None:
            reason = "the package codecarbon is not installed here"
            remedy = "pip install codecarbon"
        else:
            try:
                with _quiet(), _outside_slurm():
                    models = _models()
            except Exception as error:  # whatever a third party's probing may raise
                reason = f"codecarbon cannot model this host: {error}"
        name = "host CPU and memory"
        missing = SensorInfo(
            _CPU, name, NAME, "estimated", "cpu", unavailable=reason, remedy=remedy
        )
        super().__init__(
            [model.info for model in models] or [missing],
            [
                Channel(model.info.device, NAME, ("power_model_w",), model.read, _PACE)
                for model in models
            ],
        )


class _Model:
    """A modelled power, as the mean since the read before."""

    def __init__(self, info: SensorInfo, power_w: Callable[[], float]) -> None:
        self.info = info
        self._power_w = power_w
        self._read_ns = time.monotonic_ns()

    def read(self) -> tuple[Value, ...]:
        try:
            with _quiet():
                power_w = self._power_w()
        except Exception as error:  # as above
            raise SensorError(f"codecarbon: {error}") from error
        if not 0 < power_w < float("inf"):
            raise SensorError("codecarbon gives no power for it")
        last_ns, self._read_ns = self._read_ns, time.monotonic_ns()
        return (Value("power_model_w", power_w, span_ns=self._read_ns - last_ns),)


def _models() -> list[_Model]:
    processor, cpu_note = _cpu()
    memory, memory_note = _memory()
    processor.start()
    return [
        _Model(_info(_CPU, "host CPU", cpu_note), lambda: processor.total_power().W),
        _Model(_info(_MEMORY, "host memory", memory_note), lambda: memory.total_power().W),
    ]


def _info(device: str, name: str, note: str) -> SensorInfo:
    return SensorInfo(
        device=device,
        name=name,
        sensor=NAME,
        kind="estimated",
        scope="cpu" if device == _CPU else "dram",
        quantities=("power_model_w",),
        update_period_s=PERIOD_S,
        note=note,
    )


def _cpu() -> tuple[Any, str]:
    """Return CodeCarbon's CPU model in load mode, set up as its tracker does, and its terms."""
    from codecarbon.external.hardware import CPU, MODE_CPU_LOAD

    name, design_w, source = _design_power()
    model = CPU.from_utils("", MODE_CPU_LOAD, name, design_w, tracking_mode="machine")
    note = f"model: {design_w:g} W x (0.1 + 0.9 load^3), load of the whole host; {name}, {source}"
    return model, note


def _design_power() -> tuple[str, float, str]:
    """Return the CPU's name, all sockets' design power in W, and where that is from."""
    from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP
    from codecarbon.core.util import count_cpus, count_physical_cpus

    class KnownName(TDP):  # type: ignore[misc]
        """CodeCarbon's table, asked for a known name: finding the name takes it seconds."""

        def __init__(self, model: str) -> None:
            self.model = model
            self.tdp = self._get_cpu_power_from_registry(model)

    name = model_name() or str(TDP().model)
    socket_w = KnownName(name).tdp
    if socket_w is not None:
        # CodeCarbon counts one where lscpu is missing, as in images, or speaks another language.
        sockets = cpu()["sockets"] or count_physical_cpus()
        source = f"{sockets} x {socket_w:g} W from codecarbon's table"
        return name, float(socket_w * sockets), source
    threads = count_cpus()
    source = f"not in codecarbon's table: {DEFAULT_POWER_PER_CORE} W x {threads} threads"
    return name, float(threads * DEFAULT_POWER_PER_CORE), source


def _memory() -> tuple[Any, str]:
    from codecarbon.external.ram import RAM

    model = RAM(tracking_mode="machine")
    note = f"model: fixed power for {model.machine_memory_GB:.0f} GB by a guessed count of modules"
    return model, note


@contextlib.contextmanager
def _outside_slurm() -> Iterator[None]:
    """Set what CodeCarbon reads from the environment when it is imported.

    In a job of SLURM it would take the job's share of processors and memory, by asking scontrol,
    for the whole host's, and in the job's container, where there is no scontrol, the host's own;
    it does not know that it is in one.
    """
    os.environ["CODECARBON_LOG_LEVEL"] = "critical"
    job = {name: os.environ.pop(name) for name in _JOB_NUMBERS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(job)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep CodeCarbon's and its imports' messages off the recorder's output."""
    logger = logging.getLogger("codecarbon")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
