"""Apptainer: what Snakemake's own call of it gets through the environment.

Snakemake writes ``apptainer exec --home CWD … IMAGE bash -c …``. Every option of ``exec`` can also
be set by a variable, which reaches the jobs of any executor and needs no quoting in between.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from llenergymeasure.containers.calls import ContainerError
from llenergymeasure.containers.images import SifImage
from llenergymeasure.containers.mounts import Mount
from llenergymeasure.containers.runner_choice import apptainer_command
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.ids import digest

_CAPABILITIES = tuple(
    """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()  # noqa: SIM905 - a list of 41 quoted words would be hard to read
)
"""By number. Source: linux/capability.h."""


def call_variables(
    mounts: Sequence[Mount], inside: Mapping[str, str], *, nvidia: bool
) -> dict[str, str]:
    """Return the variables that make ``apptainer exec`` do what a run needs.

    Args:
        mounts: what is bound, in addition to what the site's configuration binds.
        inside: the run's environment; nothing else of the host's gets in (``--cleanenv``).
        nvidia: whether the host's driver libraries are brought in (``--nv``).
    """
    options = {
        "CLEANENV": "true",
        # Else a shell reads each value: a dollar sign is a variable's, a backquote runs a command.
        "NO_EVAL": "true",
        "MOUNT": "\n".join(mount.for_apptainer() for mount in mounts),
    }
    if nvidia:
        options["NV"] = "true"
    if capabilities := missing_capabilities():
        options["DROP_CAPS"] = ",".join(capabilities)
    variables = {f"{_prefix()}_{name}": value for name, value in options.items()}
    return variables | environment_inside(inside)


def environment_inside(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that set ``variables`` in the container."""
    return {f"{_prefix()}ENV_{name}": value for name, value in variables.items()}


def _prefix() -> str:
    return "SINGULARITY" if apptainer_command() == "singularity" else "APPTAINER"


def exec_command(image: str, args: Sequence[str]) -> list[str]:
    """Return the call that runs ``args`` in an image, as Snakemake's own does.

    Raises:
        ContainerError: there is no Apptainer here.
    """
    command = apptainer_command()
    if command is None:
        raise ContainerError("there is no command apptainer here: install Apptainer")
    return [command, "--silent", "exec", "--home", str(Path.cwd()), image, *args]


def missing_capabilities(status: Path = Path("/proc/self/status")) -> list[str]:
    """Return the capabilities that root lacks here, as it does in many virtual machines.

    As root Apptainer asks for all there are, and fails where one is missing.
    """
    if os.geteuid() != 0:
        return []
    line = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    allowed = int(line[1], 16) if line else (1 << len(_CAPABILITIES)) - 1
    return [f"CAP_{name}" for number, name in enumerate(_CAPABILITIES) if not allowed >> number & 1]


def image_for_snakemake(image: SifImage, links: Path) -> str:
    """Return how a rule may name an image.

    Snakemake puts the path bare into a shell line and refuses spaces in it; a link next to the
    working directory stands in for a path that has any.

    Args:
        image: the image.
        links: folder for such a link, relative to the working directory.

    Raises:
        ConfigurationError: the address itself has a space.
    """
    if re.fullmatch(r"[\w./:@%+=,-]+", image.location):
        return image.location
    if image.path is None:
        raise ConfigurationError(f"no image's address has spaces: {image.location}")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", image.path.name)
    # Files of one name lie in several folders, and each is the image of another backend.
    link = links / f"{digest(image.location)[:12]}-{name}"
    links.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != image.path:
        link.unlink(missing_ok=True)
        link.symlink_to(image.path)
    return str(link)
