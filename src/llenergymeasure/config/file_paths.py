"""Paths in a study file are relative to the file that names them, like its ``base``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config.identity import BUILT_IN, LOCAL_SETTINGS

FILES = (*LOCAL_SETTINGS, "quality.texts")

_OF_A_SERVER = ("openai.model", "openai.body.model")
"""What a server calls its model: a name, whatever lies here under it."""


def from_folder(
    value: Any, folder: Path, otherwise: dict[str, str], path: tuple[str, ...] = ()
) -> Any:
    """Return a study's values with each path that exists below ``folder`` as seen from here.

    What is not there keeps its words: it may be a model's id, or relative to the working folder as
    it was in earlier versions. ``otherwise`` is given what is found there alone, by its key.
    """
    if isinstance(value, Mapping):
        return {
            key: from_folder(each, folder, otherwise, (*path, key)) for key, each in value.items()
        }
    if isinstance(value, list):
        return [from_folder(each, folder, otherwise, path) for each in value]
    if not isinstance(value, str) or not value:
        return value
    named = f".{'.'.join(path)}"
    key = next((key for key in FILES if named.endswith(f".{key}")), None)
    builtin = any(value in names for names in BUILT_IN.values())
    if key is None or builtin or named.endswith(tuple(f".{each}" for each in _OF_A_SERVER)):
        return value
    if _exists(folder / value):
        return str(folder / value)
    if _exists(Path(value)):
        otherwise.setdefault(key, value)
    return value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
