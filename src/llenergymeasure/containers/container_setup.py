"""What every container of one study gets: its view of the host, and its environment."""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llenergymeasure
from llenergymeasure.containers.mounts import Mount, data_paths
from llenergymeasure.files import try_lock
from llenergymeasure.installation import workflow_root
from llenergymeasure.machine.environment import variables
from llenergymeasure.machine.folders import shared_folder
from llenergymeasure.machine.scheduler import job_variable
from llenergymeasure.workload.cache import cache_folder
from llenergymeasure.workload.models.hub import offline

INSIDE = "/opt/llem"
"""The folder of this project's source in a container."""

SCRIPTS = f"{INSIDE}/scripts"
TOKEN_FILE = f"{INSIDE}/hf_token"
PYTHON = "python3"
"""The interpreter's name in every image."""

ENGINE = (PYTHON, "-P", "-m", "llenergymeasure.run.engine.engine_process")
"""The command of an engine's process alone, for a supervisor outside its container."""

_TOKEN_PREFIX = "llem-token-"  # noqa: S105 - a file's name
_HUB_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE")
_SIMULATED = ("NVML_SIM_TRACE", "NVML_SIM_STATE")
"""Files of the simulated card that tests use."""

NOT_RECORDED = ("LLEM_NODE_METER",)
"""Changes results, but is kept out of records and command lines: it may hold a password."""

_HOST_ONLY = re.compile(
    r"^(LD_PRELOAD|CUDA_HOME|CUDA_PATH|CUDA_VERSION|LLEM_(PLAN|QUIET|RUNNER_.*|IMAGES|DOCKER)"
    r"|SLURM(?!_(STEP|JOB)_GPUS$).*|APPTAINER.*|NVIDIA_VISIBLE_DEVICES|NVIDIA_DRIVER_CAPABILITIES)$"
)
"""Variables that are only valid on the host."""


@dataclass(frozen=True)
class ContainerSetup:
    """Mounts and variables of a study's containers.

    Attributes:
        mounts: the parts of the host that they see.
        variables: their environment.
        results: the folder they write to.
        token: the hub's token; close it when no container needs it any more.
        meter_inside: whether the image holds the meter; else it works outside.
    """

    mounts: tuple[Mount, ...]
    variables: Mapping[str, str]
    results: Path
    token: "HubToken"
    meter_inside: bool = True

    @classmethod
    def for_runs(
        cls,
        configs: Iterable[Mapping[str, Any]],
        results: Path,
        *,
        meter_inside: bool = True,
    ) -> "ContainerSetup":
        """Return what containers get for runs of ``configs`` that write below ``results``.

        Raises:
            ConfigurationError: a path in a configuration means nothing in a container.
        """
        mounts = _mounts(configs, results.absolute())
        if not meter_inside:
            mounts.append(_bindings_mount())
        inside = inside_variables(os.environ)
        remove_abandoned_tokens()
        token = HubToken(os.environ)
        if token.path is not None:
            mounts.append(Mount(token.path, TOKEN_FILE))
            inside["HF_TOKEN_PATH"] = TOKEN_FILE
        return cls(tuple(mounts), inside, results.absolute(), token, meter_inside)


def _mounts(configs: Iterable[Mapping[str, Any]], results: Path) -> list[Mount]:
    """Return the mounts that runs of these configurations need, outer folders first."""
    cache, hub = cache_folder().resolve(), hugging_face_home(os.environ)
    read_only = offline()
    for folder in (results, cache, *(() if read_only else (hub,))):
        folder.mkdir(parents=True, exist_ok=True)
    hub_caches = [hub, *_existing_paths(_HUB_CACHES)]
    mounts = [
        *(Mount(path) for path in data_paths(configs)),
        *(Mount(path, read_only=read_only) for path in hub_caches if path.is_dir()),
        *(Mount(path.parent) for path in _existing_paths(_SIMULATED)),
        Mount(cache, read_only=False),
        Mount(shared_folder().path, read_only=False),
        Mount(results, read_only=False),
        Mount(Path(llenergymeasure.__file__).resolve().parent, f"{INSIDE}/llenergymeasure"),
        Mount(workflow_root().resolve() / "scripts", SCRIPTS),
    ]
    by_target = {mount.target or str(mount.source): mount for mount in mounts}
    return [by_target[target] for target in sorted(by_target)]


