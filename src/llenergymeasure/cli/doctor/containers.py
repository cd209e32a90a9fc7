"""Apptainer, Docker and Podman: whether they answer, and whether they can pass a GPU in."""

from collections.abc import Iterator

from llenergymeasure.cli.doctor.finding import Finding
from llenergymeasure.containers.calls import ContainerError, call
from llenergymeasure.containers.docker import CDI_FOLDERS, Engine, find_engine
from llenergymeasure.containers.runner_choice import apptainer_command, container_command
from llenergymeasure.containers.surroundings import nvidia_here
from llenergymeasure.errors import LlemError

_ASK_LIMIT_S = 30.0


def containers() -> Iterator[Finding]:
    """Look at what can run a container."""
    yield _apptainer()
    yield from _docker()


def _apptainer() -> Finding:
    command = apptainer_command()
    if command is None:
        remedy = "needed only for runners: {…: apptainer}; see the page Containers"
        return Finding("Apptainer", "absent", "no command apptainer", remedy)
    try:
        done = call([command, "--version"], _ASK_LIMIT_S)
    except ContainerError as error:
        return Finding("Apptainer", "wrong", str(error))
    if done.returncode != 0:
        return Finding("Apptainer", "wrong", f"{command}: {done.stderr.strip()}", "reinstall it")
    return Finding("Apptainer", "ok", done.stdout.strip())


def _docker() -> Iterator[Finding]:
    command = container_command()
    if command is None:
        remedy = "needed only for runners: {…: docker}; see the page Containers"
        yield Finding("Docker", "absent", "neither docker nor podman", remedy)
        return
    try:
        engine = find_engine()
    except LlemError as error:
        yield Finding("Docker", "wrong", str(error))
        return
    name = "Podman" if engine.podman else "Docker"
    rootless = ", rootless" if engine.rootless else ""
    yield Finding(name, "ok", f"{engine.command}, version {engine.version}{rootless}")
    if nvidia_here():
        yield _toolkit(engine)


def _toolkit(engine: Engine) -> Finding:
    described = [str(path) for folder in CDI_FOLDERS for path in folder.glob("*nvidia*")]
    if engine.nvidia_runtime:
        return Finding("NVIDIA container toolkit", "ok", f"registered with {engine.command}")
    if described:
        return Finding("NVIDIA container toolkit", "ok", f"devices described in {described[0]}")
    remedy = (
        "install it, then: sudo nvidia-ctk runtime configure --runtime=docker && "
        "sudo systemctl restart docker (Podman: sudo nvidia-ctk cdi generate "
        "--output=/etc/cdi/nvidia.yaml)"
    )
    detail = f"not known to {engine.command}: its containers see no GPU"
    return Finding("NVIDIA container toolkit", "wrong", detail, remedy)
