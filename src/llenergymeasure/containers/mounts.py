"""What a container sees of the host: source, results, caches, and the data a study names."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llenergymeasure
from llenergymeasure.containers.variables import INSIDE, TOKEN_FILE, HubToken, hugging_face_home
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.machine.shared_folder import shared_folder
from llenergymeasure.workload.cache import cache_folder

_LONGEST_PATH = 4096


@dataclass(frozen=True)
class Mount:
    """One bind.

    Attributes:
        source: on the host; it exists.
        target: in the container; the same as ``source`` if null.
        read_only: whether nothing may be written there.
    """

    source: Path
    target: str | None = None
    read_only: bool = True

    def for_docker(self) -> str:
        """Return it for Docker's ``--mount``: comma-separated, quoted where a path needs it."""
        return _csv(self._bind("target"), *(["readonly"] if self.read_only else []))

    def for_apptainer(self) -> str:
        """Return it as a line of ``APPTAINER_MOUNT``, whose lines must have equally many fields.

        There ``ro=false`` means read-only too: a writable mount repeats a field instead.
        """
        return _csv(self._bind("destination"), "ro" if self.read_only else _BIND)

    def _bind(self, target_key: str) -> list[str]:
        return [_BIND, f"source={self.source}", f"{target_key}={self.target or self.source}"]


_BIND = "type=bind"


def _csv(fields: Iterable[str], *more: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *more])
    return line.getvalue()


def run_mounts(
    configs: Iterable[Mapping[str, Any]],
    results: Path,
    scripts: Path,
    environ: Mapping[str, str],
    token: HubToken,
) -> list[Mount]:
    """Return what runs of these configurations need bound, outer folders first.

    Args:
        configs: resolved experiments.
        results: the study's folder; made if missing.
        scripts: the folder of the workers' scripts.
        environ: the environment that says where caches are.
        token: the hub's token.
    """
    cache = cache_folder().absolute()
    hub = hugging_face_home(environ)
    for folder in (results, cache):
        folder.mkdir(parents=True, exist_ok=True)
    offline = environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    hub_caches = [hub, *(Path(environ[name]) for name in _HUB_CACHES if environ.get(name))]
    if not offline:
        hub.mkdir(parents=True, exist_ok=True)
    found = [
        *(Mount(path) for path in data_paths(configs)),
        *(Mount(path.absolute(), read_only=offline) for path in hub_caches if path.is_dir()),
        *(Mount(path) for path in _simulated(environ)),
        Mount(cache, read_only=False),
        Mount(shared_folder().path, read_only=False),
        Mount(results.absolute(), read_only=False),
        Mount(Path(llenergymeasure.__file__).resolve().parent, f"{INSIDE}/llenergymeasure"),
        Mount(scripts.resolve(), f"{INSIDE}/scripts"),
        *([Mount(token.path, TOKEN_FILE)] if token.path is not None else []),
    ]
    by_target = {mount.target or str(mount.source): mount for mount in found}
    return [by_target[target] for target in sorted(by_target)]


def bindings_mount() -> Mount:
    """Return NVML's bindings (one Python file of nvidia-ml-py) for an image that lacks them."""
    import pynvml

    return Mount(Path(str(pynvml.__file__)).resolve(), f"{INSIDE}/pynvml.py")


_HUB_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE")


def data_paths(configs: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Return the files and folders that configurations name: models, adapters, data sets.

    A folder of links, as in the hub's cache, needs what they point at too.

    Raises:
        ConfigurationError: a path begins with ``~``, which means another folder in a container.
    """
    found: dict[Path, None] = {}
    for text in dict.fromkeys(text for config in configs for text in _texts(config)):
        if text.startswith("~"):
            message = "write the whole path: ~ is another folder in a container"
            raise ConfigurationError(Problem(message, found=text))
        path = _existing(text)
        if path is not None:
            found[path.absolute()] = None
            found.update(dict.fromkeys(_linked(path)))
    return list(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _existing(text: str) -> Path | None:
    if not text or len(text) > _LONGEST_PATH or "\0" in text or "\n" in text:
        return None
    path = Path(text)
    try:
        # A folder above the working directory would hide the image's own files.
        return path if path.exists() and not Path.cwd().is_relative_to(path.resolve()) else None
    except OSError:
        return None


def _linked(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.exists():
            yield entry.resolve().parent


def _simulated(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files of a simulated card, which tests put in place of a real one."""
    for name in ("NVML_SIM_TRACE", "NVML_SIM_STATE"):
        if environ.get(name) and Path(environ[name]).exists():
            yield Path(environ[name]).absolute().parent
