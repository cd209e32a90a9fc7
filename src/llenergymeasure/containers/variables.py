"""The environment inside a container: what can change a result, and nothing else of the host's."""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from llenergymeasure.machine.scheduler import handed_on
from llenergymeasure.machine.software import variables
from llenergymeasure.workload.cache import cache_folder

INSIDE = "/opt/llem"
"""Where this project's source lies in a container."""

TOKEN_FILE = f"{INSIDE}/hf_token"

_HOST_ONLY = re.compile(
    r"^(LD_PRELOAD|CUDA_HOME|CUDA_PATH|CUDA_VERSION|LLEM_(PLAN|QUIET|RUNNER_.*|IMAGES|DOCKER)"
    r"|SLURM.*|APPTAINER.*|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES)$"
)
"""Paths and words that mean something on the host alone."""


def hugging_face_home(environ: Mapping[str, str]) -> Path:
    """Return the Hugging Face cache. Source: huggingface_hub, "Environment variables"."""
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser().absolute()
    shared = environ.get("XDG_CACHE_HOME")
    base = Path(shared).expanduser() if shared else Path.home() / ".cache"
    return base.absolute() / "huggingface"


def inside_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a run's process in a container.

    Secrets are not among them; the hub's token goes by file (:class:`HubToken`).
    """
    passed = {
        name: value for name, value in variables(environ).items() if not _HOST_ONLY.match(name)
    }
    return {
        "LANG": "C.UTF-8",
        "TOKENIZERS_PARALLELISM": environ.get("TOKENIZERS_PARALLELISM", "false"),
        **passed,
        **handed_on(environ),
        "HF_HOME": str(hugging_face_home(environ)),
        "LLEM_CACHE": str(cache_folder().absolute()),
        "PYTHONPATH": INSIDE,
        "PYTHONNOUSERSITE": "1",
    }


class HubToken:
    """The Hugging Face token as a file that only its owner reads; gone when closed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.path: Path | None = None
        self._temporary: Path | None = None
        token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
        named = environ.get("HF_TOKEN_PATH")
        if token:
            base = environ.get("XDG_RUNTIME_DIR")
            place = base if base and os.access(base, os.W_OK) else None
            # mkstemp gives mode 0600.
            handle, name = tempfile.mkstemp(prefix="llem-token-", dir=place)
            with os.fdopen(handle, "w") as stream:
                stream.write(token)
            self.path = self._temporary = Path(name)
        elif named and Path(named).expanduser().is_file():
            self.path = Path(named).expanduser().absolute()

    def close(self) -> None:
        """Remove the file if it was made here."""
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink()
            self.path = self._temporary = None
