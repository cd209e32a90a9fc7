"""``llem doctor``: what works on this machine, and the remedy for what does not."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import llenergymeasure
from llenergymeasure.cli.doctor_machine import (
    ASK_LIMIT_S,
    GIB,
    Finding,
    containers,
    engines,
    gpus,
    sensors,
)
from llenergymeasure.cli.output import JsonOption, Level, level, print_json
from llenergymeasure.config.preferences import (
    preferences_in_force,
    preferred_folder,
    user_configuration,
)
from llenergymeasure.containers.container_setup import hugging_face_home
from llenergymeasure.containers.images import image_folder
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, LlemError
from llenergymeasure.installation import install_command, workflow_root
from llenergymeasure.machine.folders import (
    RESULTS_LEAST_BYTES,
    free_bytes,
    shared_folder,
    why_not_writable,
)
from llenergymeasure.processes import ChildError, completed
from llenergymeasure.workload.cache import cache_folder
from llenergymeasure.workload.models.hub import offline

_HOST_PACKAGES = ("snakemake", "scipy", "vl-convert-python", "jinja2")
_PLUGIN = "snakemake_executor_plugin_slurm"
_SOURCES_BYTES = 10_000_000
"""Snakemake keeps copies of a workflow's own files there."""

_LOW_BYTES = 5 * GIB
"""A small model's weights fit in less; an engine's image takes more."""


def doctor(as_json: JsonOption = False) -> int:
    """Report what works on this machine, and how to fix the rest.

    Exits with 1 if something that is installed or needed does not work.
    """
    areas: dict[str, list[Finding]] = {}
    for area, look in _LOOKS.items():
        areas[area] = list(look())
        if not as_json:
            _print(area, areas[area])
    wrong = [each for found in areas.values() for each in found if each.state == "wrong"]
    if as_json:
        listed = [
            {"area": area, **each._asdict()} for area, found in areas.items() for each in found
        ]
        print_json({"ok": not wrong, "findings": listed})
    elif wrong:
        print(f"\nWrong: {', '.join(each.name for each in wrong)}")
    else:
        print("\nNothing is wrong.")
    return EXIT_FAILED if wrong else EXIT_OK


def _print(area: str, found: list[Finding]) -> None:
    encoding = (sys.stdout.encoding or "").lower()
    marks = _MARKS if encoding.startswith("utf") else _PLAIN_MARKS
    print(area)
    for each in found:
        if each.state == "ok" and level() == Level.QUIET:
            continue
        print(f"  {marks[each.state]} {each.name}: {each.detail}")
        if each.remedy is not None:
            print(f"      {each.remedy}")
    sys.stdout.flush()


def program() -> Iterator[Finding]:
    """Look at what is installed of this project."""
    python = f"Python {platform.python_version()} in {sys.prefix}"
    yield Finding("llem", "ok", f"{llenergymeasure.__version__}, {python}")
    yield _host_side()
    try:
        yield Finding("workflow", "ok", str(workflow_root() / "Snakefile"))
    except LlemError as error:
        yield Finding("workflow", "wrong", str(error))
    yield _settings()
    yield _locks()


def _host_side() -> Finding:
    versions, missing = [], []
    for name in _HOST_PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        remedy = install_command("host")
        return Finding("planning and reports", "wrong", f"not here: {', '.join(missing)}", remedy)
    from packaging.version import Version  # Snakemake needs it too

    least = re.search(r'min_version\("(.*)"\)', (workflow_root() / "Snakefile").read_text())
    there = importlib.metadata.version("snakemake")
    if least is not None and Version(there) < Version(least[1]):
        detail = f"snakemake {there}, and the workflow needs {least[1]} or newer"
        return Finding("planning and reports", "wrong", detail, install_command("host"))
    return Finding("planning and reports", "ok", ", ".join(versions))


def _settings() -> Finding:
    path = user_configuration()
    try:
        chosen = [each for each in preferences_in_force() if each.origin != "built in"]
    except LlemError as error:
        return Finding("your settings", "wrong", str(error), "fix it; `llem prefs` names the file")
    told = ", ".join(f"{each.key} ({each.origin.split(':')[0]})" for each in chosen)
    where = str(path) if path.is_file() else f"none in {path}"
    return Finding("your settings", "ok", f"{where}{'; set: ' if told else ''}{told}")