def _existing_paths(names: Iterable[str]) -> list[Path]:
    """Return the paths in these variables that exist."""
    paths = [Path(os.environ[name]).absolute() for name in names if os.environ.get(name)]
    return [path for path in paths if path.exists()]


def _bindings_mount() -> Mount:
    """Return NVML's bindings (one Python file of nvidia-ml-py) for an image that lacks them."""
    import pynvml

    return Mount(Path(str(pynvml.__file__)).resolve(), f"{INSIDE}/pynvml.py")


def hugging_face_home(environ: Mapping[str, str]) -> Path:
    """Return the Hugging Face cache. Source: huggingface_hub, "Environment variables".

    Without links: Apptainer cannot bind to a link in a folder that it has bound already.
    """
    if home := environ.get("HF_HOME"):
        return Path(home).expanduser().resolve()
    cache_home = environ.get("XDG_CACHE_HOME")
    base = Path(cache_home).expanduser() if cache_home else Path.home() / ".cache"
    return (base / "huggingface").resolve()


def inside_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment inside a container: what can change a result, and nothing else.

    Secrets are not among them; the hub's token goes by file (:class:`HubToken`).
    """
    relevant = {
        name: value for name, value in variables(environ).items() if not _HOST_ONLY.match(name)
    }
    return {
        **{name: environ[name] for name in NOT_RECORDED if name in environ},
        "LANG": "C.UTF-8",
        "TOKENIZERS_PARALLELISM": environ.get("TOKENIZERS_PARALLELISM", "false"),
        **relevant,
        **job_variable(environ),
        "HF_HOME": str(hugging_face_home(environ)),
        "LLEM_CACHE": str(cache_folder().resolve()),
        "PYTHONPATH": INSIDE,
        "PYTHONNOUSERSITE": "1",
        # What lies in the working folder is not ours to import.
        "PYTHONSAFEPATH": "1",
    }


def image_variables(image: str, digest: str | None) -> dict[str, str]:
    """Return how a run learns which image it is in: it cannot be seen from inside."""
    return {"LLEM_IMAGE": image} | ({} if digest is None else {"LLEM_IMAGE_DIGEST": digest})


class HubToken:
    """The Hugging Face token as a file that only its owner reads; gone when closed.

    A file that is made here stays locked while its process lives: one that nobody has locked was
    left by a process that was killed.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.path: Path | None = None
        self._handle: int | None = None
        token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN")
        token_path = environ.get("HF_TOKEN_PATH")
        if token:
            self.path = self._write(token, _token_folder(environ))
        elif token_path and Path(token_path).expanduser().is_file():
            self.path = Path(token_path).expanduser().absolute()

    def _write(self, token: str, folder: Path) -> Path:
        # mkstemp gives mode 0600; the name becomes a token's once the file is locked.
        self._handle, name = tempfile.mkstemp(prefix=f".{_TOKEN_PREFIX}", dir=folder)
        try_lock(self._handle)
        path = folder / Path(name).name.removeprefix(".")
        Path(name).rename(path)
        os.write(self._handle, token.encode())
        return path

    def close(self) -> None:
        """Remove the file if it was made here."""
        if self.path is not None and self._handle is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._handle)
        self.path = self._handle = None


def _token_folder(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_RUNTIME_DIR")
    return Path(base if base and os.access(base, os.W_OK) else tempfile.gettempdir())


def abandoned_tokens() -> Iterator[Path]:
    """Yield this user's files of tokens whose process was killed."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    for folder in {_token_folder(os.environ), Path(tempfile.gettempdir())}:
        for path in folder.glob(f"{_TOKEN_PREFIX}*"):
            with suppress(OSError):  # gone, or another user's
                handle = os.open(path, flags)
                try:
                    if os.fstat(handle).st_uid == os.geteuid() and try_lock(handle):
                        yield path
                finally:
                    os.close(handle)


def remove_abandoned_tokens() -> None:
    """Remove this user's files of tokens whose process was killed."""
    for path in abandoned_tokens():
        path.unlink(missing_ok=True)


def worker_command(backend: str) -> list[str]:
    """Return the command of a backend's worker in a container."""
    return [PYTHON, f"{SCRIPTS}/measure_{backend}.py"]


def nvidia_here() -> bool:
    """Return whether NVIDIA's driver is loaded on this machine."""
    return Path("/proc/driver/nvidia/version").exists()
