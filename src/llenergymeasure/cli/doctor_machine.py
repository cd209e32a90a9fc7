"""What ``llem doctor`` looks at of the machine: GPUs, sensors, engines, containers."""

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from llenergymeasure.api.sensors import has_measuring_sensor, sensors_report
from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.containers.calls import ContainerError, call
from llenergymeasure.containers.container_setup import nvidia_here
from llenergymeasure.containers.docker import CDI_FOLDERS, Engine, find_engine
from llenergymeasure.containers.runner_choice import (
    apptainer_command,
    automatic_container_runner,
    docker_command,
)
from llenergymeasure.errors import LlemError
from llenergymeasure.installation import install_command
from llenergymeasure.machine.gpus.allotment import discover_if_answered
from llenergymeasure.machine.gpus.inventory import (
    Gpu,
    compute_processes,
    expected_gpu,
    visible_gpus,
)
from llenergymeasure.machine.gpus.state import (
    cuda_driver_version,
    gpu_state,
    megahertz,
    unusual_settings,
)
from llenergymeasure.processes import ChildError, run_to_end

GIB = 1024**3
COMMAND_TIMEOUT_S = 30.0
"""For a command that asks another program how it is."""

IMPORT_LIMIT_S = 180.0
"""Engines read gigabytes of libraries on a first import from a network disk."""

_IMPORT_CODE = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    found[name] = str(getattr(module, "__version__", "?"))
torch = sys.modules.get("torch")
cuda = None if torch is None else bool(torch.cuda.is_available())
built = None if torch is None else torch.version.cuda
print("\\n" + json.dumps({"versions": found, "cuda": cuda, "built": built}))
"""

State = Literal["ok", "absent", "wrong"]
"""It works; it is not here, which may be as it should; it is here or needed, and does not work."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: whether it works.
        detail: what was seen.
        remedy: what would make it work; None where nothing has to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str | None = None


def gpus() -> Iterator[Finding]:
    """Look at the cards NVML shows, and which of them a run would use."""
    try:
        inventory = discover_if_answered()
    except LlemError as error:
        yield Finding("NVIDIA driver", "wrong", str(error), "load the driver again, or reboot")
        return
    if not inventory.gpus:
        promise, reason = expected_gpu(), str(inventory.unavailable)
        state: State = "absent" if promise is None else "wrong"
        reason = f"{promise}, and it cannot be used: {reason}" if promise else reason
        yield Finding("NVIDIA GPUs", state, reason, inventory.remedy)
        return
    cuda = cuda_driver_version()
    supported = "" if cuda is None else f", CUDA up to {cuda}"
    yield Finding("NVIDIA driver", "ok", f"{inventory.driver}{supported}")
    for gpu in inventory.gpus:
        yield _check_gpu(gpu)
        if gpu.unavailable is None:
            yield _check_settings(gpu)
    selected = visible_gpus(inventory)
    names = ", ".join(gpu.uuid for gpu in selected.gpus) or "none"
    yield Finding("GPUs of a run", "ok", f"{names} (by {selected.source})")
    for warning in selected.warnings:
        yield Finding("GPUs of a run", "wrong", warning)


def _check_gpu(gpu: Gpu) -> Finding:
    name = f"GPU {gpu.index}"
    if gpu.unavailable is not None:
        return Finding(name, "wrong", f"{gpu.uuid}: {gpu.unavailable}")
    memory = "" if gpu.memory_total_bytes is None else f", {gpu.memory_total_bytes / GIB:.0f} GiB"
    mig = ", partitioned (MIG)" if gpu.mig_enabled else ""
    detail = f"{gpu.name}, {gpu.uuid}{memory}{mig}"
    import pynvml

    try:
        process_ids = compute_processes(gpu)
    except pynvml.NVMLError as error:
        return Finding(name, "ok", f"{detail}; it does not say who uses it: {error}")
    if process_ids:
        detail = f"{detail}; in use by process {', '.join(map(str, process_ids))}"
        remedy = "a run refuses a GPU on which another process computes: end it, or use another"
        return Finding(name, "wrong", detail, remedy)
    return Finding(name, "ok", detail)


def _check_settings(gpu: Gpu) -> Finding:
    """Say whether a card is set as it was delivered; what is set on purpose is nothing wrong."""
    name, state = f"GPU {gpu.index} settings", gpu_state(gpu)
    changes = [state["unavailable"]] if "unavailable" in state else list(unusual_settings(state))
    if changes:
        remedy = (
            "if it was changed on purpose, set it in the study (gpu) or state it with the results"
        )
        return Finding(name, "absent", f"not as delivered: {'; '.join(changes)}", remedy)
    limit_w = state["power_limits_w"].get("default")
    clocks = state["application_clocks_default_mhz"]
    defaults = [] if limit_w is None else [f"power limit {limit_w:g} W"]
    defaults += [] if clocks is None else [f"application clocks {megahertz(clocks)}"]
    if not defaults:
        return Finding(name, "absent", "the driver does not say how the card was delivered")
    detail = f"as delivered: {', '.join(defaults)} (NVML does not report locked clocks)"
    return Finding(name, "ok", detail)


