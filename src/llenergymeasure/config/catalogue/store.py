"""The committed catalogues: one file a backend, read when first asked for."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llenergymeasure import files
from llenergymeasure.config.catalogue.knob import Catalogue, Changes, Knob, Knobs

FOLDER = Path(__file__).parent / "data"
FORMAT = 1


@lru_cache
def load(backend: str) -> Catalogue:
    """Return the committed catalogue of a backend.

    Raises:
        KeyError: the backend has none.
    """
    path = FOLDER / f"{backend}.json"
    if not path.is_file():
        raise KeyError(backend)
    return from_json(json.loads(path.read_text("utf-8")))


def path_of(backend: str) -> Path:
    """Return the file of a backend's catalogue."""
    return FOLDER / f"{backend}.json"


def save(catalogue: Catalogue, path: Path) -> None:
    """Write a catalogue, a line for each knob; the same catalogue gives the same bytes."""
    files.write_text(path, "".join(_lines(catalogue)))


def _lines(catalogue: Catalogue) -> Iterator[str]:
    head = {
        "format": FORMAT,
        "backend": catalogue.backend,
        "package": catalogue.package,
        "version": catalogue.version,
        "incomplete": catalogue.incomplete,
        "source": list(catalogue.source),
        "changes": None
        if catalogue.changes is None
        else {
            "version": catalogue.changes.version,
            "added": list(catalogue.changes.added),
            "removed": dict(catalogue.changes.removed),
            "altered": dict(catalogue.changes.altered),
        },
    }
    yield "{\n"
    for key, value in head.items():
        yield f'"{key}": {_dump(value)},\n'
    for name, groups in (("sections", catalogue.sections), ("classes", catalogue.classes)):
        yield f'"{name}": {{\n'
        yield ",\n".join(
            f'"{group}": {{\n{_knob_lines(knobs)}\n}}' for group, knobs in groups.items()
        )
        yield "\n}" + (",\n" if name == "sections" else "\n")
    yield "}\n"


def _knob_lines(knobs: Knobs) -> str:
    return ",\n".join(f"{_dump(name)}: {_dump(knob.as_dict())}" for name, knob in knobs.items())


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def from_json(stored: Mapping[str, Any]) -> Catalogue:
    """Return the catalogue that a parsed file holds."""
    changes = stored.get("changes")
    return Catalogue(
        backend=stored["backend"],
        package=stored["package"],
        version=stored["version"],
        sections=_groups(stored["sections"]),
        classes=_groups(stored["classes"]),
        source=tuple(stored["source"]),
        incomplete=stored.get("incomplete"),
        changes=None
        if changes is None
        else Changes(
            version=changes["version"],
            added=tuple(changes["added"]),
            removed=changes["removed"],
            altered=changes["altered"],
        ),
    )


def _groups(stored: Mapping[str, Any]) -> dict[str, Knobs]:
    return {
        group: {name: Knob.from_dict(name, knob) for name, knob in knobs.items()}
        for group, knobs in stored.items()
    }
