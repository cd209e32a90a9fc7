"""NVIDIA GPUs by UUID: what is in the machine, and which of them a process would use.

NVML's index is not CUDA's: NVML promises no order, CUDA orders by speed or by PCI bus, and
after CUDA_VISIBLE_DEVICES counts from 0 again. A UUID means one card everywhere.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.machine.host import parse_numbers

_NO_GPU = ("", "-1", "NoDevFiles", "none", "void")
_REQUIRED_NAMES = ("NVML_POWER_SCOPE_GPU", "nvmlDeviceGetCurrentClocksEventReasons")
_BINDINGS_REMEDY = "pip uninstall pynvml; pip install --force-reinstall nvidia-ml-py"


@dataclass(frozen=True)
class Gpu:
    """One card.

    Attributes:
        index: NVML's index, good until the next boot.
        uuid: its name everywhere.
        name: product name.
        pci_bus_id: ``domain:bus:device.function``.
        driver: driver version.
        memory_total_bytes: None where NVML does not say.
        power_limit_w: ``enforced``, ``min``, ``max``, ``default``: those that NVML reports.
        mig_enabled: whether it is partitioned; None where it cannot be.
        compute_capability: ``(major, minor)``; None where NVML does not say.
        unavailable: why nothing but the index is known, if it does not answer.
    """

    index: int
    uuid: str
    name: str
    pci_bus_id: str = ""
    driver: str | None = None
    memory_total_bytes: int | None = None
    power_limit_w: Mapping[str, float] = field(default_factory=dict)
    mig_enabled: bool | None = None
    compute_capability: tuple[int, int] | None = None
    unavailable: str | None = None


@dataclass(frozen=True)
class Inventory:
    """All cards NVML shows, or why it shows none.

    Attributes:
        gpus: in NVML's order.
        driver: driver version.
        unavailable: why there are none.
        remedy: what a person can do about it.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    unavailable: str | None = None
    remedy: str | None = None

    def by_uuids(self, uuids: Sequence[str]) -> tuple[Gpu, ...]:
        """Return the cards of these names, in their order."""
        by_uuid = {gpu.uuid: gpu for gpu in self.gpus}
        return tuple(by_uuid[uuid] for uuid in uuids)


@dataclass(frozen=True)
class Selection:
    """The cards a process would use.

    Attributes:
        gpus: in CUDA's order.
        source: what decided: ``CUDA_VISIBLE_DEVICES``, ``SLURM_STEP_GPUS``, ``--devices``, ``all``.
        warnings: what may make the choice wrong.
    """

    gpus: tuple[Gpu, ...]
    source: str
    warnings: tuple[str, ...] = ()


def discover() -> Inventory:
    """Ask NVML for all cards; a machine without any gives an empty inventory with the reason."""
    import pynvml

    problem = bindings_problem()
    if problem is not None:
        return Inventory(unavailable=problem, remedy=_BINDINGS_REMEDY)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return _failed_start(error)
    driver = nvml_value("nvmlSystemGetDriverVersion")
    count = nvml_value("nvmlDeviceGetCount") or 0
    if count == 0:
        return Inventory(
            driver=driver,
            unavailable="NVML answers, but shows no GPU",
            remedy="ask for a GPU where the job is submitted, or pass it into the container",
        )
    return Inventory(tuple(_describe(index, driver) for index in range(count)), driver)


def expected_gpu(devices: Path = Path("/dev")) -> str | None:
    """Return in words by what a GPU should be here: SLURM's variables, srun(1), or a device.

    CUDA_VISIBLE_DEVICES may be of a user's shell, which jobs inherit.
    """
    job = os.environ.get("SLURM_JOB_ID")
    has_amd = (devices / "kfd").exists()  # SLURM's variables name GPUs of any make
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS") if job and not has_amd else ():
        if os.environ.get(name, "") not in _NO_GPU:
            return f"SLURM gave a GPU to this job, {job} ({name}={os.environ[name]})"
    devices_present = filter(_has_driver, sorted(devices.glob("nvidia[0-9]*")))
    return next((f"there is {file}" for file in devices_present), None)


def _has_driver(device: Path) -> bool:
    """Return whether a driver is behind a device's file, and this process may come to it.

    A driver that is removed leaves its files until the next start of the machine, and a job of
    SLURM sees those of cards that it was not given: its control group refuses them.
    """
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.ENODEV, errno.ENOENT, errno.EPERM)
    return True


def handle(gpu: Gpu) -> Any:
    """Return NVML's handle of a card.

    Raises:
        pynvml.NVMLError: the card does not answer.
    """
    import pynvml

    return pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)


