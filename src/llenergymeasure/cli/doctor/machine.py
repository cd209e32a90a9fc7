"""The GPUs and what can tell their energy, and the host's."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llenergymeasure.api.sensors import sensors_report
from llenergymeasure.cli.doctor.finding import Finding
from llenergymeasure.errors import LlemError
from llenergymeasure.machine.gpus.inventory import Gpu, compute_processes, discover, visible
from llenergymeasure.machine.gpus.state import cuda_driver_version

_GIB = 1024**3


def gpus() -> Iterator[Finding]:
    """Look at the cards NVML shows, and which of them a run would use."""
    inventory = discover()
    if not inventory.gpus:
        yield Finding("NVIDIA GPUs", "absent", str(inventory.unavailable), inventory.remedy)
        return
    cuda = cuda_driver_version()
    yield Finding(
        "NVIDIA driver",
        "ok",
        f"{inventory.driver}{'' if cuda is None else f', CUDA up to {cuda}'}",
    )
    for gpu in inventory.gpus:
        yield _card(gpu)
    try:
        chosen = visible(inventory)
    except LlemError as error:
        yield Finding("GPUs of a run", "wrong", str(error))
        return
    names = ", ".join(gpu.uuid for gpu in chosen.gpus) or "none"
    yield Finding("GPUs of a run", "ok", f"{names} (by {chosen.source})")
    for warning in chosen.warnings:
        yield Finding("GPUs of a run", "wrong", warning)


def _card(gpu: Gpu) -> Finding:
    name = f"GPU {gpu.index}"
    if gpu.unavailable is not None:
        return Finding(name, "wrong", f"{gpu.uuid}: {gpu.unavailable}")
    memory = "" if gpu.memory_total_bytes is None else f", {gpu.memory_total_bytes / _GIB:.0f} GiB"
    mig = ", partitioned (MIG)" if gpu.mig_enabled else ""
    detail = f"{gpu.name}, {gpu.uuid}{memory}{mig}"
    try:
        others = compute_processes(gpu)
    except LlemError:
        others = []
    if others:
        pids = ", ".join(str(each.pid) for each in others)
        remedy = "a run refuses a GPU on which another process computes: end it, or use another"
        return Finding(name, "wrong", f"{detail}; in use by process {pids}", remedy)
    return Finding(name, "ok", detail)


def sensors() -> Iterator[Finding]:
    """Try every sensor, as ``llem sensors`` does."""
    try:
        found = sensors_report()["sensors"]
    except LlemError as error:
        yield Finding("recorder", "wrong", str(error))
        return
    by_sensor: dict[str, list[Mapping[str, Any]]] = {}
    for each in found:
        by_sensor.setdefault(each["sensor"], []).append(each)
    for name, its in by_sensor.items():
        yield _sensor(name, its)
    if not any(each["kind"] == "measured" and each["unavailable"] is None for each in found):
        yield Finding(
            "a measurement",
            "absent",
            "no sensor measures here: energy can only be estimated",
            "that is enough to try things out; for numbers to publish use a machine with a sensor",
        )


def _sensor(name: str, its: Sequence[Mapping[str, Any]]) -> Finding:
    working = [each for each in its if each["unavailable"] is None]
    if working:
        told = ", ".join(f"{each['device']} ({each['kind']})" for each in working)
        return Finding(name, "ok", told)
    first = its[0]
    refused = "permission" in str(first["unavailable"]).lower()
    return Finding(
        name,
        "wrong" if refused else "absent",
        str(first["unavailable"]),
        _remedy(name, first["remedy"]),
    )


def _remedy(name: str, remedy: str | None) -> str | None:
    """Return what would help; to install what is installed would not."""
    if remedy is None or "pip install" not in remedy:
        return remedy
    return None if importlib.util.find_spec(name) is not None else remedy
