"""Write the pages that list each engine's parameters: docs/engines/ENGINE.md.

python tools/engine_pages.py [FOLDER]
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from engine_energy import MATTERS

from llenergymeasure import files
from llenergymeasure.config.engine_parameters import (
    ENGINES,
    Schema,
    default_text,
    load,
    parameters,
    type_text,
)
from llenergymeasure.config.engine_parameters.reserved import why_reserved
from llenergymeasure.config.old_names import REPLACED

DEFAULT_FOLDER = Path("docs/engines")

_NAMES = {
    "pytorch": "transformers on PyTorch",
    "vllm": "vLLM",
    "sglang": "SGLang",
    "tensorrt": "TensorRT-LLM",
}
_CELL = 120


def page(backend: str) -> str:
    """Return the page of a backend's engine, as Markdown."""
    return "\n".join(_lines(backend, load(backend))) + "\n"


def write_pages(folder: Path) -> None:
    """Write the page of each engine into ``folder``, where its bytes change."""
    for backend in ENGINES:
        files.write_if_changed(folder / f"{backend}.md", page(backend).encode())


def _sections(backend: str, engine: Schema) -> dict[str, Schema]:
    paths = (
        [backend]
        if backend == "pytorch"
        else [f"{backend}.{name}" for name in engine["properties"]]
    )
    return {path: parameters(path) for path in paths}


def _lines(backend: str, engine: Schema) -> Iterator[str]:
    name, sections = _NAMES[backend], _sections(backend, engine)
    yield f"# {name}: all options"
    yield ""
    is_complete = "x-incomplete" not in engine
    origin = "As" if is_complete else "Copied out of the public sources of"
    method = " describes them, asked by `tools/dump_engine_parameters.py`" if is_complete else ""
    yield (
        f"{origin} {engine['x-package']} {engine['x-version']}{method}. "
        f"`llem config {backend} PATTERN` shows them at the command line, with a help text."
    )
    yield ""
    if not is_complete:
        yield f"**This list may be incomplete:** {engine['x-incomplete']}."
        yield ""
    if backend == "tensorrt":
        yield (
            "**Nothing here has been run on a GPU:** no release of TensorRT-LLM was at hand. What "
            "the tool claims of this engine is what its tests show without it."
        )
        yield ""
    for path, section in sections.items():
        yield f"- `{path}`: {len(section)} parameters"
    yield ""
    yield from _matters(backend, sections)
    yield from _retired(backend)
    yield from _reserved(sections)
    yield from _known(sections)
    yield f"Types, defaults and help texts are those of {name} (Apache License 2.0)."


def _matters(backend: str, sections: dict[str, Schema]) -> Iterator[str]:
    yield "## Those that matter to energy"
    yield ""
    yield "| setting | default | what it does to energy |"
    yield "|---|---|---|"
    for dotted, why in MATTERS[backend].items():
        section, _, name = dotted.partition(".")
        path = backend if backend == "pytorch" else f"{backend}.{section}"
        if name in sections[path]:
            yield f"| `{path}.{name}` | {_default_cell(sections[path][name])} | {why} |"
    yield ""


def _retired(backend: str) -> Iterator[str]:
    replacements = {key: why for key, why in REPLACED.items() if key.startswith(f"{backend}.")}
    if not replacements:
        return
    yield "## Older names that studies may still use"
    yield ""
    for key, why in replacements.items():
        yield f"- `{key}`: {why}"
    yield ""


def _reserved(sections: dict[str, Schema]) -> Iterator[str]:
    lines = [
        f"- `{path}.{name}`: {reason}"
        for path, section in sections.items()
        for name in section
        if (reason := why_reserved(path, name)) is not None
    ]
    if not lines:
        return
    yield "## Not for a study to set"
    yield ""
    yield from lines
    yield ""


def _known(sections: dict[str, Schema]) -> Iterator[str]:
    for path, section in sections.items():
        yield f"## All of `{path}`"
        yield ""
        yield "| name | type | default | |"
        yield "|---|---|---|---|"
        for name, schema in section.items():
            marks = [word for key, word in _MARKS.items() if schema.get(key)]
            kind = _code(type_text(schema))
            yield f"| `{name}` | {kind} | {_default_cell(schema)} | {', '.join(marks)} |"
        yield ""


_MARKS = {"deprecated": "deprecated", "readOnly": "set by the engine itself"}


def _default_cell(schema: Schema) -> str:
    text = default_text(schema)
    return "" if text is None else _code(text)


def _code(text: str) -> str:
    cut = text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
    return f"`{_escaped(cut)}`"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
