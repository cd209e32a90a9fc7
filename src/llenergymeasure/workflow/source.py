"""Where the rules, scripts and profiles are: next to the package, or inside an installed wheel."""

from pathlib import Path

import llenergymeasure
from llenergymeasure.errors import ConfigurationError


def workflow_root() -> Path:
    """Return the folder that holds the Snakefile.

    Raises:
        ConfigurationError: this installation has no rules.
    """
    package = Path(llenergymeasure.__file__).parent
    for folder in (package / "_workflow", package.parents[1]):
        if (folder / "Snakefile").is_file() and (folder / "rules").is_dir():
            return folder
    raise ConfigurationError(
        f"no Snakefile next to {package}: reinstall llenergymeasure, or run inside its repository"
    )