def sensors() -> Iterator[Finding]:
    """Try every sensor, as ``llem sensors`` does."""
    try:
        rows = sensors_report()["sensors"]
    except LlemError as error:
        yield Finding("recorder", "wrong", str(error))
        return
    for name in dict.fromkeys(row["sensor"] for row in rows):
        yield _check_sensor(name, [row for row in rows if row["sensor"] == name])
    if not has_measuring_sensor(rows):
        detail = "no sensor measures here: energy can only be estimated"
        remedy = (
            "that is enough to try things out; for numbers to publish use a machine with a sensor"
        )
        yield Finding("a measurement", "absent", detail, remedy)


def _check_sensor(name: str, rows: Sequence[Mapping[str, Any]]) -> Finding:
    working = [f"{row['device']} ({row['kind']})" for row in rows if row["unavailable"] is None]
    if working:
        return Finding(name, "ok", ", ".join(working))
    reason, remedy = str(rows[0]["unavailable"]), rows[0]["remedy"]
    return Finding(name, "wrong" if "permission" in reason.lower() else "absent", reason, remedy)


def engines() -> Iterator[Finding]:
    """Look at each engine's package, and say what runs it otherwise."""
    findings = [_check_engine(backend, facts.modules) for backend, facts in ENGINES.items()]
    yield from findings
    container = docker_command() or apptainer_command()
    if container is None and all(finding.state != "ok" for finding in findings):
        detail = "none can be used here, and there is no Docker, Podman or Apptainer"
        remedy = f"{install_command('pytorch')}, or install a container runtime"
        yield Finding("an engine", "wrong", detail, remedy)


def _has_gpus() -> bool:
    try:
        return bool(visible_gpus(discover_if_answered()).gpus)
    except LlemError:  # as the GPUs' finding says
        return False


def _check_engine(backend: str, packages: tuple[str, ...]) -> Finding:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        remedy = f"give it an image: runners: {{{backend}: {automatic_container_runner()}}}"
        if backend == "pytorch":
            remedy = install_command("pytorch")
        return Finding(backend, "absent", f"not here: {', '.join(missing)}", remedy)
    command = [sys.executable, "-P", "-W", "ignore", "-c", _IMPORT_CODE, *packages]
    try:
        result = run_to_end(command, IMPORT_LIMIT_S, name="its import")
    except ChildError as error:
        return Finding(backend, "wrong", str(error))
    if result.returncode != 0:
        errors = result.stderr.strip().splitlines() or [f"it ended with {result.returncode}"]
        remedy = "reinstall it in an environment of its own, or give it an image"
        return Finding(backend, "wrong", f"cannot be imported: {errors[-1]}", remedy)
    report = json.loads(result.stdout.strip().splitlines()[-1])
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    if report["cuda"] is False and _has_gpus():
        build = "without CUDA" if report["built"] is None else f"for CUDA {report['built']}"
        return Finding(
            backend,
            "wrong",
            f"{versions}: NVML sees a GPU, and this PyTorch (built {build}) cannot use it",
            "install a PyTorch that is built for a CUDA which the driver can run; a run would "
            "compute on the CPU next to the GPU, and is refused",
        )
    device = {True: ", CUDA works", False: ", on the CPU: torch sees no CUDA device"}
    return Finding(backend, "ok", f"{versions}{device.get(report['cuda'], '')}")


def containers() -> Iterator[Finding]:
    """Look at what can run a container."""
    yield _check_apptainer()
    remedy = "needed only for runners: {…: docker}; see the page Containers"
    if docker_command() is None:
        yield Finding("Docker", "absent", "neither docker nor podman", remedy)
        return
    try:
        engine = find_engine()
    except LlemError as error:  # on a login node the client is often there alone
        yield Finding("Docker", "absent", str(error), remedy)
        return
    rootless = ", rootless" if engine.rootless else ""
    detail = f"{engine.command}, version {engine.version}{rootless}"
    yield Finding("Podman" if engine.podman else "Docker", "ok", detail)
    if nvidia_here():
        yield _check_toolkit(engine)


def _check_apptainer() -> Finding:
    command = apptainer_command()
    if command is None:
        remedy = "needed only for runners: {…: apptainer}; see the page Containers"
        return Finding("Apptainer", "absent", "no command apptainer", remedy)
    try:
        result = call([command, "--version"], COMMAND_TIMEOUT_S)
    except ContainerError as error:
        return Finding("Apptainer", "wrong", str(error))
    if result.returncode != 0:
        return Finding("Apptainer", "wrong", f"{command}: {result.stderr.strip()}", "reinstall it")
    return Finding("Apptainer", "ok", result.stdout.strip())


def _check_toolkit(engine: Engine) -> Finding:
    name = "NVIDIA container toolkit"
    device_files = [str(path) for folder in CDI_FOLDERS for path in folder.glob("*nvidia*")]
    if engine.gives_gpus or device_files:
        detail = f"known to {engine.command}" if engine.gives_gpus else device_files[0]
        return Finding(name, "ok", detail)
    remedy = (
        "install it, then: sudo nvidia-ctk runtime configure --runtime=docker && "
        "sudo systemctl restart docker (Podman: sudo nvidia-ctk cdi generate "
        "--output=/etc/cdi/nvidia.yaml)"
    )
    detail = f"not known to {engine.command}: its containers see no GPU"
    return Finding(name, "wrong", detail, remedy)
