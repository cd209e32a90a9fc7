"""Write the documentation's reference pages from the code: every setting, column and field.

``python docs/generate_reference.py`` writes ``reference.md`` and ``fields.md`` next to this file;
a test holds them to what it would write. The study's settings say what they mean in their models.
The tables' columns do not: their meanings stand in ``column_meanings.yaml``, and a column without
one, or a meaning without its column, is an error.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import yaml
from pydantic import BaseModel

from llenergymeasure.analysis.comparison_tables import SCHEMAS
from llenergymeasure.analysis.pairwise_comparison import MAX_ALL_PAIRS
from llenergymeasure.analysis.study_runs import METRICS
from llenergymeasure.analysis.summary import STATISTICS, SUMMARY_SCHEMA
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.fields import submodels
from llenergymeasure.config.schema import study_schema
from llenergymeasure.config.study_file import StudyFile
from llenergymeasure.recording.samples import SCHEMA as SAMPLES_SCHEMA
from llenergymeasure.report.experiments import consequence
from llenergymeasure.results.columns import COLUMNS, RUN_SCHEMA
from llenergymeasure.results.outcome import Outcome
from llenergymeasure.results.record import Result
from llenergymeasure.results.serving import Latency
from llenergymeasure.run.result.batch_requests import REQUEST_SCHEMA
from llenergymeasure.run.result.traffic_table import TRAFFIC_SCHEMA
from llenergymeasure.units import BACKENDS
from llenergymeasure.validity_codes import VALIDITY

HERE = Path(__file__).resolve().parent
NONE = "-"
NOTE = "<!-- Written by docs/generate_reference.py (make reference); changes here are lost. -->"
TYPES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "mapping",
    "array": "list",
    "null": "null",
}

VALUES = frozenset({"synthetic", "random", "sequential"})
"""Words that begin a description and are values, which keep their small letter."""

STUDY_KEYS = ("name", "base", "experiments", "runners")
"""Keys of a study that stand in its first table."""

STUDYS_SECTIONS: dict[str, type[BaseModel]] = {
    name: model
    for name, field in StudyFile.model_fields.items()
    for model in submodels(field.annotation)
}

FORMAL_BOUND = 10**12
"""Bounds from here on only guard the arithmetic; no one needs to read them."""

Schema = Mapping[str, Any]


def reference_page() -> str:
    """Return the page of every setting a study may name."""
    schema = study_schema()
    definitions = schema["$defs"]
    own = {name: schema["properties"][name] for name in schema["properties"] if name != "sweep"}
    sections = [f"[`{name}`](#{name})" for name in STUDYS_SECTIONS if name not in STUDY_KEYS]
    lines = [
        "# All settings of a study",
        NOTE,
        "",
        "Every setting, from the models that read the file. [Writing a study]"
        "(../config/README.md) says how they go together. A default of *engine* is the "
        "engine's own; one of *protocol* follows "
        "from [`protocol`](../config/README.md#how-carefully-to-measure).",
        "",
        "## The study",
        "",
        "In addition to the settings of an experiment, a study has these keys, and `sweep`, "
        f"{', '.join(sections[:-1])} and {sections[-1]}.",
        "",
        *_table({name: own.pop(name) for name in STUDY_KEYS}, definitions),
        "",
        "## An experiment",
        "",
    ]
    studys = {name: schema["properties"][name] for name in STUDYS_SECTIONS}
    own = {name: setting for name, setting in own.items() if name not in studys}
    lines += _table(own, definitions)
    for name, setting in [*studys.items(), *own.items()]:
        for path, definition in _sections(name, setting, definitions):
            lines += ["", f"### {path}", ""]
            lines += [_sentence(definition.get("description", "")), ""]
            inner = _described(definition, path)
            lines += _table(inner, definitions, at=path, unset=_unset(path))
            if len(inner) < len(definition.get("properties", {})):
                backend = path.split(".", 1)[0]
                lines += [
                    "",
                    f"Every other argument of the engine's release is taken here too, "
                    f"checked against it; `llem config {backend}` shows them all.",
                ]
    return "\n".join(lines) + "\n"


def fields_page() -> str:
    """Return the page of every column and field of the results."""
    meanings = yaml.safe_load((HERE / "column_meanings.yaml").read_text())
    lines = [
        "# All columns and fields",
        NOTE,
        "",
        "What stands in each file of a [results folder](results.md). Names carry their units; "
        "`_ns` times are CLOCK_MONOTONIC nanoseconds on the host of the run. What was not observed "
        "is null, never 0.",
        "",
        "## runs.parquet and run.parquet",
        "",
        "One row a run. The swept settings follow, a column each, under their dotted keys.",
        "",
        *_columns(RUN_SCHEMA, _run_meanings(meanings["runs"])),
        "",
        "## summary.parquet and summary.csv",
        "",
        "One row an experiment. For each of "
        + ", ".join(f"`{name}`" for name in METRICS)
        + " there are four columns: "
        + ", ".join(f"`_{name}`" for name in STATISTICS)
        + " (arithmetic mean, standard deviation and the ends of the two-sided 95 % Student t "
        "interval over the runs in the mean, on the logarithm where all are positive). The swept "
        "settings follow.",
        "",
        *_columns(_without_metrics(SUMMARY_SCHEMA), meanings["summary"]),
        "",
        *_relations(meanings),
        "## samples.parquet",
        "",
        "The sensors' time series, one row for each thing a sensor said.",
        "",
        *_columns(SAMPLES_SCHEMA, meanings["samples"]),
        "",
        "## requests.parquet",
        "",
        "One row for each request inside the window.",
        "",
        *_columns(REQUEST_SCHEMA, meanings["requests"]),
        "",
        "Under [traffic](serving.md): one row for each request of the run, ramp-up, drain and "
        "failures included.",
        "",
        *_columns(TRAFFIC_SCHEMA, meanings["traffic"]),
        "",
        "## result.json",
        "",
        "The record of a finished run. It is written last and holds the SHA-256 of its siblings.",
        "",
        *_record(Result, {**_of_record(meanings["runs"]), **meanings["result"]}),
        "",
        "## outcome.json",
        "",
        "How the latest attempt ended; `attempts.jsonl` keeps every attempt.",
        "",
        *_record(Outcome, meanings["outcome"]),
        "",
        "## Validity codes",
        "",
        "| code | effect | meaning |",
        "|---|---|---|",
        *(
            f"| `{code}` | {consequence(code)} | {each.meaning} |"
            for code, each in VALIDITY.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _run_meanings(meanings: Mapping[str, str]) -> dict[str, str]:
    """Return what each column of a run means: as its field of the record does, where that says."""
    described = dict(_fields(Result, ""))
    found = {name: described.get(str(source)) for name, source in COLUMNS.items()}
    return {**{name: text for name, text in found.items() if text}, **meanings}


def _of_record(meanings: Mapping[str, str]) -> dict[str, str]:
    """Return what the fields of the record mean that are columns of a run, by their paths."""
    described = dict(_fields(Result, ""))
    return {
        source: meanings[name]
        for name, source in COLUMNS.items()
        if isinstance(source, str) and described.get(source) is None
    }


def _relations(meanings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables that relate experiments to each other."""
    for name, schema in SCHEMAS.items():
        yield from (f"## {name}.parquet and {name}.csv", "", RELATIONS[name], "")
        yield from (*_columns(schema, meanings[name]), "")


