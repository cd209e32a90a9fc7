"""What every container of one study gets: its view of the host, and its environment."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.containers.mounts import Mount, bindings_mount, run_mounts
from llenergymeasure.containers.variables import INSIDE, TOKEN_FILE, HubToken, inside_variables

SCRIPTS = f"{INSIDE}/scripts"
PYTHON = "python3"
"""The interpreter's name in every image."""


@dataclass(frozen=True)
class Surroundings:
    """Mounts and variables of a study's containers.

    Attributes:
        mounts: what they see of the host.
        variables: their environment.
        results: the folder they write to.
        token: the hub's token; close it when no container needs it any more.
        meter_inside: whether the image holds the meter; else it works outside.
    """

    mounts: tuple[Mount, ...]
    variables: Mapping[str, str]
    results: Path
    token: HubToken
    meter_inside: bool = True

    @classmethod
    def of(
        cls,
        configs: Iterable[Mapping[str, Any]],
        results: Path,
        scripts: Path,
        *,
        meter_inside: bool = True,
    ) -> "Surroundings":
        """Return the surroundings of runs of ``configs`` that write below ``results``.

        Raises:
            ConfigurationError: a path in a configuration means nothing in a container.
        """
        token = HubToken(os.environ)
        mounts = run_mounts(configs, results, scripts, os.environ, token)
        if not meter_inside:
            mounts.append(bindings_mount())
        variables = inside_variables(os.environ)
        if token.path is not None:
            variables["HF_TOKEN_PATH"] = TOKEN_FILE
        return cls(tuple(mounts), variables, results.absolute(), token, meter_inside)


def worker_command(backend: str) -> list[str]:
    """Return the command of a backend's worker in a container."""
    return [PYTHON, f"{SCRIPTS}/measure_{backend}.py"]


def engine_command(out: Path, watch: int) -> list[str]:
    """Return the command of an engine's process alone, for a supervisor outside its container.

    Args:
        out: the run's folder.
        watch: the process whose end it does not outlive.
    """
    module = "llenergymeasure.run.engine.engine_process"
    return [PYTHON, "-m", module, "--out", str(out), "--watch", str(watch)]


def image_variables(image: str, digest: str | None) -> dict[str, str]:
    """Return how a run learns which image it is in: nobody can tell from inside."""
    return {"LLEM_IMAGE": image} | ({} if digest is None else {"LLEM_IMAGE_DIGEST": digest})


def nvidia_here() -> bool:
    """Return whether NVIDIA's driver is loaded on this machine."""
    return Path("/proc/driver/nvidia/version").exists()
