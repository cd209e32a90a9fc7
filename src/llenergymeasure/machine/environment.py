"""The machine and the software a run was made with, gathered in one place."""

import os
import sys
from pathlib import Path
from typing import Any

import llenergymeasure
from llenergymeasure.files import sha256
from llenergymeasure.machine.gpus.state import cuda_driver_version, gpu_state
from llenergymeasure.machine.host import host
from llenergymeasure.machine.scheduler import job_facts
from llenergymeasure.machine.software import container, software
from llenergymeasure.processes import ChildError, completed


def environment() -> dict[str, Any]:
    """Return what describes this machine and process; what cannot be read is None.

    Takes tens of ms, most of them to import NVML's bindings. ``gpus`` are those a CUDA process
    here would use, in their state at this moment: gather it while a run is at rest.
    ``job`` is the scheduler's, None outside of any.
    """
    found = {**host(), **software(os.environ), "job": job_facts()}
    cards = gpus()
    if cards:
        found["cuda_driver"] = cuda_driver_version()
    return {**found, "gpus": cards}


def gpus() -> list[dict[str, Any]]:
    """Return the state of each GPU that a CUDA process here would use."""
    from llenergymeasure.machine.gpus.inventory import discover, visible

    return [gpu_state(gpu) for gpu in visible(discover()).gpus]


def provenance() -> dict[str, Any]:
    """Return which version of this project, from which source, ran on which interpreter."""
    folder = Path(llenergymeasure.__file__).parent
    return {
        "llenergymeasure_version": llenergymeasure.__version__,
        "llenergymeasure_commit": _commit(folder),
        "source_sha256": source_hash(folder),
        "python_executable": sys.executable,
        "container": container(os.environ),
    }


def source_hash(folder: Path) -> str:
    """Return one hash over all sources and their data below ``folder``, whatever their commit."""
    from llenergymeasure.ids import digest

    sources = sorted([*folder.rglob("*.py"), *folder.rglob("*.json")])
    return digest([[str(path.relative_to(folder)), sha256(path)] for path in sources])


def _commit(folder: Path) -> str | None:
    describe = ("describe", "--always", "--dirty", "--abbrev=40")
    try:
        done = completed(["git", "-C", str(folder), *describe], 5.0)
    except ChildError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
