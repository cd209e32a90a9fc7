"""Docker and Podman: which is installed, what it can do, and the command that runs a container.

Functions that ask the daemon raise :class:`ContainerError` if it does not answer.
"""

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llenergymeasure.containers.calls import ContainerError, call, failure_reason
from llenergymeasure.containers.container_setup import NOT_RECORDED
from llenergymeasure.containers.mounts import Mount, empty_folder
from llenergymeasure.containers.runner_choice import docker_command
from llenergymeasure.machine.host import cpu_quota, memory_bytes, memory_limit_bytes
from llenergymeasure.processes import boot_id, identity, is_hidden
from llenergymeasure.redact import without_secrets
from llenergymeasure.screen import say

ASK_LIMIT_S = 60.0
PULL_LIMIT_S = 6 * 3600.0
OWNER_LABEL = "llenergymeasure.owner"
_TOOLKIT_HOOK = "nvidia-container-runtime-hook"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
CDI_FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Where descriptions of devices lie. Source: Container Device Interface specification."""


@dataclass(frozen=True)
class Engine:
    """A command that runs containers, and its daemon.

    Attributes:
        command: ``docker`` or ``podman``.
        podman: whether it is Podman, whatever its name.
        rootless: whether its containers' root is this user.
        nvidia_runtime: whether the NVIDIA container toolkit is registered with it.
        version: of the daemon.
        limits: the controllers of control groups that it may use: without root Podman has few.
        cdi: whether it reads descriptions of devices; Docker does where it names their folders.
    """

    command: str
    podman: bool = False
    rootless: bool = False
    nvidia_runtime: bool = False
    version: str = ""
    limits: frozenset[str] = frozenset({"memory", "cpuset", "cpu"})
    cdi: bool = False

    @property
    def gives_gpus(self) -> bool:
        """Whether ``--gpus`` is the way: Docker itself looks for the hook of NVIDIA's toolkit.

        The hook may refuse it, in the toolkit's mode cdi, where descriptions of devices serve.
        """
        if self.podman:
            return False
        if self.nvidia_runtime:
            return True
        return shutil.which(_TOOLKIT_HOOK) is not None and not (self.cdi and cdi_described())


def find_engine() -> Engine:
    """Return the engine here.

    Raises:
        ContainerError: there is no command, or its daemon does not answer.
    """
    command = docker_command()
    if command is None:
        names = os.environ.get("LLEM_DOCKER", "docker or podman")
        raise ContainerError(f"no command {names} here: install Docker or Podman, or set runners")
    try:
        result = call([command, "info", "--format", "{{json .}}"], ASK_LIMIT_S)
    except ContainerError as error:
        raise ContainerError(_unreachable(command, str(error))) from None
    try:
        info = json.loads(result.stdout)
    except ValueError:
        info = None
    # Docker's command exits with 0 and a list of errors in some versions.
    if not isinstance(info, dict) or result.returncode or info.get("ServerErrors"):
        errors = info.get("ServerErrors") if isinstance(info, dict) else None
        problem = str(errors[0]).splitlines()[-1] if errors else failure_reason(result)
        raise ContainerError(_unreachable(command, problem))
    return _podman(command, info) if "host" in info else _docker(command, info)


def shares_process_ids(engine: Engine) -> bool:
    """Return whether a container may see the host's process ids (``--pid=host``).

    Rootless Docker can from version 23 on. Source: moby pull request 41893.
    """
    major = engine.version.partition(".")[0]
    old = major.isdecimal() and int(major) < 23
    return engine.podman or not engine.rootless or not old


def _docker(command: str, info: Mapping[str, Any]) -> Engine:
    return Engine(
        command,
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
        nvidia_runtime="nvidia" in (info.get("Runtimes") or ()),
        version=str(info.get("ServerVersion", "")),
        cdi=bool(info.get("CDISpecDirs")),
    )


def _podman(command: str, info: Mapping[str, Any]) -> Engine:
    security = info["host"].get("security") or {}
    version = (info.get("version") or {}).get("Version", "")
    rootless = bool(security.get("rootless"))
    controllers = info["host"].get("cgroupControllers")
    limits = Engine.limits if controllers is None else frozenset(map(str, controllers))
    return Engine(command, podman=True, rootless=rootless, version=str(version), limits=limits)


def _unreachable(command: str, problem: str) -> str:
    address = os.environ.get("DOCKER_HOST")
    where = without_secrets(f" at DOCKER_HOST={address}") if address else ""
    problem = without_secrets(problem)
    if "permission denied" in problem.lower():
        return (
            f"this user may not talk to {command}'s daemon{where}: join the group docker, or use "
            f"rootless Docker, Podman or Apptainer ({problem})"
        )
    return f"{command}'s daemon{where} does not answer: start it, or set DOCKER_HOST ({problem})"


def find_image(engine: Engine, image: str) -> tuple[str, str] | None:
    """Return an image's id, and the digest to record; None if it is not here.

    Both are ``sha256:…``. The digest is the one under which it was pulled, and of several the one
    by which it is named; an image that was built here has its id alone.
    """
    result = call([engine.command, "image", "inspect", image], ASK_LIMIT_S)
    if result.returncode != 0:
        return None
    try:
        description: dict[str, Any] = json.loads(result.stdout)[0]
    except (ValueError, IndexError):
        return None
    image_id = f"sha256:{str(description['Id']).removeprefix('sha256:')}"
    digests = [str(name).rpartition("@")[2] for name in description.get("RepoDigests") or []]
    wanted_digest = image.rpartition("@")[2]
    return image_id, wanted_digest if wanted_digest in digests else (digests or [image_id])[0]


def pull(engine: Engine, image: str) -> tuple[str, str] | None:
    """Find an image, and fetch it where it is not here; it is an error if it cannot be fetched."""
    local_image = find_image(engine, image)
    if local_image is not None:
        return local_image
    say(f"Fetching the image {image} …")
    result = call([engine.command, "pull", "--quiet", image], PULL_LIMIT_S)
    if result.returncode != 0:
        raise ContainerError(failure_reason(result))
    return find_image(engine, image)


def abandoned_containers(engine: Engine) -> list[str]:
    """Return the ids of containers whose launcher was killed.

    One that runs and was started elsewhere is not: a daemon may serve several machines, containers
    with process ids of their own, and users who do not see each other's processes.
    """
    listing = ("ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}")
    container_ids = call([engine.command, *listing], ASK_LIMIT_S).stdout.split()
    if not container_ids:
        return []
    template = '{{.Id}} {{index .Config.Labels "' + OWNER_LABEL + '"}} {{.State.Running}}'
    # One that has gone since is named on standard error alone.
    result = call([engine.command, "inspect", "--format", template, *container_ids], ASK_LIMIT_S)
    rows = [line.split() for line in result.stdout.splitlines()]
    return [row[0] for row in rows if len(row) == 3 and _is_abandoned(*row[1:])]


def _is_abandoned(owner: str, running: str) -> bool:
    namespace, owner_identity, user = ["", "", *owner.split("@")][-3:]
    boot, _, rest = owner_identity.partition(":")
    pid = rest.partition(":")[0]
    if (boot, namespace) != (boot_id(), pid_namespace()) or not pid.isdecimal():
        return running != "true"
    # Nobody's own processes are hidden.
    if user != str(os.geteuid()) and is_hidden(int(pid)):
        return running != "true"
    return identity(int(pid)) != owner_identity


def _owner_label() -> str:
    # In this order versions that know no namespace leave alone what runs: no boot has that name.
    return f"{pid_namespace()}@{identity(os.getpid())}@{os.geteuid()}"


def pid_namespace() -> str:
    """Return the kernel's name of where this process's id is one: another's means nothing here."""
    return str(Path("/proc/self/ns/pid").readlink())