RELATIONS = {
    "comparisons": "One row for each quantity and pair of experiments: every pair of up to "
    f"{MAX_ALL_PAIRS} experiments of one meter, beyond that each with the first that has data.",
    "levels": "One row for each quantity, setting and value of it.",
    "pareto": "One row for each objective and experiment.",
}
"""What a row of each table is."""

PAGES = {"reference.md": reference_page, "fields.md": fields_page}


def _described(definition: Schema, path: str) -> dict[str, Any]:
    """Return a section's settings without those that only the engine describes."""
    properties: dict[str, Any] = definition.get("properties", {})
    model = _model_at(path)
    return {name: inner for name, inner in properties.items() if name in model.model_fields}


def _model_at(path: str) -> type[BaseModel]:
    if path in STUDYS_SECTIONS:
        return STUDYS_SECTIONS[path]
    model: type[BaseModel] = ExperimentConfig
    for name in path.split("."):
        (model,) = submodels(model.model_fields[name].annotation)
    return model


def _sections(path: str, setting: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield every section at or below a setting, with its dotted path."""
    for part in (setting, *setting.get("anyOf", [])):
        if "$ref" not in part:
            continue
        definition = definitions[part["$ref"].rsplit("/", 1)[-1]]
        yield path, definition
        for name, inner in _described(definition, path).items():
            yield from _sections(f"{path}.{name}", inner, definitions)


def _unset(path: str) -> str:
    """Return whose default a null is, in the section at ``path``."""
    if path in {"warmup", "baseline", "window"}:
        return "*protocol*"
    return "*engine*" if path.split(".", 1)[0] in BACKENDS else NONE


def _table(
    properties: Schema, definitions: Schema, *, at: str = "", unset: str = NONE
) -> list[str]:
    """Return the rows of one section's settings.

    Args:
        properties: the settings by name.
        definitions: the schema's sections.
        at: dotted path of the section, for links to those inside it.
        unset: what stands as the default of a setting that is not set.
    """
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, setting in properties.items():
        path = f"{at}.{name}" if at else name
        described = _sentence(setting.get("description", ""))
        examples = ", ".join(f"`{json.dumps(one)}`" for one in setting.get("examples", []))
        described += f" For example {examples}." if examples else ""
        cells = (
            f"`{name}`",
            _value(setting, definitions, path),
            _default(setting, unset),
            described,
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return lines


def _default(setting: Schema, unset: str) -> str:
    parts = (setting, *setting.get("anyOf", []))
    values = [part["default"] for part in parts if "default" in part]
    if values and values[0] is not None and not isinstance(values[0], dict):
        return f"`{json.dumps(values[0])}`"
    is_section = any("$ref" in part for part in parts)
    return NONE if is_section or not values else unset


def _value(setting: Schema, definitions: Schema, path: str) -> str:
    """Return what a setting can be, in words: its type, choices and bounds."""
    if "anyOf" in setting:
        parts = [_value(part, definitions, path) for part in setting["anyOf"]]
        return " or ".join(dict.fromkeys(part for part in parts if part != "null"))
    if "$ref" in setting:
        return f"[section](#{path.replace('.', '').lower()})"
    if "enum" in setting:
        return ", ".join(f"`{json.dumps(one).strip(chr(34))}`" for one in setting["enum"])
    if "const" in setting:
        return f"`{setting['const']}`"
    kind = TYPES.get(setting.get("type", ""), "any value")
    if kind == "list":
        items = setting.get("items", {})
        of = "" if "properties" in items or not items else f" of {_value(items, definitions, path)}"
        return kind + of
    return f"{kind}{_bounds(setting)}"


def _bounds(setting: Schema) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    parts = [
        f"{sign} {setting[name]:,.12g}"
        for name, sign in words.items()
        if name in setting and setting[name] < FORMAL_BOUND
    ]
    return f", {', '.join(parts)}" if parts else ""


def _columns(schema: pa.Schema, meanings: Mapping[str, str]) -> list[str]:
    _must_agree(schema.names, meanings)
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for field in schema:
        kind = str(field.type).replace(
            "dictionary<values=string, indices=int32, ordered=0>", "string"
        )
        if pa.types.is_list(field.type):
            kind = f"list of {field.type.value_type} values"
        lines.append(f"| `{field.name}` | {kind} | {_cell(_sentence(meanings[field.name]))} |")
    return lines


def _without_metrics(schema: pa.Schema) -> pa.Schema:
    metrics = {f"{metric}_{name}" for metric in METRICS for name in STATISTICS}
    return pa.schema([field for field in schema if field.name not in metrics])


def _record(model: Any, meanings: Mapping[str, str]) -> list[str]:
    fields = dict(_fields(model, ""))
    _must_agree([path for path, described in fields.items() if described is None], meanings)
    lines = ["| field | meaning |", "|---|---|"]
    for path, described in fields.items():
        lines.append(f"| `{path}` | {_cell(_sentence(described or meanings[path]))} |")
    return lines


def _fields(model: Any, prefix: str) -> Iterator[tuple[str, str | None]]:
    """Yield the path and description of each field, those of inner records after their own."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        inner = [
            part for part in (field.annotation, *get_args(field.annotation)) if _is_record(part)
        ]
        if not inner:
            yield path, field.description
        is_list = str(field.annotation).startswith("list")
        for record in inner:
            found = _fields(record, f"{path}[]." if is_list else f"{path}.")
            if record is Latency:
                found = ((each, f"{text} of the {field.description}") for each, text in found)
            yield from found


def _is_record(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _must_agree(names: list[str], meanings: Mapping[str, str]) -> None:
    missing = [name for name in names if name not in meanings]
    extra = [name for name in meanings if name not in names]
    if missing or extra:
        raise ValueError(
            f"docs/column_meanings.yaml: no meaning for {missing}; no such column: {extra}"
        )


def _sentence(text: str) -> str:
    """Return text on one line, with a capital where it begins with a word, and a full stop."""
    line = " ".join(text.replace("``", "`").split())
    first = line.split(" ", 1)[0]
    if first.isalpha() and first.islower() and first not in VALUES:
        line = line[:1].upper() + line[1:]
    return line if not line or line.endswith((".", ")")) else f"{line}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the pages."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
