"""How this copy is installed: what adds packages to it, and what else is there of its name."""

import json
import shlex
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llenergymeasure.errors import ConfigurationError

DISTRIBUTION = "llenergymeasure-workflow"

_NAMESAKE = "llenergymeasure"
"""Another author's distribution, with a module and a command of the same names as these."""


def install_command(extra: str) -> str:
    """Return what installs the packages of one of this project's extras here.

    For an editable clone that is the clone with the extra; else, as from a wheel, which no index
    need hold, the packages by their names. Code that was only copied here (into an image) has no
    extras: its packages belong into the image.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return (
            f"add the packages of its extra {extra} (pyproject.toml) to this environment or image"
        )
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    clone = _editable_clone(distribution)
    if clone is not None:
        return f"{pip} -e {shlex.quote(f'{clone}[{extra}]')}"
    markers = {f'extra == "{extra}"', f"extra == '{extra}'"}
    requirements = [requirement.partition(";") for requirement in distribution.requires or ()]
    packages = [name.strip() for name, _, condition in requirements if condition.strip() in markers]
    return f"{pip} {shlex.join(packages)}"


def _editable_clone(distribution: metadata.Distribution) -> Path | None:
    """Return the folder an editable installation takes its code from (PEP 610)."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    folder = Path(unquote(urlsplit(origin["url"]).path))
    return folder if (folder / "pyproject.toml").is_file() else None


def workflow_root() -> Path:
    """Return the folder of the Snakefile and its company: a clone's, or the one inside a wheel.

    Raises:
        ConfigurationError: this installation has none.
    """
    package = Path(__file__).parent
    for folder in (package / "_workflow", package.parents[1]):
        if (folder / "Snakefile").is_file() and (folder / "rules").is_dir():
            return folder
    raise ConfigurationError("no Snakefile in this installation: install it from a clone again")


def engine_install_command(backend: str) -> str:
    """Return what installs the tested packages of an engine that has a file of them."""
    requirements = Path("envs", f"{backend}.txt")
    with suppress(ConfigurationError):
        requirements = workflow_root() / requirements
    return f"pip install -r {requirements}"


def namesake_warning() -> str | None:
    """Return in words that the other distribution of this name is installed here too."""
    try:
        other = metadata.distribution(_NAMESAKE)
    except metadata.PackageNotFoundError:
        return None
    if _editable_clone(other) is not None:  # this project's, from when it had that name
        return None
    return (
        f"{_NAMESAKE} {other.version}, another program with the same command and module, is "
        f"installed in {sys.prefix} too; each overwrites files of the other: pip uninstall "
        f"{_NAMESAKE}, then install {DISTRIBUTION} again, or give each an environment of its own"
    )
