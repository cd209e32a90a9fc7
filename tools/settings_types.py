"""Writes the typed dictionary of a study's settings from its JSON Schema.

``python tools/settings_types.py [PATH]``; `make schema` calls it.
"""

import sys
from pathlib import Path
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.schema import study_schema
from llenergymeasure.files import write_text

DEFAULT_PATH = Path("src/llenergymeasure/api/settings.py")
HEAD = '''\
"""The settings of a study that a program may give by name. Made by `make schema`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class Settings(TypedDict, total=False):
    """Settings by the names that a study file has for them; a section is a mapping."""

'''
KINDS = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "object": "Mapping[str, Any]",
    "array": "Sequence[Any]",
}
NOT_HERE = {"base"}
"""What is relative to a file."""


def settings_types() -> str:
    """Return the module as text."""
    properties = study_schema()["properties"]
    assert set(ExperimentConfig.model_fields) <= set(properties)
    lines = [
        f"    {name}: {_kind(properties[name])}" for name in properties if name not in NOT_HERE
    ]
    return HEAD + "\n".join(lines) + "\n"


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_kind(item) for item in schema["anyOf"]))
    if "enum" in schema:
        return f"Literal[{', '.join(_quoted(item) for item in schema['enum'])}]"
    if "const" in schema:
        return f"Literal[{_quoted(schema['const'])}]"
    return KINDS[schema.get("type", "object")]


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    write_text(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PATH, settings_types())