def compute_processes(gpu: Gpu) -> list[int]:
    """Return the ids of the processes with a compute context on a card, as NVML names them.

    Inside a container they may be the host's numbers.

    Raises:
        pynvml.NVMLError: the card does not answer.
    """
    import pynvml

    processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle(gpu))
    return [int(process.pid) for process in processes]


def known_compute_processes(gpu: Gpu) -> list[int]:
    """As :func:`compute_processes`; none where the card does not say."""
    import pynvml

    try:
        return compute_processes(gpu)
    except pynvml.NVMLError:
        return []


def graphics_processes(gpu: Gpu) -> list[int]:
    """Return the ids of the processes that draw on a card; none where the driver cannot say.

    Raises:
        pynvml.NVMLError: the card does not answer.
    """
    import pynvml

    try:
        processes = pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle(gpu))
    except pynvml.NVMLError_NotSupported:
        return []
    return [int(process.pid) for process in processes]


def memory_used_bytes(gpu: Gpu) -> int | None:
    """Return the memory in use on a card; None where it does not say."""
    device = nvml_value("nvmlDeviceGetHandleByUUID", gpu.uuid)
    memory = None if device is None else nvml_value("nvmlDeviceGetMemoryInfo", device)
    return None if memory is None else int(memory.used)


def bindings_problem() -> str | None:
    """Return why the module ``pynvml`` that is imported here is not NVIDIA's own of today.

    Another distribution, ``pynvml`` up to 11.5, installs an old copy under the same name.
    """
    import pynvml

    if all(hasattr(pynvml, name) for name in _REQUIRED_NAMES):
        return None
    return f"the NVML bindings in {pynvml.__file__} are too old, or another package's"


def visible_gpus(inventory: Inventory, environ: Mapping[str, str] | None = None) -> Selection:
    """Return the cards that a CUDA process with this environment would use, in CUDA's order.

    CUDA_VISIBLE_DEVICES is read as the CUDA Programming Guide says: indices or UUID prefixes,
    up to the first that is not there. Without it SLURM_STEP_GPUS and SLURM_JOB_GPUS are asked,
    unless the scheduler already hides the other cards.
    """
    environ = os.environ if environ is None else environ
    answering = tuple(gpu for gpu in inventory.gpus if gpu.unavailable is None)
    if not answering:
        # Whoever looks at them learns why none can be used.
        return Selection(inventory.gpus, "all")
    dead = tuple(
        f"GPU {gpu.index} of NVML does not answer ({gpu.unavailable}): CUDA does not count it"
        for gpu in inventory.gpus
        if gpu.unavailable is not None
    )
    selection = _select(_in_cuda_order(answering), environ)
    return Selection(selection.gpus, selection.source, selection.warnings + dead)


def _select(ordered: Sequence[Gpu], environ: Mapping[str, str]) -> Selection:
    visible_devices = environ.get("CUDA_VISIBLE_DEVICES")
    if visible_devices is not None:
        return _select_listed(visible_devices, ordered, environ)
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS"):
        indices = parse_numbers(environ.get(name, ""))
        available = {gpu.index for gpu in ordered}
        if indices and len(indices) < len(available) and indices <= available:
            chosen = tuple(gpu for gpu in ordered if gpu.index in indices)
            return Selection(chosen, name)
    return Selection(tuple(ordered), "all")


def select_gpus(names: Sequence[str], inventory: Inventory) -> Selection:
    """Return the cards named by UUID, UUID prefix or NVML index.

    Raises:
        ConfigurationError: one of the names fits no card, or more than one.
    """
    chosen: list[Gpu] = []
    for name in names:
        matches = [gpu for gpu in inventory.gpus if name == str(gpu.index) or _fits(name, gpu)]
        if len(matches) != 1:
            available = ", ".join(f"{gpu.index} = {gpu.uuid}" for gpu in inventory.gpus)
            raise ConfigurationError(
                Problem(
                    f"{'no' if not matches else 'more than one'} GPU is named so; there are: "
                    f"{available or inventory.unavailable}",
                    key="devices",
                    found=name,
                )
            )
        if matches[0] not in chosen:
            chosen.append(matches[0])
    return Selection(tuple(chosen), "--devices")


def _failed_start(error: Exception) -> Inventory:
    import pynvml

    if isinstance(error, pynvml.NVMLError_LibraryNotFound):
        return Inventory(
            unavailable="no NVIDIA driver (libnvidia-ml.so.1 is not there)",
            remedy="on a machine with an NVIDIA GPU install its driver; in a container pass the "
            "GPU in (apptainer --nv, docker --gpus); in a cluster's job that was given one try "
            "nvidia-smi: where that fails too, its administrators have to look at the node",
        )
    remedy = (
        "see whether nvidia-smi works; the kernel module and the library must be of one version"
    )
    if isinstance(error, pynvml.NVMLError_NoPermission):
        remedy = (
            "this user may not open /dev/nvidia*: ask for the group that owns them, or for a GPU "
            "of the job"
        )
    return Inventory(unavailable=f"NVML does not start: {error}", remedy=remedy)


