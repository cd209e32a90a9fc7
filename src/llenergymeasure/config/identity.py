"""The identity of an experiment: the part of its configuration that its id is computed from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llenergymeasure import files, ids
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.experiment import NO_TEMPLATE, OWN_TEMPLATE, SYNTHETIC, TINY_LLAMA
from llenergymeasure.errors import ConfigurationError, Problem

DATA_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".parquet", ".txt"})
CALIBRATION_SUFFIXES = frozenset({".json", ".yaml", ".yml"})
TEMPLATE_SUFFIXES = frozenset({".jinja", ".jinja2", ".j2", ".txt"})

LOCAL_SETTINGS: Mapping[str, frozenset[str]] = {
    "model": frozenset(),
    "dataset": DATA_SUFFIXES,
    "lora.adapter_path": frozenset(),
    "tensorrt.engine_path": frozenset(),
    "energy.calibration": CALIBRATION_SUFFIXES,
    "serving.trace": DATA_SUFFIXES,
    "chat.template": TEMPLATE_SUFFIXES,
}
"""Settings that may name a local file or folder, with the endings that only a file has."""

BUILT_IN_NAMES = {
    "model": (TINY_LLAMA,),
    "dataset": (SYNTHETIC,),
    "chat.template": (OWN_TEMPLATE, NO_TEMPLATE),
}

_CACHED_BYTES = 1024 * 1024
"""Smaller files are hashed again each time, which is quicker than a look-up."""


def local_path(value: str, suffixes: frozenset[str] = frozenset()) -> Path | None:
    """Return the file or folder that ``value`` names on this machine; None if it is an id.

    Args:
        value: a model, adapter or data set as a study gives it; relative to the working folder.
        suffixes: endings that only a file has, so that a missing one is reported.

    Raises:
        ConfigurationError: ``value`` can only be a path, and nothing is there.
    """
    try:
        path = Path(value).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError):
        raise ConfigurationError(
            Problem("cannot be looked up as a path", found=value[:60])
        ) from None
    if value.startswith(("/", "./", "../", "~")) or path.suffix.lower() in suffixes:
        raise ConfigurationError(
            Problem("no such file or folder; check the path", found=value[:200])
        )
    return None


def with_absolute_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resolved configuration that means the same in another working folder.

    Raises:
        ConfigurationError: a local file or folder is missing.
    """
    result = dict(config)
    for key, suffixes in LOCAL_SETTINGS.items():
        name = _local_name(result, key)
        path = None if name is None else local_path(name, suffixes)
        if path is not None:
            _set_value(result, key, str(path.absolute()))
    return result


def _local_name(config: Mapping[str, Any], key: str) -> str | None:
    """Return a setting that may name a local file; None where it is not set, or is built in."""
    value = value_at(config, key)
    return value if isinstance(value, str) and value not in BUILT_IN_NAMES.get(key, ()) else None


