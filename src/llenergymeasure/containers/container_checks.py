"""Everything that would keep a runner from doing its runs, found before the first of them."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import llenergymeasure
from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.containers import docker
from llenergymeasure.containers.apptainer import call_variables, exec_command
from llenergymeasure.containers.calls import ContainerError, call, failure_reason
from llenergymeasure.containers.container_setup import (
    INSIDE,
    PYTHON,
    ContainerSetup,
    nvidia_here,
)
from llenergymeasure.containers.images import SifImage, build_command
from llenergymeasure.containers.runner_choice import automatic_container_runner
from llenergymeasure.errors import Problem
from llenergymeasure.machine.environment import source_hash
from llenergymeasure.machine.folders import MIN_FREE_BYTES
from llenergymeasure.machine.gpus.allotment import GpuAllotmentError, discover_if_answered
from llenergymeasure.machine.gpus.inventory import visible_gpus
from llenergymeasure.machine.gpus.state import cuda_driver_version
from llenergymeasure.processes import boot_id
from llenergymeasure.units import BackendName

LOOK_LIMIT_S = 600.0
"""For a first look into a large image on a cold network disk."""


def check_apptainer(
    backend: str, image: SifImage, setup: ContainerSetup, *, probe: bool = True
) -> list[Problem]:
    """Return what keeps a backend's runs from Apptainer.

    Args:
        backend: whose image it is.
        image: the image; an address is left to Snakemake, which pulls it.
        setup: what the runs will get.
        probe: whether to look inside, which makes sense where the runs will be.
    """
    key = f"runners.{backend}"
    try:
        command = exec_command(image.location, ())
    except ContainerError as error:
        return [Problem(str(error), key=key)]
    if image.path is not None and not image.path.exists():
        remedy = f"build it ({build_command(backend, 'apptainer')}), or name another"
        return [Problem(f"there is no such image; {remedy}", key=key, file=image.path)]
    if ":" in str(Path.cwd()):
        text = "Apptainer takes no folder with a colon in its name; call from another"
        return [Problem(text, key=key, file=Path.cwd())]
    if image.path is None or not probe:
        return []
    command += inside_command(backend, setup, _gpu_count())
    variables = call_variables(setup.mounts, setup.variables, nvidia=nvidia_here())
    return [
        Problem(f"the image cannot be used: {complaint}", key=key, file=image.path)
        for complaint in _complaints(command, variables)
    ]


def check_docker(
    backend: str, image: str, setup: ContainerSetup, *, probe: bool = True
) -> list[Problem]:
    """Return what keeps a backend's runs from Docker; an image that is not here is pulled."""
    key = f"runners.{backend}"
    try:
        uuids = visible_uuids()
    except GpuAllotmentError as error:
        return [Problem(str(error))]
    try:
        engine = docker.find_engine()
        docker.remove_abandoned(engine)
    except ContainerError as error:
        install = ENGINES[backend].install
        has_engine = not _missing_modules(backend)
        remedy = f"; without a container: {install()}" if install and not has_engine else ""
        return [Problem(f"{error}{remedy}", key=key)]
    message = _missing_ability(engine, uuids)
    if message is not None:
        return [Problem(message, key=key)]
    try:
        docker.pull(engine, image)
    except ContainerError as error:
        remedy = f"build it ({build_command(backend, 'docker')}), or name another"
        message = f"the image is not here and cannot be fetched ({error}): {remedy}"
        return [Problem(message, key=key, found=image)]
    if not probe:
        return []
    name = f"llem-look-{backend}-{os.getpid()}"
    command = docker.run_command(
        engine,
        image,
        inside_command(backend, setup, len(uuids)),
        name=name,
        mounts=setup.mounts,
        variables=setup.variables,
        workdir=setup.results,
        gpus=uuids,
    )
    complaints = list(_complaints(command, {}))
    if complaints:
        with suppress(ContainerError):  # its own are among the complaints
            docker.remove_container(engine, name)
    return [
        Problem(f"the image cannot be used: {text}", key=key, found=image) for text in complaints
    ]


def _missing_ability(engine: docker.Engine, uuids: Sequence[str]) -> str | None:
    """Return what an engine cannot do that runs need."""
    if not docker.shares_process_ids(engine):
        return (
            f"rootless Docker {engine.version} cannot share process ids, by which NVML names what "
            "is on a GPU: update it to 23 or newer, or use Podman (LLEM_DOCKER=podman)"
        )
    if uuids and not engine.gives_gpus and not docker.cdi_described():
        return (
            f"{engine.command} cannot give GPUs to containers: install the NVIDIA container "
            "toolkit and register it (nvidia-ctk runtime configure)"
        )
    return None


def check_local(backend: BackendName) -> list[Problem]:
    """Return what keeps a backend's runs from this machine's own environment.

    A study of several engines would otherwise make the runs of those that are here, and fail at
    the first of the others.
    """
    missing = _missing_modules(backend)
    if not missing:
        return []
    install = ENGINES[backend].install
    instruction = (
        f"{install()}, in the environment that llem runs in, or give it a container"
        if install
        else "it comes as a container image alone, so give it a container"
    )
    message = (
        f"{' and '.join(missing)} cannot be imported here, where its runs would be: {instruction} "
        f"(runners: {{{backend}: {automatic_container_runner()}}})"
    )
    return [Problem(message, key=f"runners.{backend}", found="local")]


def _missing_modules(backend: str) -> list[str]:
    modules = ENGINES[backend].modules if backend in ENGINES else ()
    return [name for name in modules if find_spec(name) is None]


def visible_uuids() -> tuple[str, ...]:
    """Return the cards that a container of this process may see.

    Raises:
        GpuAllotmentError: the driver does not answer.
    """
    return tuple(gpu.uuid for gpu in visible_gpus(discover_if_answered()).gpus)


def inside_command(backend: str, setup: ContainerSetup, gpus: int) -> list[str]:
    """Return the command that looks around in a container."""
    question = {
        "source_hash": source_hash(Path(llenergymeasure.__file__).parent),
        "writable": [str(setup.results), setup.variables["LLEM_CACHE"]],
        "free_bytes": MIN_FREE_BYTES,
        "boot_id": boot_id(),
        "pid_namespace": docker.pid_namespace(),
        "monotonic_ns": time.monotonic_ns(),
        "meter": setup.meter_inside,
        "gpus": gpus,
        "driver_cuda": cuda_driver_version() if gpus else None,
        "backend": backend,
        "study": str(setup.results),
    }
    script = f"{INSIDE}/llenergymeasure/containers/image_probe.py"
    return [PYTHON, script, json.dumps(question)]


def _gpu_count() -> int:
    """Return how many cards Apptainer shows: all of them."""
    return len(discover_if_answered().gpus) if nvidia_here() else 0


def _complaints(command: Sequence[str], variables: Mapping[str, str]) -> Iterator[str]:
    """Run the look inside and yield what it found wrong, or why it could not be had."""
    try:
        result = call(command, LOOK_LIMIT_S, variables)
        yield from map(str, json.loads(result.stdout.splitlines()[-1])["problems"])
    except ContainerError as error:
        yield str(error)
    except (IndexError, ValueError, KeyError, TypeError):
        yield failure_reason(result)
