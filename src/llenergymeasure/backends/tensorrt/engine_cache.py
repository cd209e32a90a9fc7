"""Compiled engines, kept between runs: built once for a model, its options, a GPU and a release.

A folder holds an engine and ``llem-engine.json``, what it was built from. It appears whole or not
at all: it is built beside its place and moved in. A lock for each (flock(2), which goes with the
process that holds it) lets one process build while others wait, and keeps an engine that a run has
loaded from being removed.
"""

import fcntl
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llenergymeasure import files
from llenergymeasure.ids import digest

FACTS = "llem-engine.json"
"""Written into an engine's folder last of all: where it stands, the engine is whole."""

_HASH_DIGITS = 16


def engines_folder() -> Path:
    """Return where engines are kept: ``$LLEM_ENGINES``, or ``~/.llenergymeasure/trt-engines``."""
    own = os.environ.get("LLEM_ENGINES")
    return Path(own) if own else Path.home() / ".llenergymeasure" / "trt-engines"


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on; two engines with the same key are the same.

    Attributes:
        model: what names the model's content: a hash of its files, or its revision on the hub.
        options: of the build, as the engine's own arguments.
        gpus: name and compute capability of each GPU, in order.
        tensorrt_llm: ``tensorrt_llm.__version__``.
    """

    model: str
    options: dict[str, Any]
    gpus: tuple[str, ...]
    tensorrt_llm: str

    @property
    def hash(self) -> str:
        """Return the name of the engine's folder."""
        return digest(asdict(self))[:_HASH_DIGITS]


@dataclass(frozen=True)
class StoredEngine:
    """A whole engine in the cache.

    Attributes:
        folder: where it is.
        key: what it was built from.
        model_name: the model as the study that built it called it.
        built_at: wall-clock time, ISO 8601.
        build_s: how long building took.
        bytes: its size.
        used_s: seconds since a run last loaded it.
        in_use: whether a run has it loaded.
    """

    folder: Path
    key: EngineKey
    model_name: str
    built_at: str
    build_s: float
    bytes: int
    used_s: float
    in_use: bool = False

    @property
    def hash(self) -> str:
        """Return its name."""
        return self.folder.name