def remove_abandoned(engine: Engine) -> None:
    """Remove containers whose launcher was killed."""
    for container in abandoned_containers(engine):
        remove_container(engine, container)


def remove_container(engine: Engine, name: str) -> None:
    """End and remove a container; nothing if it is gone."""
    call([engine.command, "rm", "--force", name], ASK_LIMIT_S)


def run_command(
    engine: Engine,
    image: str,
    command: Sequence[str],
    *,
    name: str,
    mounts: Sequence[Mount] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
    workdir: Path | None = None,
    gpus: Sequence[str] = (),
    network: bool = False,
) -> list[str]:
    """Return the command that runs a container, removes it afterwards, and exits with its code.

    It shares the host's process ids, as Apptainer's do: NVML names GPU processes by them, and a
    run ends itself when the process that asked for it does. All else is its own: the root is
    read-only, scratch is in memory, and only what is mounted is seen.

    Args:
        engine: what runs it.
        image: its name.
        command: program and arguments.
        name: the container's.
        mounts: what it sees of the host.
        variables: its environment, apart from the image's own.
        workdir: where the command starts.
        gpus: UUIDs of the cards it sees.
        network: whether it has any but its own loopback.
    """
    args = [engine.command, "run", "--rm", f"--name={name}", "--pid=host", "--read-only"]
    args += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
    args += ["--tmpfs=/tmp:rw,exec,mode=1777", f"--network={'bridge' if network else 'none'}"]
    # Results belong to the caller: in a rootless engine, the container's root is this user.
    if engine.rootless:
        args += ["--user=0:0"]
    else:
        args += [f"--user={os.getuid()}:{os.getgid()}"]
        args += [f"--group-add={group}" for group in sorted({*os.getgroups()} - {os.getgid()})]
    # Whether a run is alive is checked by the host's name and the process id in its outcome.
    args += [f"--hostname={os.uname().nodename}", f"--label={OWNER_LABEL}={_owner_label()}"]
    args += [*_limit_options(engine.limits), *_gpu_options(engine, gpus)]
    for mount in mounts:
        args += ["--mount", mount.for_docker()]
    if workdir is not None:
        args += [f"--workdir={workdir}"]
        targets = [Path(mount.target or mount.source) for mount in mounts]
        exists = any(
            path.is_relative_to(workdir) or workdir.is_relative_to(path) for path in targets
        )
        if engine.podman and not exists:
            # Podman does not create this folder, but it creates the parents of mounts.
            args += ["--mount", empty_folder(workdir / ".llem")]
    # Libraries ask for the user's home and name, and the image does not know this user.
    home = {"HOME": "/tmp", "USER": "llem", "LOGNAME": "llem"}  # noqa: S108 - the container's own
    inside = {**home, **variables}
    if gpus and VISIBLE_VARIABLE in inside and "MIG" not in inside[VISIBLE_VARIABLE]:
        inside[VISIBLE_VARIABLE] = ",".join(gpus)  # inside they are numbered from 0
    for variable, value in sorted(inside.items()):
        # Without a value it is taken from our environment: command lines are visible to everyone.
        args += ["--env", variable if variable in NOT_RECORDED else f"{variable}={value}"]
    program, *arguments = command
    return [*args, f"--entrypoint={program}", image, *arguments]


