"""Paths in a study file are relative to the file that names them, like its ``base``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config.identity import BUILT_IN, LOCAL_SETTINGS
from llenergymeasure.config.strict_yaml import KeyPath

FILES = (*LOCAL_SETTINGS, "quality.texts")


def from_folder(value: Any, folder: Path, path: KeyPath = ()) -> Any:
    """Return a study's values with each path that exists below ``folder`` as seen from here.

    What is not there keeps its words: it may be a model's id, or relative to the working folder as
    it was in earlier versions.
    """
    if isinstance(value, Mapping):
        return {key: from_folder(each, folder, (*path, key)) for key, each in value.items()}
    if isinstance(value, list):
        return [from_folder(each, folder, path) for each in value]
    named = ".".join(str(part) for part in path)
    if (
        not isinstance(value, str)
        or not value
        or not any(f".{named}".endswith(f".{key}") for key in FILES)
    ):
        return value
    builtin = any(value in names for names in BUILT_IN.values())
    return value if builtin else _seen_from_here(value, folder)


def _seen_from_here(value: str, folder: Path) -> str:
    try:
        return str(folder / value) if (folder / value).exists() else value
    except (OSError, ValueError):
        return value