def _locks() -> Finding:
    """Look at where runs of all users see which GPU is taken."""
    name = "GPU locks"
    try:
        folder = shared_folder()
    except OSError as error:
        remedy = "name a folder that can be written to in LLEM_RUNTIME_DIR"
        return Finding(name, "wrong", str(error), remedy)
    if folder.for_all_users:
        return Finding(name, "ok", f"{folder.path}, shared by all users")
    detail = f"{folder.path} is this user's own: another user's run on the same GPU is not seen"
    remedy = "let all users write to the common folder, or name one in LLEM_RUNTIME_DIR"
    return Finding(name, "wrong", detail, remedy)


def cluster() -> Iterator[Finding]:
    """Look at SLURM."""
    if shutil.which("sbatch") is None:
        yield Finding("SLURM", "absent", "no command sbatch: this is no cluster's login node")
        return
    yield _controller()
    name = "SLURM for Snakemake"
    if importlib.util.find_spec(_PLUGIN) is None:
        yield Finding(name, "absent", "its plugin is not here", install_command("slurm"))
    else:
        yield Finding(name, "ok", _PLUGIN.replace("_", "-"))
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        yield Finding("this shell", "ok", f"inside job {job}: runs here use its allotment")


def _controller() -> Finding:
    remedy = "is this a login node of the cluster, and slurmctld running?"
    try:
        done = completed(["sinfo", "--noheader", "--format", "%R (%D nodes, %a, %G)"], ASK_LIMIT_S)
    except ChildError as error:
        return Finding("SLURM", "wrong", str(error), remedy)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return Finding("SLURM", "wrong", f"its controller does not answer: {said}", remedy)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    named = re.sub(r", \(\w+\)\)", ", no GPUs)", ", ".join(lines))
    return Finding("SLURM", "ok", named or "it answers, and has no partition")


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


def _folder(name: str, path: Path, least_bytes: int, remedy: str, ample_bytes: int = 0) -> Finding:
    """Look at a folder, or at where it will be made; nothing is made to find out."""
    there, path = path.is_dir(), path.absolute()
    near = next(each for each in (path, *path.parents) if each.exists())
    reason = f"{near} is no folder"
    if near.is_dir() and not os.access(near, os.W_OK | os.X_OK):
        reason = f"{near} cannot be written to"
    elif near.is_dir():
        reason = (why_not_writable(path) if there else None) or ""
    if reason:
        return Finding(name, "wrong", f"{path}: {reason}", remedy)
    free = free_bytes(path)
    if free is None:
        return Finding(name, "ok", f"{path}, room not known")
    detail = f"{path}, {free / GIB:.1f} GiB free{'' if there else ', made when needed'}"
    if free < least_bytes:
        return Finding(name, "wrong", f"{detail}: too little", remedy)
    if free < ample_bytes:
        return Finding(name, "absent", f"{detail}: little", remedy)
    return Finding(name, "ok", detail)


def hub() -> Iterator[Finding]:
    """Look at the Hugging Face hub's cache, network switch and token; the token is not shown."""
    home = hugging_face_home(os.environ)
    remedy = "a model of 7 billion parameters takes 15 GB; choose another disk in HF_HOME"
    yield _folder("hub cache", home, RESULTS_LEAST_BYTES, remedy, _LOW_BYTES)
    detail = "models that are not cached are downloaded from it; not tried here"
    if offline():
        detail = "not used, as HF_HUB_OFFLINE is set: only what is cached is there"
    yield Finding("hub", "ok", detail)
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
    if not file.is_file():
        remedy = "needed only for gated models: hf auth login, or set HF_TOKEN"
        return Finding("hub token", "absent", "none", remedy)
    if not os.access(file, os.R_OK):
        return Finding("hub token", "wrong", f"{file} cannot be read", "chmod u+r it")
    return Finding("hub token", "ok", f"in {file}")


_LOOKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "This program": program,
    "GPUs": gpus,
    "Energy": sensors,
    "Engines": engines,
    "Containers": containers,
    "Cluster": cluster,
    "Disk": storage,
    "Models and data": hub,
}
_MARKS = {"ok": "✓", "absent": "-", "wrong": "✗"}
_PLAIN_MARKS = {"ok": "ok", "absent": "--", "wrong": "NO"}
