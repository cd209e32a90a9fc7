"""Everything that would keep a runner from doing its runs, found before the first of them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import llenergymeasure
from llenergymeasure.containers import docker
from llenergymeasure.containers.apptainer import call_variables
from llenergymeasure.containers.images import SifImage, image_problem, inspect_image
from llenergymeasure.containers.runner_choice import PACKAGES, apptainer_command, container_command
from llenergymeasure.containers.surroundings import (
    PYTHON,
    SCRIPTS,
    Surroundings,
    nvidia_here,
)
from llenergymeasure.errors import Problem
from llenergymeasure.machine.environment import source_hash
from llenergymeasure.machine.gpus.inventory import discover, visible
from llenergymeasure.machine.gpus.state import cuda_driver_version
from llenergymeasure.units import BackendName

LOOK_LIMIT_S = 600.0
"""For a first look into a large image on a cold network disk."""

PULL_LIMIT_S = 6 * 3600.0
RESULTS_LEAST_BYTES = 100_000_000

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def check_apptainer(
    backend: str, image: SifImage, surroundings: Surroundings, *, look: bool = True
) -> list[Problem]:
    """Return what keeps a backend's runs from Apptainer.

    Args:
        backend: whose image it is.
        image: the image; an address is left to Snakemake, which pulls it.
        surroundings: what the runs will get.
        look: whether to look inside, which makes sense where the runs will be.
    """
    key = f"runners.{backend}"
    command = apptainer_command()
    if command is None:
        return [Problem("there is no command apptainer here: install Apptainer", key=key)]
    wrong = image_problem(backend, image)
    if wrong is not None:
        return [wrong]
    if image.path is None or not look:
        return []
    gpus = _gpu_count()
    variables = call_variables(surroundings.mounts, surroundings.variables, nvidia=nvidia_here())
    call = [command, "--silent", "exec", "--home", str(Path.cwd()), image.location]
    call += inside_command(backend, surroundings, gpus)
    return [
        Problem(f"the image cannot be used: {each}", key=key, file=image.path)
        for each in _complaints(call, variables)
    ]


def check_docker(
    backend: str, image: str, surroundings: Surroundings, *, look: bool = True
) -> list[Problem]:
    """Return what keeps a backend's runs from Docker; an image that is not here is pulled."""
    key = f"runners.{backend}"
    try:
        engine = docker.find_engine()
    except docker.ContainerError as error:
        return [Problem(str(error), key=key)]
    if not docker.shares_process_ids(engine):
        message = (
            f"rootless Docker {engine.version} cannot share process ids, by which NVML names what "
            "is on a GPU: update it to 23 or newer, or use Podman (LLEM_DOCKER=podman)"
        )
        return [Problem(message, key=key)]
    absent = _pull(engine, backend, image)
    if absent is not None:
        return [Problem(absent, key=key, found=image)]
    uuids = visible_uuids()
    if uuids and not engine.nvidia_runtime and not docker.cdi_described():
        message = (
            f"{engine.command} cannot give GPUs to containers: install the NVIDIA container "
            "toolkit and register it (nvidia-ctk runtime configure)"
        )
        return [Problem(message, key=key)]
    if not look:
        return []
    container = docker.Container(
        image=image,
        command=inside_command(backend, surroundings, len(uuids)),
        mounts=surroundings.mounts,
        variables=surroundings.variables,
        workdir=surroundings.results,
        gpus=uuids,
    )
    return [
        Problem(f"the image cannot be used: {each}", key=key, found=image)
        for each in _complaints(docker.run_command(engine, container), {})
    ]


_INSTALL = {
    "pytorch": "pip install 'llenergymeasure[pytorch]'",
    "vllm": "pip install -r envs/vllm.txt (without a GPU, .ci/install_vllm.sh)",
    "sglang": "pip install -r envs/sglang.txt",
    "tensorrt": "use its image: NVIDIA gives it in no other form",
}


def check_local(backend: BackendName) -> list[Problem]:
    """Return what keeps a backend's runs from this machine's own environment.

    A study of several engines would otherwise make the runs of those that are here, and fail at
    the first of the others.
    """
    absent = [name for name in PACKAGES.get(backend, ()) if find_spec(name) is None]
    if not absent:
        return []
    runner = "apptainer" if apptainer_command() and not container_command() else "docker"
    message = (
        f"{' and '.join(absent)} cannot be imported here, where its runs would be: "
        f"{_INSTALL[backend]}, in the environment that llem runs in, or give it a container "
        f"(runners: {{{backend}: {runner}}})"
    )
    return [Problem(message, key=f"runners.{backend}", found="local")]


def visible_uuids() -> tuple[str, ...]:
    """Return the cards that a container of this process may see."""
    return tuple(gpu.uuid for gpu in visible(discover()).gpus)


def inside_command(backend: str, surroundings: Surroundings, gpus: int) -> list[str]:
    """Return the command that looks around in a container."""
    words = [PYTHON, "-m", "llenergymeasure.containers.in_container"]
    words += ["--source-hash", source_hash(Path(llenergymeasure.__file__).parent)]
    words += ["--writable", str(surroundings.results), "--writable"]
    words += [surroundings.variables["LLEM_CACHE"], "--free", str(RESULTS_LEAST_BYTES)]
    words += ["--boot-id", Path("/proc/sys/kernel/random/boot_id").read_text().strip()]
    words += ["--pid-namespace", str(Path("/proc/self/ns/pid").readlink())]
    words += [] if surroundings.meter_inside else ["--no-meter"]
    words += ["--monotonic-ns", str(time.monotonic_ns()), "--gpus", str(gpus)]
    driver_cuda = cuda_driver_version() if gpus else None
    if driver_cuda:
        words += ["--driver-cuda", str(driver_cuda)]
    return [*words, "--script", f"{SCRIPTS}/measure_{backend}.py"]


def _gpu_count() -> int:
    """Return how many cards Apptainer shows: all of them."""
    return len(discover().gpus) if nvidia_here() else 0


def _pull(engine: docker.Engine, backend: str, image: str) -> str | None:
    """Fetch an image that is not here; return why it cannot be had."""
    if inspect_image(engine.command, image) is not None:
        return None
    print(f"Fetching the image {image} …", file=sys.stderr, flush=True)
    done = subprocess.run(
        [engine.command, "pull", "--quiet", image],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PULL_LIMIT_S,
        check=False,
    )
    if done.returncode == 0:
        return None
    return (
        f"the image is not here and cannot be fetched ({_last_line(done.stderr)}): "
        f"make images BACKEND={backend} RUNNER=docker, or name another"
    )


def _complaints(call: Sequence[str], variables: Mapping[str, str]) -> Iterator[str]:
    """Run the look inside and yield what it found wrong, or why it could not be had."""
    try:
        done = subprocess.run(
            call,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=os.environ | dict(variables),
            timeout=LOOK_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield f"it did not answer within {LOOK_LIMIT_S:g} s"
        return
    lines = done.stdout.strip().splitlines()
    try:
        told = json.loads(lines[-1])
        yield from (str(each) for each in told["problems"])
    except (IndexError, ValueError, KeyError, TypeError):
        yield _last_line(done.stderr) or f"its Python ended with {done.returncode}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    # Docker's last line points at its help.
    told = [line for line in lines if not line.startswith(("See 'docker", "Run 'docker"))]
    return told[-1] if told else ""