def _describe(index: int, driver: str | None) -> Gpu:
    import pynvml

    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(pynvml.nvmlDeviceGetUUID(device))
    except pynvml.NVMLError as error:
        return Gpu(index, f"gpu:{index}", "unknown", driver=driver, unavailable=str(error))
    memory = nvml_value("nvmlDeviceGetMemoryInfo", device)
    pci = nvml_value("nvmlDeviceGetPciInfo", device)
    mig = nvml_value("nvmlDeviceGetMigMode", device)
    return Gpu(
        index=index,
        uuid=uuid,
        name=str(nvml_value("nvmlDeviceGetName", device) or "unknown"),
        pci_bus_id="" if pci is None else _decode(pci.busId).lower(),
        driver=driver,
        memory_total_bytes=None if memory is None else int(memory.total),
        power_limit_w=power_limits_w(device),
        mig_enabled=None if mig is None else mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE,
        compute_capability=nvml_value("nvmlDeviceGetCudaComputeCapability", device),
    )


def power_limits_w(device: Any) -> dict[str, float]:
    """Return the power limits NVML reports of a handle, in W."""
    limits = {
        "enforced": nvml_value("nvmlDeviceGetEnforcedPowerLimit", device),
        "default": nvml_value("nvmlDeviceGetPowerManagementDefaultLimit", device),
    }
    bounds = nvml_value("nvmlDeviceGetPowerManagementLimitConstraints", device)
    if bounds is not None:
        limits["min"], limits["max"] = bounds
    return {name: value / 1000 for name, value in limits.items() if value is not None}


def _in_cuda_order(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    # One that does not say where it sits comes last.
    return tuple(sorted(gpus, key=lambda gpu: (not gpu.pci_bus_id, gpu.pci_bus_id, gpu.index)))


def _select_listed(listed: str, ordered: Sequence[Gpu], environ: Mapping[str, str]) -> Selection:
    chosen: list[Gpu] = []
    warnings: list[str] = []
    for entry in listed.split(","):
        name = entry.strip()
        gpu = _find(name, ordered)
        if gpu is None:
            if name not in _NO_GPU:  # else a way to say that there is none
                warnings.append(
                    f"CUDA_VISIBLE_DEVICES names {name!r}, which is not here: CUDA stops at it"
                )
            break
        if name.startswith("MIG"):
            warnings.append(f"{name} is a part of {gpu.uuid}: energy is that of the whole card")
        elif name.isdecimal() and _ambiguous(ordered, environ):
            warnings.append(
                "the GPUs differ and CUDA_DEVICE_ORDER is not PCI_BUS_ID: CUDA's index may mean "
                "another card; set CUDA_DEVICE_ORDER=PCI_BUS_ID or name them by UUID"
            )
        if gpu not in chosen:
            chosen.append(gpu)
    return Selection(tuple(chosen), "CUDA_VISIBLE_DEVICES", tuple(dict.fromkeys(warnings)))


def _find(name: str, ordered: Sequence[Gpu]) -> Gpu | None:
    if name.isdecimal():
        return ordered[int(name)] if int(name) < len(ordered) else None
    if name.startswith("MIG"):
        return _card_of_slice(name, ordered)
    matches = [gpu for gpu in ordered if _fits(name, gpu)]
    return matches[0] if len(matches) == 1 else None


def _fits(name: str, gpu: Gpu) -> bool:
    return len(name) > len("GPU-") and gpu.uuid.startswith(name)


def _card_of_slice(name: str, ordered: Sequence[Gpu]) -> Gpu | None:
    slice_handle = nvml_value("nvmlDeviceGetHandleByUUID", name)
    if slice_handle is None:
        return None
    card_handle = nvml_value("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", slice_handle)
    uuid = None if card_handle is None else nvml_value("nvmlDeviceGetUUID", card_handle)
    return next((gpu for gpu in ordered if gpu.uuid == uuid), None)


def _ambiguous(ordered: Sequence[Gpu], environ: Mapping[str, str]) -> bool:
    if environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return False
    return len({gpu.name for gpu in ordered}) > 1


def _decode(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def nvml_value(function: str, *arguments: Any) -> Any:
    """Return what a function of NVML says, or None where this card or driver cannot say it."""
    import pynvml

    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError:
        return None