@dataclass
class EngineLease:
    """An engine that cannot be removed until ``release``.

    Attributes:
        folder: where it is.
        built: whether this process has just built it.
        build_s: how long it took to build, whoever did.
        waited_s: how long this process waited for another one to build it.
    """

    folder: Path
    built: bool
    build_s: float
    waited_s: float
    _handle: int = field(repr=False, default=-1)

    def release(self) -> None:
        """Let the engine be removed, as far as this process is concerned."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class EngineCache:
    """The engines in one folder, for any number of processes at once."""

    def __init__(self, folder: Path | None = None) -> None:
        """Take a folder; it need not be there yet."""
        self.folder = engines_folder() if folder is None else folder

    def has(self, key: EngineKey) -> bool:
        """Whether the engine is there, whole."""
        return (self.folder / key.hash / FACTS).is_file()

    def obtain(self, key: EngineKey, model_name: str, build: Callable[[Path], None]) -> EngineLease:
        """Return the engine of ``key``, built by ``build`` into an empty folder if need be.

        Of several processes that ask at once, one builds and the others wait for it. If it fails
        or is killed, nothing of it stays, and the next one builds.

        Raises:
            OSError: the folder cannot be written.
        """
        started_s = time.monotonic()
        handle, whole = self._ready_or_ours(key)
        waited_s = time.monotonic() - started_s
        place = self.folder / key.hash
        try:
            if not whole:
                self._build(key, model_name, build, place)
                fcntl.flock(handle, fcntl.LOCK_SH)
            os.utime(place / FACTS)
            facts = json.loads((place / FACTS).read_text())
        except BaseException:
            os.close(handle)
            raise
        return EngineLease(place, not whole, float(facts["build_s"]), waited_s, handle)

    def _ready_or_ours(self, key: EngineKey) -> tuple[int, bool]:
        """Return a held lock: shared, with the engine there, or exclusive, to build it.

        A builder holds it exclusively, so asking for a share waits until it is done or dead.
        """
        while True:
            handle = self._lock(key.hash, fcntl.LOCK_SH)
            try:
                if self.has(key):
                    return handle, True
                ours = files.try_lock(handle)
            except BaseException:
                os.close(handle)
                raise
            if not ours:
                # Another one has found nothing there either; one of us will be first.
                os.close(handle)
                time.sleep(random.uniform(0.01, 0.05))
                continue
            # Going from a share to the whole is not atomic (flock(2)): it may have been built.
            if self.has(key):
                fcntl.flock(handle, fcntl.LOCK_SH)
                return handle, True
            return handle, False

    def engines(self) -> list[StoredEngine]:
        """Return the whole engines, the one used last first."""
        found = [
            self._stored(path.parent) for path in self.folder.glob(f"*/{FACTS}") if path.is_file()
        ]
        return sorted(found, key=lambda engine: engine.used_s)

    def leftovers(self) -> list[Path]:
        """Return what broken-off builds have left, and nobody is at work on."""
        found = []
        for path in sorted(self.folder.glob(".*.build")):
            with self._try_lock(_name_of(path)) as ours:
                if ours:
                    found.append(path)
        return found

    def remove(self, engine: StoredEngine) -> bool:
        """Remove an engine; return false if a run has it loaded."""
        with self._try_lock(engine.hash) as ours:
            if not ours:
                return False
            # Without its facts it is no engine any more, however far the rest gets.
            (engine.folder / FACTS).unlink(missing_ok=True)
            shutil.rmtree(engine.folder)
            self._lock_path(engine.hash).unlink(missing_ok=True)
        return True

    def clear(self, leftover: Path) -> None:
        """Remove what a broken-off build has left, unless somebody is at work on it."""
        with self._try_lock(_name_of(leftover)) as ours:
            if ours:
                shutil.rmtree(leftover, ignore_errors=True)

    def _build(
        self, key: EngineKey, model_name: str, build: Callable[[Path], None], place: Path
    ) -> None:
        beside = self.folder / f".{key.hash}.build"
        # Whoever made this held the lock, which is ours now: it is dead.
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            started_s = time.monotonic()
            build(beside)
            facts = {
                "key": asdict(key),
                "model_name": model_name,
                "built_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "build_s": time.monotonic() - started_s,
            }
            _sync_below(beside)
            files.write_text(beside / FACTS, json.dumps(facts, indent=1, default=str) + "\n")
            files.sync_folder(beside)
            beside.rename(place)
            files.sync_folder(self.folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _stored(self, folder: Path) -> StoredEngine:
        facts = json.loads((folder / FACTS).read_text())
        key = facts["key"]
        with self._try_lock(folder.name) as ours:
            in_use = not ours
        return StoredEngine(
            folder=folder,
            key=EngineKey(key["model"], key["options"], tuple(key["gpus"]), key["tensorrt_llm"]),
            model_name=facts["model_name"],
            built_at=facts["built_at"],
            build_s=float(facts["build_s"]),
            bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            used_s=max(0.0, time.time() - (folder / FACTS).stat().st_mtime),
            in_use=in_use,
        )

    def _lock_path(self, name: str) -> Path:
        return self.folder / f".{name}.lock"

    def _lock(self, name: str, kind: int) -> int:
        """Return an open file that holds the lock; it is freed when the file is closed."""
        path = self._lock_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, kind)
                if _still_at(path, handle):
                    return handle
            except BaseException:
                os.close(handle)
                raise
            # Removed with its engine while we waited: another file has the name now, or none.
            os.close(handle)

    @contextmanager
    def _try_lock(self, name: str) -> Iterator[bool]:
        """Yield whether nobody else holds the lock; it is held inside the block if so."""
        try:
            handle = self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            os.close(handle)


def _name_of(leftover: Path) -> str:
    return leftover.name.removeprefix(".").removesuffix(".build")


def _still_at(path: Path, handle: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def _sync_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        elif path.is_dir():
            files.sync_folder(path)
