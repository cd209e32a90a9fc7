"""Docker and its like: what is here, what it can do, and the call that runs a container."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llenergymeasure.containers.mounts import Mount
from llenergymeasure.containers.runner_choice import container_command
from llenergymeasure.errors import LlemError
from llenergymeasure.machine.host import memory_bytes, memory_limit_bytes

ASK_LIMIT_S = 60.0
CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Where descriptions of devices lie. Source: Container Device Interface specification."""


class ContainerError(LlemError):
    """A container cannot be started here, or did not start."""


@dataclass(frozen=True)
class Engine:
    """A command that runs containers, and its daemon.

    Attributes:
        command: ``docker`` or ``podman``.
        podman: whether it is Podman, whatever its name.
        rootless: whether its containers' root is this user.
        nvidia_runtime: whether the NVIDIA container toolkit is registered with it.
        version: of the daemon.
    """

    command: str
    podman: bool = False
    rootless: bool = False
    nvidia_runtime: bool = False
    version: str = ""


def find_engine() -> Engine:
    """Return the engine here.

    Raises:
        ContainerError: there is no command, or its daemon does not answer.
    """
    command = container_command()
    if command is None:
        asked = os.environ.get("LLEM_DOCKER", "docker or podman")
        raise ContainerError(f"no command {asked} here: install Docker or Podman, or set runners")
    try:
        done = subprocess.run(
            [command, "info", "--format", "{{json .}}"],
            capture_output=True,
            text=True,
            timeout=ASK_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ContainerError(
            f"{command}'s daemon does not answer within {ASK_LIMIT_S:g} s"
        ) from None
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = {}
    # Docker's command exits with 0 and a list of errors in some versions.
    errors = told.get("ServerErrors") or ([done.stderr.strip()] if done.returncode else [])
    if errors:
        raise ContainerError(_unreachable(command, str(errors[0]).splitlines()[-1]))
    return _podman(command, told) if "host" in told else _docker(command, told)


def shares_process_ids(engine: Engine) -> bool:
    """Return whether a container may see the host's process ids (``--pid=host``).

    Rootless Docker can from version 23 on. Source: moby pull request 41893.
    """
    major = engine.version.partition(".")[0]
    old = major.isdigit() and int(major) < 23
    return engine.podman or not engine.rootless or not old


def _docker(command: str, told: Mapping[str, object]) -> Engine:
    options = told.get("SecurityOptions")
    runtimes = told.get("Runtimes")
    return Engine(
        command,
        rootless=any("rootless" in str(each) for each in options)
        if isinstance(options, list)
        else False,
        nvidia_runtime=isinstance(runtimes, dict) and "nvidia" in runtimes,
        version=str(told.get("ServerVersion", "")),
    )


def _podman(command: str, told: Mapping[str, object]) -> Engine:
    host, version = told.get("host"), told.get("version")
    security = host.get("security") if isinstance(host, dict) else None
    return Engine(
        command,
        podman=True,
        rootless=isinstance(security, dict) and bool(security.get("rootless")),
        version=str(version.get("Version", "")) if isinstance(version, dict) else "",
    )


def _unreachable(command: str, said: str) -> str:
    where = os.environ.get("DOCKER_HOST")
    place = f" at DOCKER_HOST={where}" if where else ""
    if "permission denied" in said.lower():
        return (
            f"this user may not talk to {command}'s daemon{place}: join the group docker, or use "
            f"rootless Docker, Podman or Apptainer ({said})"
        )
    return f"{command}'s daemon{place} does not answer: start it, or set DOCKER_HOST ({said})"


@dataclass(frozen=True)
class Container:
    """One container to run.

    Attributes:
        image: its name.
        command: program and arguments.
        mounts: what it sees of the host.
        variables: its environment, apart from the image's own.
        name: its name; Docker's choice if null.
        workdir: where the command starts.
        gpus: UUIDs of the cards it sees.
        network: whether it has any but its own loopback.
        labels: what its owner is found by.
    """

    image: str
    command: Sequence[str]
    mounts: Sequence[Mount] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    workdir: Path | None = None
    gpus: Sequence[str] = ()
    network: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


def run_command(engine: Engine, container: Container) -> list[str]:
    """Return the command that runs a container, removes it afterwards, and exits with its code.

    It shares the host's process ids, as Apptainer's do: NVML names GPU processes by them, and a
    run ends itself when the process that asked for it does. All else is its own: the root is
    read-only, scratch is in memory, and only what is mounted is seen.
    """
    words = [engine.command, "run", "--rm", "--pid=host", "--read-only", "--cap-drop=ALL"]
    words += ["--security-opt=no-new-privileges", "--tmpfs=/tmp:rw,exec,mode=1777"]
    words += ["--network=bridge"] if container.network else ["--network=none"]
    # A run is known dead or alive by the host's name and the process id in its outcome.
    words += [f"--hostname={os.uname().nodename}", *_user(engine)]
    words += _limits()
    words += _gpus(engine, container.gpus)
    if container.name is not None:
        words += [f"--name={container.name}"]
    if container.workdir is not None:
        words += [f"--workdir={container.workdir}"]
    for name, value in sorted(container.labels.items()):
        words += ["--label", f"{name}={value}"]
    for mount in container.mounts:
        words += ["--mount", mount.for_docker()]
    for name, value in sorted(_home(container.variables).items()):
        words += ["--env", f"{name}={value}"]
    program, *arguments = container.command
    return [*words, f"--entrypoint={program}", container.image, *arguments]


def _home(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with a home and a name: libraries ask, and the image knows no user."""
    return {"HOME": "/tmp", "USER": "llem", "LOGNAME": "llem", **variables}


def _user(engine: Engine) -> list[str]:
    """Return who the process is, so that results belong to who asked for them."""
    # Without root, the container's root is this user.
    return ["--user=0:0" if engine.rootless else f"--user={os.getuid()}:{os.getgid()}"]


def _limits() -> list[str]:
    """Return what this process may use: a daemon's containers are in no job's control group."""
    limit_bytes = memory_limit_bytes()
    room_bytes = limit_bytes or memory_bytes("MemTotal") or 1 << 30
    # Engines' processes share tensors there; pages count only once they are used.
    words = [f"--shm-size={room_bytes // 2}"]
    if limit_bytes is not None:
        words += [f"--memory={limit_bytes}"]
    usable = os.sched_getaffinity(0)
    if len(usable) != os.cpu_count():
        words += [f"--cpuset-cpus={','.join(str(cpu) for cpu in sorted(usable))}"]
    return words


def _gpus(engine: Engine, uuids: Sequence[str]) -> list[str]:
    if not uuids:
        return []
    if engine.nvidia_runtime and not engine.podman:
        # The inner quotes are part of the value, which is comma-separated itself.
        return ["--gpus", f'"device={",".join(uuids)}"', "--env=NVIDIA_DRIVER_CAPABILITIES=all"]
    return [word for uuid in uuids for word in ("--device", f"nvidia.com/gpu={uuid}")]


def cdi_described() -> bool:
    """Return whether NVIDIA's devices are described for containers on this machine."""
    return any(
        "nvidia.com/gpu" in path.read_text(errors="replace")
        for folder in CDI_FOLDERS
        if folder.is_dir()
        for path in (*folder.glob("*.yaml"), *folder.glob("*.json"))
    )
