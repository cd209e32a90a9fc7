"""Where the rules, scripts and profiles are: next to the package, or inside an installed wheel."""

from pathlib import Path

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.installation import workflow_folder


def workflow_root() -> Path:
    """Return the folder that holds the Snakefile.

    Raises:
        ConfigurationError: this installation has no rules.
    """
    folder = workflow_folder()
    if folder is None:
        raise ConfigurationError("no Snakefile in this installation: install it from a clone again")
    return folder