def _set_value(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a setting in ``config``, and leave the sections that it shares with others alone."""
    *parents, name = key.split(".")
    section = config
    for parent in parents:
        section[parent] = dict(section[parent])
        section = section[parent]
    section[name] = value


def local_files(config: Mapping[str, Any], *, in_folders: bool = False) -> Iterator[Path]:
    """Yield the files that a resolved configuration names here, also those in its folders."""
    for key in LOCAL_SETTINGS:
        name = _local_name(config, key)
        path = None if name is None else local_path(name)
        if path is not None and path.is_file():
            yield path
        elif path is not None and in_folders:
            yield from (path / file for file in _files_below(path))


class Identifier:
    """Gives experiments their ids, hashing each local file once."""

    def __init__(self) -> None:
        self._content_hashes: dict[tuple[str, frozenset[str]], str | None] = {}
        self._setting_digests: dict[tuple[str, str], str] = {}
        self._cache_path = _cache_folder() / "hashes.json"
        self._file_hashes: dict[str, str] | None = None
        self._has_new_hashes = False

    def experiment_id(self, config: dict[str, Any]) -> str:
        """Return the id of a resolved configuration.

        Where results go, the name of a preset and a default written out do not count, and what
        is read from this machine counts by its content: a renamed folder holds the same model.

        Raises:
            ConfigurationError: a local file or folder is missing or cannot be read.
        """
        identity = {key: value for key, value in config.items() if key != "output_dir"}
        decoder = identity.get("decoder")
        if isinstance(decoder, dict) and "preset" in decoder:
            identity["decoder"] = {k: v for k, v in decoder.items() if k != "preset"}
        openai = identity.get("openai")
        if isinstance(openai, dict) and openai.get("body"):
            identity["openai"] = {**openai, "body": _marking_none(openai["body"])}
        if identity.get("answer_length") == "fixed":
            del identity["answer_length"]
        for key, suffixes in LOCAL_SETTINGS.items():
            if key.partition(".")[0] in identity:
                self._replace_by_hash(identity, key, suffixes)
        return ids.experiment_id(identity, self._setting_digests)

    def save(self) -> None:
        """Store the hashes of large files for the next study."""
        if not self._has_new_hashes:
            return
        try:
            files.write_text(self._cache_path, json.dumps(self._file_hashes, indent=1))
        except OSError:
            return  # A cache that cannot be written only costs time.
        self._has_new_hashes = False

    def _replace_by_hash(self, config: dict[str, Any], key: str, suffixes: frozenset[str]) -> None:
        name = _local_name(config, key)
        if name is None:
            return
        cache_key = (name, suffixes)
        if cache_key not in self._content_hashes:
            try:
                path = local_path(name, suffixes)
                self._content_hashes[cache_key] = None if path is None else self.content_hash(path)
            except ConfigurationError as error:
                raise ConfigurationError(replace(error.problems[0], key=key)) from None
            except OSError as error:
                message = f"cannot be read: {error.strerror}"
                raise ConfigurationError(Problem(message, key=key, found=name)) from None
        content_hash = self._content_hashes[cache_key]
        if content_hash is not None:
            _set_value(config, key, {"sha256": content_hash})

    def content_hash(self, path: Path) -> str:
        """Return the hash of a file's bytes, or of all files below a folder and their names.

        Raises:
            ConfigurationError: the folder is empty, or it is neither file nor folder.
            OSError: something cannot be read.
        """
        if path.is_file():
            return self._sha256(path)
        names = sorted(_files_below(path))
        if not names:
            message = "is an empty folder; name one that holds a model"
            if not path.is_dir():
                message = "is a pipe or a device; name a file"
            raise ConfigurationError(Problem(message, found=str(path)))
        digest = hashlib.sha256()
        for name in names:
            digest.update(f"{name}\0{self._sha256(path / name)}\n".encode())
        return digest.hexdigest()

    def _sha256(self, path: Path) -> str:
        """Return a file's hash; a large one's is kept under path, size and time of change."""
        state = path.stat()
        if state.st_size < _CACHED_BYTES:
            return files.sha256(path)
        if self._file_hashes is None:
            stored = files.read_json(self._cache_path) or {}
            self._file_hashes = {k: v for k, v in stored.items() if isinstance(v, str)}
        key = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"
        if key not in self._file_hashes:
            self._file_hashes[key] = files.sha256(path)
            self._has_new_hashes = True
        return self._file_hashes[key]


def _marking_none(value: Any) -> Any:
    """Return a request's fields so that None counts: its field is left out, or sent as such."""
    if isinstance(value, dict):
        return {name: _marking_none(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_marking_none(item) for item in value]
    return {"none": True} if value is None else value


def _files_below(folder: Path) -> list[str]:
    """Return the regular files below ``folder``, without hidden ones, caches and studies' results.

    A model's folder may be the working folder, where results go: each run would change its id.
    """
    names = []
    for root, folders, file_names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__")) and not Path(root, name, ".lock").is_file()
        ]
        for name in file_names:
            path = Path(root, name)
            if not name.startswith(".") and path.is_file():
                names.append(path.relative_to(folder).as_posix())
    return names


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path("~/.cache").expanduser()
    return root / "llenergymeasure"
