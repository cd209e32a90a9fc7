"""transformers' knobs: what ``from_pretrained`` takes, and the fields of ``GenerationConfig``."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from llenergymeasure.config.catalogue.knob import Catalogue, Knob, Type
from llenergymeasure.config.catalogue.reading.collecting import own_class
from llenergymeasure.config.catalogue.reading.fields import is_deprecated, tidy
from llenergymeasure.config.catalogue.reading.names import Found, Module, Sources
from llenergymeasure.config.catalogue.reading.release import Release
from llenergymeasure.config.catalogue.reading.types import TypeReader
from llenergymeasure.config.catalogue.reading.values import NotPlainError, evaluate

_GENERATION = "transformers.generation.configuration_utils"
_LOADING = "transformers.modeling_utils"

_ENTRY = re.compile(r"^(?P<indent> +)`?(?P<name>\w+)`?\s*:?\s*\((?P<type>.*)\)\s*:\s*(?P<text>.*)$")
_OBJECTS = {
    "state_dict",
    "device_mesh",
    "tqdm_class",
    "from_pipeline",
    "from_auto_class",
    "generation_config",
    "config",
    "_from_model_config",
    "transformers_version",
}
"""Arguments that stand for objects in memory, or that transformers sets by itself."""

_MAPPING: Type = ({"dict": ["any"]},)
_STATED: Mapping[str, Type] = {
    "quantization_config": _MAPPING,
    "distributed_config": _MAPPING,
    "compile_config": _MAPPING,
    "kernel_config": _MAPPING,
    "watermarking_config": _MAPPING,
    "prefill_chunk_size": ("int",),
    "gguf_file": ("str",),
    "adapter_name": ("str",),
    "tp_plan": ("str", {"dict": ["any"]}),
    "tp_size": ("int",),
    "trust_remote_code": ("bool",),
}
"""Types that the documentation lacks, or gives as an object which a mapping can stand for."""

_ON_THE_HUB = {
    "low_memory",
    "penalty_alpha",
    "dola_layers",
    "diversity_penalty",
    "num_beam_groups",
    "constraints",
    "force_words_ids",
}
"""Fields kept only so that a message can say that their method moved to the hub."""


def read(release: Release) -> Catalogue:
    """Return the catalogue of a release of transformers.

    Raises:
        ConfigurationError: the release is laid out otherwise than those known.
    """
    sources = Sources(release)
    generation = own_class(sources, _GENERATION, "GenerationConfig")
    loading = own_class(sources, _LOADING, "PreTrainedModel")
    return Catalogue(
        backend="pytorch",
        package=release.package,
        version=release.version,
        sections={"loading": _loading(loading), "generation": _generation(generation)},
        source=(generation.module.path, loading.module.path),
    )


@dataclass(frozen=True)
class _Documented:
    type: Type
    help: str


def _generation(found: Found) -> dict[str, Knob]:
    assert isinstance(found.node, ast.ClassDef)
    documented = _documentation(ast.get_docstring(found.node) or "", found.module)
    taken = dict(_popped(_method(found.node, "__init__"), found.module))
    return {
        name: _knob(name, default, documented)
        for name, default in taken.items()
        if not name.startswith("_")
    }


def _loading(found: Found) -> dict[str, Knob]:
    assert isinstance(found.node, ast.ClassDef)
    method = _method(found.node, "from_pretrained")
    documented = _documentation(ast.get_docstring(method) or "", found.module)
    knobs = {}
    for argument, default in zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True):
        knob = _knob(argument.arg, _value(default, found.module), documented)
        if argument.annotation is not None and knob.type == ("any",):
            knob = replace(knob, type=TypeReader().read(argument.annotation, found.module))
        knobs[argument.arg] = knob
    for name, (value, text) in _popped(method, found.module):
        knobs.setdefault(name, _knob(name, (value, text), documented))
    for name in documented:
        if name not in ("pretrained_model_name_or_path", "model_args", "kwargs"):
            knobs.setdefault(name, _knob(name, (None, None), documented))
    return {name: knob for name, knob in knobs.items() if not name.startswith("_")}


_Default = tuple[object, str | None]


def _knob(name: str, default: _Default, documented: Mapping[str, _Documented]) -> Knob:
    said = documented.get(name, _Documented(("any",), ""))
    kind = _STATED.get(name, said.type)
    if kind == ("any",) and isinstance(default[0], bool):
        kind = ("bool",)
    if name in _OBJECTS:
        kind = ("python",)
    return Knob(
        name=name,
        type=kind,
        default=default[0],
        default_text=default[1],
        help=said.help,
        internal=name in _OBJECTS,
        deprecated=is_deprecated(said.help) or name in _ON_THE_HUB,
    )


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef:
    return next(
        each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == name
    )


def _popped(method: ast.FunctionDef, module: Module) -> Iterator[tuple[str, _Default]]:
    """Yield the name and default of each ``kwargs.pop("name", default)``."""
    for node in ast.walk(method):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "pop":
            continue
        if not isinstance(node.func, ast.Attribute) or not isinstance(node.func.value, ast.Name):
            continue
        if node.func.value.id != "kwargs" or not node.args:
            continue
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            default = node.args[1] if len(node.args) > 1 else None
            yield name.value, _value(default, module)


def _value(node: ast.expr | None, module: Module) -> _Default:
    if node is None:
        return None, None
    try:
        return evaluate(node, module), None
    except NotPlainError:
        return None, ast.unparse(node)[:120]


def _documentation(text: str, module: Module) -> dict[str, _Documented]:
    """Return what a docstring in Hugging Face's style says of each argument."""
    found: dict[str, _Documented] = {}
    lines = text.splitlines()
    for place, line in enumerate(lines):
        entry = _ENTRY.match(line)
        if entry is None:
            continue
        rest = [entry["text"]]
        for following in lines[place + 1 :]:
            if following.strip() and not following.startswith(entry["indent"] + "  "):
                break
            rest.append(following)
        found[entry["name"]] = _Documented(_type(entry["type"], module), tidy(" ".join(rest)))
    return found


def _type(text: str, module: Module) -> Type:
    """Return the type that a docstring names, such as "`int` or `list[int]`, *optional*"."""
    plain = re.split(r",\s*(?:\*optional\*|defaults? to|\*Optional\*)", text)[0]
    plain = re.sub(r"\[`~?([\w.]+)`\]", r"\1", plain).replace("`", "")
    plain = plain.replace("(", "[").replace(")", "]").replace(" or ", " | ")
    try:
        node = ast.parse(plain.strip(), mode="eval").body
    except SyntaxError:
        return ("any",)
    kind = TypeReader().read(node, module)
    return ("any",) if kind == ("python",) else kind
