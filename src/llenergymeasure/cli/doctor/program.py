"""This program: its version, Python, its own settings, and what it drives."""

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

import llenergymeasure
from llenergymeasure.cli.doctor.finding import Finding
from llenergymeasure.config.preferences import preferences_in_force, user_configuration
from llenergymeasure.errors import LlemError
from llenergymeasure.installation import install_command
from llenergymeasure.machine.shared_folder import shared_folder
from llenergymeasure.workflow.source import workflow_root

_HOST_PACKAGES = ("snakemake", "duckdb", "scipy", "vl-convert-python", "jinja2")


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