def _limit_options(controllers: Collection[str]) -> list[str]:
    """Return this process's limits as options: the daemon's containers are outside a job's cgroup.

    Limits without a controller are left out; Podman's containers inherit the processors anyway.
    """
    limit_bytes = memory_limit_bytes()
    room_bytes = limit_bytes or memory_bytes("MemTotal") or 1 << 30
    # Engines share tensors in /dev/shm; its pages only count when used.
    options = [f"--shm-size={room_bytes // 2}"]
    if limit_bytes is not None and "memory" in controllers:
        options += [f"--memory={limit_bytes}"]
    usable = os.sched_getaffinity(0)
    if len(usable) != os.cpu_count() and "cpuset" in controllers:
        options += [f"--cpuset-cpus={','.join(str(cpu) for cpu in sorted(usable))}"]
    quota = cpu_quota()
    if quota is not None and quota < (os.cpu_count() or 1) and "cpu" in controllers:
        options += [f"--cpus={quota:g}"]
    return options


def _gpu_options(engine: Engine, uuids: Sequence[str]) -> list[str]:
    if not uuids:
        return []
    if engine.gives_gpus:
        # The toolkit in its mode cdi refuses --gpus without its runtime (nvidia-container-toolkit).
        runtime = ["--runtime=nvidia"] if engine.nvidia_runtime else []
        # The inner quotes are part of the value, which is comma-separated itself.
        options = ["--gpus", f'"device={",".join(uuids)}"', "--env=NVIDIA_DRIVER_CAPABILITIES=all"]
        return [*runtime, *options]
    return [word for uuid in uuids for word in ("--device", f"nvidia.com/gpu={uuid}")]


def cdi_described() -> bool:
    """Return whether NVIDIA's devices are described for containers on this machine."""
    return any(
        "nvidia.com/gpu" in path.read_text(errors="replace")
        for folder in CDI_FOLDERS
        if folder.is_dir()
        for path in (*folder.glob("*.yaml"), *folder.glob("*.json"))
    )
