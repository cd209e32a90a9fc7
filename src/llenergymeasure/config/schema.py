"""The JSON Schema of a study file, for editors and for checks outside Python.

``python -m llenergymeasure.config.schema [PATH]`` writes it, by default to
``config/study.schema.json``.
"""

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from llenergymeasure import files
from llenergymeasure.config.engine_parameters import Schema as Described
from llenergymeasure.config.engine_parameters import forms, load, parameters
from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import ENGINE_SECTIONS, settings, takes_any_key, takes_numbers
from llenergymeasure.config.old_names import FORMER_FIELDS
from llenergymeasure.config.ranges import MAX_VALUES
from llenergymeasure.config.study_file import StudyFile
from llenergymeasure.config.sweep import NOT_SWEPT
from llenergymeasure.units import BACKENDS

DEFAULT_PATH = Path("config/study.schema.json")
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

DESCRIPTION_LENGTH = 160


class _Untitled(GenerateJsonSchema):
    """Leaves out titles, which only repeat the key."""

    def field_title_should_be_set(self, _schema: Any) -> bool:
        """Set no title."""
        return False


def study_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a study file.

    It describes what an editor can check while typing. What depends on several values together
    is checked when the study is loaded.
    """
    schema = StudyFile.model_json_schema(schema_generator=_Untitled)
    experiment = ExperimentConfig.model_json_schema(schema_generator=_Untitled)
    definitions = experiment["$defs"] | schema.pop("$defs")
    _add_engine_parameters(definitions)
    energy = definitions["EnergyConfig"]["properties"]["backend"]
    energy["enum"] = [*energy["enum"], None]
    del energy["type"]
    del schema["required"]  # The name is the file's where none is written.
    shared, properties = experiment["properties"], schema["properties"]
    entry = {"type": "object", "additionalProperties": False, "properties": shared}
    properties["experiments"] |= {"items": entry}
    properties["sweep"] |= _sweep_schema(shared)
    definitions["Range"] = _range_schema()
    return {
        "$schema": DIALECT,
        **schema,
        "title": "LLenergyMeasure study",
        "description": "What to measure: shared settings, a sweep over some, explicit experiments.",
        "additionalProperties": False,
        "properties": shared | properties,
        "$defs": definitions,
    }


def _add_engine_parameters(definitions: Schema) -> None:
    """Add the parameters that engines describe themselves."""
    for section in ENGINE_SECTIONS:
        target = definitions[section.__name__]
        target["properties"] = target.get("properties", {}) | parameter_properties(section)
        target["additionalProperties"] = False
    for backend in dict.fromkeys(section.owner() for section in ENGINE_SECTIONS):
        definitions |= {
            f"{backend}.{name}": _editor_schema(backend, definition)
            for name, definition in load(backend).get("$defs", {}).items()
        }
    _add_former_fields(definitions)


def _add_former_fields(definitions: Schema) -> None:
    """Add the fields of engines' classes that studies may still give under an older name."""
    for key, names in FORMER_FIELDS.items():
        section, _, parameter = key.rpartition(".")
        class_name = parameters(section)[parameter]["$ref"].rpartition("/")[2]
        fields = definitions[f"{section.partition('.')[0]}.{class_name}"]["properties"]
        for former, current in names.items():
            fields[former] = {**fields[current], "deprecated": True}


def parameter_properties(section: type[EngineSection]) -> Schema:
    """Return the schema of each parameter that a section takes without having a field for it."""
    return {
        name: _editor_schema(section.owner(), parameter)
        for name in section.names()
        if name not in section.model_fields and (parameter := section.parameter(name)) is not None
    }


def _editor_schema(backend: str, schema: Any) -> Any:
    """Return an engine's schema as a part of the study's: its classes named, its texts short."""
    if isinstance(schema, list):
        return [_editor_schema(backend, item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    standard = {key: part for key, part in schema.items() if not key.startswith("x-")}
    result = {key: _editor_schema(backend, part) for key, part in standard.items()}
    if isinstance(schema.get("$ref"), str):
        result["$ref"] = schema["$ref"].replace("#/$defs/", f"#/$defs/{backend}.")
    if isinstance(schema.get("description"), str):
        result["description"] = _first_sentence(schema["description"])
    return result


def _first_sentence(text: str) -> str:
    sentence = re.split(r"(?<=[.:]) ", text, maxsplit=1)[0]
    if len(sentence) <= DESCRIPTION_LENGTH:
        return sentence
    return f"{sentence[: DESCRIPTION_LENGTH - 1].rsplit(' ', 1)[0]}…"


def sweep_pattern(section: type[EngineSection]) -> str:
    """Return the pattern of a sweep's key for a parameter, or for a key inside one."""
    fields = section.model_fields
    names = [re.escape(name) for name in section.names() if name not in fields]
    mappings = [re.escape(name) for name in fields if _is_mapping(section.parameter(name))]
    parts = [rf"({'|'.join(names)})(\..+)?"] if names else []
    parts += [rf"({'|'.join(mappings)})\..+"] if mappings else []
    return rf"^{re.escape(section.study_path)}\.({'|'.join(parts)})$"


def _is_mapping(parameter: Described | None) -> bool:
    return parameter is not None and "object" in forms(parameter)


def _sweep_schema(shared_names: Iterable[str]) -> Schema:
    axes = {}
    anything = {"anyOf": [{"type": "array", "minItems": 1}, {"$ref": "#/$defs/Range"}]}
    patterns = {sweep_pattern(section): anything for section in ENGINE_SECTIONS}
    for key, model, field in settings():
        if key in NOT_SWEPT:
            continue
        parent = "" if model is ExperimentConfig else f"$defs/{model.__name__}/"
        value = {"$ref": f"#/{parent}properties/{key.rpartition('.')[2]}"}
        # Null means unset.
        items = {"anyOf": [value, {"type": "null"}]}
        values: Schema = {"type": "array", "minItems": 1, "items": items}
        ranges = [{"$ref": "#/$defs/Range"}] if takes_numbers(field.annotation) else []
        axes[key] = {"description": field.description, "anyOf": [values, *ranges]}
        if takes_any_key(field.annotation):
            patterns[rf"^{re.escape(key)}\..+$"] = anything
    shared = "|".join(
        name for name in shared_names if name not in (*NOT_SWEPT, *BACKENDS, "backend")
    )
    patterns[rf"^({'|'.join(BACKENDS)})\.({shared})(\..+)?$"] = anything
    return {
        "type": "object",
        "minProperties": 1,
        "properties": axes,
        "patternProperties": patterns,
        "additionalProperties": {
            "description": "Settings that move together, under a label of your own.",
            "type": "array",
            "minItems": 1,
            "items": {"type": "object"},
        },
    }


def _range_schema() -> Schema:
    number = {"type": "number"}
    num = {"type": "integer", "minimum": 1, "maximum": MAX_VALUES}
    spacing = _mapping_schema(min=number, max=number, num=num)
    powers = _mapping_schema(min=number, max=number)
    return {
        "description": "num evenly spaced numbers, the same on a log scale, or powers of two.",
        "anyOf": [spacing, _mapping_schema(log=spacing), _mapping_schema(pow2=powers)],
    }


def _mapping_schema(**properties: Schema) -> Schema:
    """Return the schema of a mapping that has all of these keys, and no other."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def schema_text() -> str:
    """Return the schema as it is in its file."""
    return json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> None:
    """Write the schema to the path given, or to its usual place."""
    path = Path(arguments[0]) if arguments else DEFAULT_PATH
    files.write_if_changed(path, schema_text().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
