"""The page that audits an engine's knobs: known, renamed, removed, and those that matter.

``python -m llenergymeasure.config.catalogue.page [FOLDER]`` writes a page for each engine, by
default to ``docs/engines``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure import files
from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.energy import MATTERS
from llenergymeasure.config.catalogue.knob import Catalogue, Changes, Knob, type_text
from llenergymeasure.config.catalogue.reading.engines import PACKAGES
from llenergymeasure.config.catalogue.reserved import why_reserved
from llenergymeasure.config.catalogue.showing import default_text
from llenergymeasure.config.retired import REPLACED
from llenergymeasure.config.rules import RULES

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
    return "\n".join(_lines(backend, store.load(backend))) + "\n"


def write_pages(folder: Path) -> None:
    """Write the page of each engine into ``folder``, where its bytes change."""
    for backend in PACKAGES:
        files.write_if_changed(folder / f"{backend}.md", page(backend).encode())


def _lines(backend: str, catalogue: Catalogue) -> Iterator[str]:
    name = _NAMES[backend]
    yield f"# {name}: what can be set"
    yield ""
    whole = catalogue.incomplete is None
    origin = "Read from" if whole else "Copied out of the public sources of"
    helped = "the engine's own help where it has any" if whole else "a help text of ours"
    yield (
        f"{origin} {catalogue.package} {catalogue.version}. `llem config {backend} PATTERN` shows "
        f"them at the command line, with {helped}; "
        f"`llem catalogue {backend} --wheel FILE` reads them anew."
    )
    yield ""
    if catalogue.incomplete is not None:
        yield f"**This catalogue may be incomplete:** {catalogue.incomplete}."
        yield ""
    if backend == "tensorrt":
        yield (
            "**Nothing here has been run on a GPU:** no release of TensorRT-LLM was at hand. What "
            "the tool claims of this engine is what its tests show without it."
        )
        yield ""
    for section, knobs in catalogue.sections.items():
        yield f"- `{_study_section(backend, section)}`: {len(knobs)} knobs"
    yield ""
    yield from _matters(backend, catalogue)
    yield from _changed(catalogue.changes)
    yield from _retired(backend)
    yield from _reserved(backend, catalogue)
    yield from _rules(backend)
    yield from _known(backend, catalogue)
    if catalogue.source:
        yield "## Read from"
        yield ""
        yield f"{len(catalogue.source)} source files, never imported or run. "
        facts = "Types and defaults" if catalogue.incomplete else "Types, defaults and help texts"
        yield f"{facts} are those of {name} (Apache License 2.0)."


def _study_section(backend: str, section: str) -> str:
    return backend if backend == "pytorch" else f"{backend}.{section}"


def _key(backend: str, dotted: str) -> str:
    section, _, name = dotted.partition(".")
    return f"{_study_section(backend, section)}.{name}"


def _matters(backend: str, catalogue: Catalogue) -> Iterator[str]:
    yield "## Those that matter to energy"
    yield ""
    yield "| setting | default | what it does to energy |"
    yield "|---|---|---|"
    for dotted, why in MATTERS[backend].items():
        section, _, name = dotted.partition(".")
        knob = catalogue.sections[section][name]
        yield f"| `{_key(backend, dotted)}` | {_default_cell(knob)} | {why} |"
    yield ""


def _changed(changes: Changes | None) -> Iterator[str]:
    if changes is None:
        return
    yield f"## Since {changes.version}"
    yield ""
    if not (changes.added or changes.removed or changes.altered):
        yield "Nothing was added, removed or changed."
        yield ""
        return
    if changes.added:
        yield f"Added: {', '.join(f'`{name}`' for name in changes.added)}."
        yield ""
    renamed = {name: instead for name, instead in changes.removed.items() if instead}
    for name, instead in renamed.items():
        yield f"- `{name}` is gone; in its place: `{instead}`"
    if renamed:
        yield ""
    gone = [name for name in changes.removed if name not in renamed]
    if gone:
        yield f"Removed: {', '.join(f'`{name}`' for name in gone)}."
        yield ""
    for name, how in changes.altered.items():
        yield f"- `{name}`: {_escaped(how)}"
    if changes.altered:
        yield ""


def _retired(backend: str) -> Iterator[str]:
    found = {key: why for key, why in REPLACED.items() if key.startswith(f"{backend}.")}
    if not found:
        return
    yield "## Older names that studies may still use"
    yield ""
    for key, why in found.items():
        yield f"- `{key}`: {why}"
    yield ""


def _reserved(backend: str, catalogue: Catalogue) -> Iterator[str]:
    lines = []
    for section, knob in catalogue.knobs():
        where = _study_section(backend, section)
        reason = why_reserved(where, knob.name)
        if reason is not None:
            lines.append(f"- `{where}.{knob.name}`: {reason}")
    if not lines:
        return
    yield "## Not for a study to set"
    yield ""
    yield from lines
    yield ""


def _rules(backend: str) -> Iterator[str]:
    yield "## Rules across settings"
    yield ""
    yield (
        "Checked when a study is read; a point that breaks one is left out of the plan and named. "
        "Those that need the model's shape or the GPU are silent where it is not known, and "
        "checked again before the run."
    )
    yield ""
    yield "| what | whose check |"
    yield "|---|---|"
    for rule in RULES[backend]:
        yield f"| {rule.about} | {_escaped(rule.source)} |"
    yield ""


def _known(backend: str, catalogue: Catalogue) -> Iterator[str]:
    for section, knobs in catalogue.sections.items():
        if not knobs:
            continue
        yield f"## All of `{_study_section(backend, section)}`: {section}"
        yield ""
        yield "| name | type | default | |"
        yield "|---|---|---|---|"
        for knob in knobs.values():
            yield _row(knob)
        yield ""


def _row(knob: Knob) -> str:
    marks = [
        word
        for word, holds in (
            ("deprecated", knob.deprecated),
            ("set by the engine itself", knob.internal),
            ("required", knob.required),
        )
        if holds
    ]
    kind = _code(type_text(knob.type))
    return f"| `{knob.name}` | {kind} | {_default_cell(knob)} | {', '.join(marks)} |"


def _default_cell(knob: Knob) -> str:
    text = default_text(knob)
    return "" if text is None else _code(text)


def _code(text: str) -> str:
    cut = text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
    return f"`{_escaped(cut)}`"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
