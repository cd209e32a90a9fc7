"""``llem catalogue`` and ``llem config``: an engine's knobs, read from its release and shown."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.comparing import changes
from llenergymeasure.config.catalogue.knob import Catalogue, Changes
from llenergymeasure.config.catalogue.reading.engines import PACKAGES, read_release
from llenergymeasure.config.catalogue.reserved import why_reserved
from llenergymeasure.config.catalogue.showing import knob_lines, matching
from llenergymeasure.config.nearest import nearest_names
from llenergymeasure.errors import ConfigurationError, Problem

SHOWN = 20


def catalogue_command(
    backend: str, *, wheel: Path | None, installed: bool, out: Path | None
) -> None:
    """Read an engine's release into its catalogue, or say what the present one holds.

    Raises:
        ConfigurationError: there is no such backend or release, or both kinds were asked for.
    """
    _known(backend)
    if wheel is not None and installed:
        raise ConfigurationError("give --wheel or --installed, not both")
    if wheel is None and not installed:
        print("\n".join(_summary(store.load(backend))))
        return
    new = read_release(backend, wheel)
    path = out or store.path_of(backend)
    new = _compared(new, path)
    store.save(new, path)
    print("\n".join(_summary(new)))
    print(f"Written to {path}")


def config_command(backend: str, pattern: str | None, *, as_json: bool) -> None:
    """Print the knobs of a backend whose name or help holds ``pattern``.

    Raises:
        ConfigurationError: there is no such backend, or no knob that fits.
    """
    _known(backend)
    found = matching(backend, pattern)
    if not found and pattern is not None:
        catalogue = store.load(backend)
        names = [knob.name for _, knob in catalogue.knobs()]
        words = sorted({word for name in names for word in name.split("_")})
        near = nearest_names(pattern, [*words, *names])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        message = f"no knob of {catalogue.package} {catalogue.version} fits{hint}"
        raise ConfigurationError(Problem(message, found=pattern))
    if as_json:
        print(json.dumps([shown.as_dict() for shown in found], indent=1, ensure_ascii=False))
        return
    print("\n".join(knob_lines(backend, found, brief=pattern is None)))


def _known(backend: str) -> None:
    if backend in PACKAGES:
        return
    near = nearest_names(backend, list(PACKAGES))
    hint = f"; did you mean {near[0]}?" if near else ""
    message = f"has no catalogue: there are {', '.join(PACKAGES)}{hint}"
    raise ConfigurationError(Problem(message, key="backend", found=backend))


def _compared(new: Catalogue, path: Path) -> Catalogue:
    """Return the catalogue with what changed since the one at ``path``."""
    if not path.is_file():
        return new
    old = store.from_json(json.loads(path.read_text("utf-8")))
    if old.version == new.version:
        return replace(new, changes=old.changes)
    return replace(new, changes=changes(old, new))


def _summary(catalogue: Catalogue) -> Iterable[str]:
    yield f"{catalogue.package} {catalogue.version}"
    for section, knobs in catalogue.sections.items():
        where = (
            catalogue.backend
            if catalogue.backend == "pytorch"
            else f"{catalogue.backend}.{section}"
        )
        settable = sum(
            not knob.internal and why_reserved(where, knob.name) is None for knob in knobs.values()
        )
        yield f"  {section}: {len(knobs)} knobs, {settable} of them for a study to set"
    if catalogue.incomplete is not None:
        yield f"  Incomplete: {catalogue.incomplete}"
    if catalogue.changes is not None:
        yield from _changes(catalogue.changes)


def _changes(found: Changes) -> Iterable[str]:
    yield f"  Since {found.version}:"
    removed = [
        name if instead is None else f"{name} (now {instead})"
        for name, instead in found.removed.items()
    ]
    altered = [f"{name} ({how})" for name, how in found.altered.items()]
    for word, names in (("added", found.added), ("removed", removed), ("changed", altered)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            yield f"    {word}: {', '.join(names[:SHOWN])}{more}"
