"""Folders: whether they can be written to and have room; the hub's cache, and its token."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure.cli.doctor.finding import Finding
from llenergymeasure.config.preferences import preferred_folder
from llenergymeasure.containers.container_checks import RESULTS_LEAST_BYTES
from llenergymeasure.containers.images import image_folder
from llenergymeasure.containers.surroundings import hugging_face_home
from llenergymeasure.installation import install_command
from llenergymeasure.machine.disk import free_bytes, why_not_writable
from llenergymeasure.workload.cache import cache_folder
from llenergymeasure.workload.models.hub import offline

_GIB = 1024**3
_SOURCES_BYTES = 10_000_000
"""Snakemake keeps copies of a workflow's own files there."""

_LOW_BYTES = 5 * _GIB
"""A small model's weights fit in less; an engine's image takes more."""


def storage() -> Iterator[Finding]:
    """Look at where results, caches and images go."""
    folder = preferred_folder(None)
    yield _folder("results", folder, RESULTS_LEAST_BYTES, "choose another in output_dir")
    yield _folder("cache", cache_folder(), RESULTS_LEAST_BYTES, "choose another in LLEM_CACHE")
    if importlib.util.find_spec("snakemake") is not None:
        from snakemake.common import get_appdirs

        folder = Path(get_appdirs().user_cache_dir)
        yield _folder("Snakemake's cache", folder, _SOURCES_BYTES, "choose another: XDG_CACHE_HOME")
    images = image_folder()
    if images.is_dir():
        yield _folder("images", images, RESULTS_LEAST_BYTES, "choose another in LLEM_IMAGES")


def _folder(name: str, path: Path, least_bytes: int, remedy: str) -> Finding:
    there = path.is_dir()
    reason = why_not_writable(path) if there else _parent_problem(path)
    if reason is not None:
        return Finding(name, "wrong", f"{path.absolute()}: {reason}", remedy)
    free = free_bytes(path)
    if free is None:
        return Finding(name, "ok", f"{path.absolute()}, room not known")
    told = f"{path.absolute()}, {free / _GIB:.1f} GiB free{'' if there else ', made when needed'}"
    if free < least_bytes:
        return Finding(name, "wrong", f"{told}: too little", remedy)
    return Finding(name, "ok", told)


def _parent_problem(path: Path) -> str | None:
    """Return why a folder that is not there could not be made; nothing is made to find out."""
    at = path.absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    if not at.is_dir():
        return f"{at} is no folder"
    return None if os.access(at, os.W_OK | os.X_OK) else f"{at} cannot be written to"


def hub() -> Iterator[Finding]:
    """Look at the Hugging Face hub's cache, network switch and token; the token is not shown."""
    home = hugging_face_home(os.environ)
    finding = _folder("hub cache", home, RESULTS_LEAST_BYTES, "choose another in HF_HOME")
    free = free_bytes(home)
    if finding.state == "ok" and free is not None and free < _LOW_BYTES:
        remedy = "a model of 7 billion parameters takes 15 GB; choose another disk in HF_HOME"
        finding = Finding("hub cache", "absent", f"{finding.detail}: little", remedy)
    yield finding
    if offline():
        yield Finding("hub", "ok", "not asked: HF_HUB_OFFLINE is set; only what is cached is used")
    else:
        yield Finding("hub", "ok", "asked for models that are not cached")
    yield _token(home)
    if importlib.util.find_spec("datasets") is None:
        remedy = f"needed only for data sets of the hub: {install_command('datasets')}"
        yield Finding("data sets of the hub", "absent", "no package datasets", remedy)
    else:
        yield Finding("data sets of the hub", "ok", "the package datasets is here")


def _token(home: Path) -> Finding:
    named = os.environ.get("HF_TOKEN_PATH")
    file = Path(named).expanduser() if named else home / "token"
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return Finding("hub token", "ok", f"in {variable}")
    if file.is_file():
        if os.access(file, os.R_OK):
            return Finding("hub token", "ok", f"in {file}")
        return Finding("hub token", "wrong", f"{file} cannot be read", "chmod u+r it")
    remedy = "needed only for gated models: hf auth login, or set HF_TOKEN"
    return Finding("hub token", "absent", "none", remedy)
