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
    COMMAND_TIMEOUT_S,
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
    MIN_FREE_BYTES,
    free_bytes,
    shared_folder,
    why_not_writable,
)
from llenergymeasure.machine.scheduler import run_slurm
from llenergymeasure.processes import ChildError
from llenergymeasure.workload.cache import cache_folder
from llenergymeasure.workload.models.hub import offline

_HOST_PACKAGES = ("snakemake", "scipy", "vl-convert-python", "jinja2")
_PLUGIN = "snakemake_executor_plugin_slurm"
_SOURCES_BYTES = 10_000_000
"""Snakemake keeps copies of a workflow's own files there."""

_AMPLE_BYTES = 5 * GIB
"""A small model's weights fit in less; an engine's image takes more."""


def doctor(as_json: JsonOption = False) -> int:
    """Report what works on this machine, and how to fix the rest.

    Exits with 1 if something that is installed or needed does not work.
    """
    rows: list[dict[str, str | None]] = []
    for area, check in _AREAS.items():
        findings = list(check())
        rows += [{"area": area, **finding._asdict()} for finding in findings]
        if not as_json:
            _print(area, findings)
    wrong = [str(row["name"]) for row in rows if row["state"] == "wrong"]
    if as_json:
        print_json({"ok": not wrong, "findings": rows})
    else:
        print(f"\nWrong: {', '.join(wrong)}" if wrong else "\nNothing is wrong.")
    return EXIT_FAILED if wrong else EXIT_OK


def _print(area: str, findings: list[Finding]) -> None:
    encoding = (sys.stdout.encoding or "").lower()
    marks = _MARKS if encoding.startswith("utf") else _PLAIN_MARKS
    print(area)
    for finding in findings:
        if finding.state == "ok" and level() == Level.QUIET:
            continue
        print(f"  {marks[finding.state]} {finding.name}: {finding.detail}")
        if finding.remedy is not None:
            print(f"      {finding.remedy}")
    sys.stdout.flush()


def program() -> Iterator[Finding]:
    """Look at what is installed of this project."""
    python = f"Python {platform.python_version()} in {sys.prefix}"
    yield Finding("llem", "ok", f"{llenergymeasure.__version__}, {python}")
    yield _check_packages()
    try:
        yield Finding("workflow", "ok", str(workflow_root() / "Snakefile"))
    except LlemError as error:
        yield Finding("workflow", "wrong", str(error))
    yield _check_settings()
    yield _check_locks()


def _check_packages() -> Finding:
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

    minimum = re.search(r'min_version\("(.*)"\)', (workflow_root() / "Snakefile").read_text())
    installed = importlib.metadata.version("snakemake")
    if minimum is not None and Version(installed) < Version(minimum[1]):
        detail = f"snakemake {installed}, and the workflow needs {minimum[1]} or newer"
        return Finding("planning and reports", "wrong", detail, install_command("host"))
    return Finding("planning and reports", "ok", ", ".join(versions))


def _check_settings() -> Finding:
    path = user_configuration()
    try:
        chosen = [setting for setting in preferences_in_force() if setting.origin != "built in"]
    except LlemError as error:
        return Finding("your settings", "wrong", str(error), "fix it; `llem prefs` names the file")
    keys = ", ".join(f"{setting.key} ({setting.origin.split(':')[0]})" for setting in chosen)
    where = str(path) if path.is_file() else f"none in {path}"
    return Finding("your settings", "ok", f"{where}{'; set: ' if keys else ''}{keys}")


def _check_locks() -> Finding:
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
    yield _check_slurm()
    name = "SLURM for Snakemake"
    if importlib.util.find_spec(_PLUGIN) is None:
        yield Finding(name, "absent", "its plugin is not here", install_command("slurm"))
    else:
        yield Finding(name, "ok", _PLUGIN.replace("_", "-"))
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        yield Finding("this shell", "ok", f"inside job {job}: runs here use its allotment")


