"""What a container sees of the host: one bind, and the data that a study names."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem

_LONGEST_PATH = 4096


@dataclass(frozen=True)
class Mount:
    """One bind.

    Attributes:
        source: on the host; it exists.
        target: in the container; the same as ``source`` if None.
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


def empty_folder(path: Path) -> str:
    """Return a folder of the container's own, empty and in memory, for ``--mount``."""
    return _csv(["type=tmpfs", f"destination={path}"])


def _csv(fields: Iterable[str], *more: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *more])
    return line.getvalue()


def data_paths(configs: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Return the files and folders that configurations name: models, adapters, data sets.

    A folder of links, as in the hub's cache, needs what they point at too.

    Raises:
        ConfigurationError: a path begins with ``~``, which means another folder in a container.
    """
    paths: dict[Path, None] = {}
    for text in dict.fromkeys(text for config in configs for text in texts(config)):
        if text.startswith("~"):
            message = "write the whole path: ~ is another folder in a container"
            raise ConfigurationError(Problem(message, found=text))
        path = _existing(text)
        if path is not None:
            paths[path.absolute()] = None
            paths.update(dict.fromkeys(_link_targets(path)))
    return list(paths)


def texts(value: Any) -> Iterator[str]:
    """Yield every text among the values of a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from texts(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)


def _existing(text: str) -> Path | None:
    if not text or len(text) > _LONGEST_PATH or "\0" in text or "\n" in text:
        return None
    path = Path(text)
    try:
        # A folder above the working directory would hide the image's own files.
        return path if path.exists() and not Path.cwd().is_relative_to(path.resolve()) else None
    except OSError:
        return None


def _link_targets(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.exists():
            yield entry.resolve().parent