def _check_slurm() -> Finding:
    remedy = "is this a login node of the cluster, and slurmctld running?"
    command = ["sinfo", "--noheader", "--format", "%R (%D nodes, %a, %G)"]
    try:
        result = run_slurm(command, COMMAND_TIMEOUT_S)
    except ChildError as error:
        return Finding("SLURM", "wrong", str(error), remedy)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no answer"])[-1]
        return Finding("SLURM", "wrong", f"its controller does not answer: {reason}", remedy)
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    partitions = re.sub(r", \(\w+\)\)", ", no GPUs)", ", ".join(lines))
    return Finding("SLURM", "ok", partitions or "it answers, and has no partition")


def storage() -> Iterator[Finding]:
    """Look at where results, caches and images go."""
    folder = preferred_folder(None)
    yield _check_folder("results", folder, MIN_FREE_BYTES, "choose another in output_dir")
    yield _check_folder("cache", cache_folder(), MIN_FREE_BYTES, "choose another in LLEM_CACHE")
    if importlib.util.find_spec("snakemake") is not None:
        from snakemake.common import get_appdirs

        folder = Path(get_appdirs().user_cache_dir)
        yield _check_folder(
            "Snakemake's cache", folder, _SOURCES_BYTES, "choose another: XDG_CACHE_HOME"
        )
    images = image_folder()
    if images.is_dir():
        yield _check_folder("images", images, MIN_FREE_BYTES, "choose another in LLEM_IMAGES")


def _check_folder(
    name: str, path: Path, min_bytes: int, remedy: str, ample_bytes: int = 0
) -> Finding:
    """Look at a folder, or at where it will be made; nothing is made to find out."""
    exists, path = path.is_dir(), path.absolute()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    reason = f"{nearest} is no folder"
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"{nearest} cannot be written to"
    elif nearest.is_dir():
        reason = (why_not_writable(path) if exists else None) or ""
    if reason:
        return Finding(name, "wrong", f"{path}: {reason}", remedy)
    free = free_bytes(path)
    if free is None:
        return Finding(name, "ok", f"{path}, room not known")
    detail = f"{path}, {free / GIB:.1f} GiB free{'' if exists else ', made when needed'}"
    if free < min_bytes:
        return Finding(name, "wrong", f"{detail}: too little", remedy)
    if free < ample_bytes:
        return Finding(name, "absent", f"{detail}: little", remedy)
    return Finding(name, "ok", detail)


def hub() -> Iterator[Finding]:
    """Look at the Hugging Face hub's cache, network switch and token; the token is not shown."""
    home = hugging_face_home(os.environ)
    remedy = "a model of 7 billion parameters takes 15 GB; choose another disk in HF_HOME"
    yield _check_folder("hub cache", home, MIN_FREE_BYTES, remedy, _AMPLE_BYTES)
    detail = "models that are not cached are downloaded from it; not tried here"
    if offline():
        detail = "not used, as HF_HUB_OFFLINE is set: only what is cached is there"
    yield Finding("hub", "ok", detail)
    yield _check_token(home)
    if importlib.util.find_spec("datasets") is None:
        remedy = f"needed only for data sets of the hub: {install_command('datasets')}"
        yield Finding("data sets of the hub", "absent", "no package datasets", remedy)
    else:
        yield Finding("data sets of the hub", "ok", "the package datasets is here")


def _check_token(home: Path) -> Finding:
    token_path = os.environ.get("HF_TOKEN_PATH")
    file = Path(token_path).expanduser() if token_path else home / "token"
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(variable):
            return Finding("hub token", "ok", f"in {variable}")
    if not file.is_file():
        remedy = "needed only for gated models: hf auth login, or set HF_TOKEN"
        return Finding("hub token", "absent", "none", remedy)
    if not os.access(file, os.R_OK):
        return Finding("hub token", "wrong", f"{file} cannot be read", "chmod u+r it")
    return Finding("hub token", "ok", f"in {file}")


_AREAS: dict[str, Callable[[], Iterator[Finding]]] = {
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
