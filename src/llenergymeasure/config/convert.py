"""Studies of the original tool's releases 0.6 and later, rewritten in our format."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config import ranges, strict_yaml
from llenergymeasure.config.execution import ExecutionConfig
from llenergymeasure.config.fields import field_at
from llenergymeasure.config.merging import NotASectionError, assigned
from llenergymeasure.config.old_names import (
    ENGINES,
    ORIGINAL,
    ORIGINAL_DEFAULTS,
    ORIGINAL_VALUES,
    SPELLINGS,
    STRUCTURE,
    in_the_originals_format,
)
from llenergymeasure.config.sweep import is_group, meant
from llenergymeasure.config.validation_messages import describe
from llenergymeasure.errors import ConfigurationError, Problem

Settings = dict[str, Any]
"""Settings by dotted name, as in a sweep: ``pytorch.precision`` is for that engine only."""


def convert(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a study of the original tool as one of ours, and notes on what has no counterpart.

    Raises:
        ConfigurationError: the file cannot be read, is no such study, or contradicts itself.
    """
    old, _ = strict_yaml.read(path)
    if not isinstance(old, dict) or not in_the_originals_format(old):
        message = "is no study in the format of LLenergyMeasure 0.6 or 0.7; nothing to convert"
        raise ConfigurationError(Problem(message, file=path))
    for key, value, message in _malformed(old):
        raise ConfigurationError(Problem(message, key=key, found=describe(value), file=path))
    if old.get("base") is not None:
        base, _ = strict_yaml.read(path.parent / old["base"])
        taken = base if isinstance(base, dict) else {}
        old = {**{key: each for key, each in taken.items() if key not in STRUCTURE}, **old}
    try:
        conversion = _Conversion(old)
        return conversion.study(), list(conversion.notes)
    except (NotASectionError, ranges.RangeError) as error:
        raise ConfigurationError(Problem(str(error), file=path)) from error


def _malformed(old: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield each part with a wrong form for a study of the original tool, and the right form."""
    sweep, entries = old.get("sweep") or {}, old.get("experiments") or []
    for key, kind, word in (
        *((key, Mapping, "a mapping") for key in ("sweep", "runners", "images")),
        ("experiments", list, "a list"),
        ("base", str, "the path of a study"),
    ):
        if old.get(key) is not None and not isinstance(old[key], kind):
            yield key, old[key], f"must be {word}"
            return
    groups = {key: value for key, value in sweep.items() if is_group(value)}
    for key, listed in {"experiments": entries, **groups}.items():
        for each in listed:
            if not isinstance(each, Mapping):
                yield key, each, "must list mappings alone"
    given = [old.get("engine"), sweep.get("engine"), *(entry.get("engine") for entry in entries)]
    for engine in itertools.chain(*(each if isinstance(each, list) else [each] for each in given)):
        if engine not in (None, *ENGINES):
            yield "engine", engine, f"must be one of {', '.join(ENGINES)}"


class _Conversion:
    """The conversion of one study, with its notes."""

    def __init__(self, old: Mapping[str, Any]) -> None:
        self.notes: dict[str, None] = {}
        self._old = old
        self._sweep = dict(old.get("sweep") or {})
        self._entries = list(old.get("experiments") or [])
        self._engines = self._engines_of_the_grid()
        self._used = {*self._engines, *(self._engine_of(entry) for entry in self._entries)}

    def study(self) -> dict[str, Any]:
        """Return the study."""
        given = {key: value for key, value in self._old.items() if key not in STRUCTURE}
        for key in ("study_name", "name", "study_execution", "output"):
            given |= {key: self._old[key]} if key in self._old else {}
        shared = self._settings(given)
        own = {key: value for key, value in shared.items() if meant(_path(key)) != _path(key)}
        of_all = {key: value for key, value in shared.items() if key not in own}
        study = _nested({**ORIGINAL_DEFAULTS, **of_all})
        if self._engines:
            backends = [ENGINES[engine] for engine in self._engines]
            study["backend"] = backends if len(backends) > 1 else backends[0]
            study["sweep"] = {key: [value] for key, value in own.items()} | self._axes()
        if self._entries:
            study["experiments"] = [self._experiment(entry, own) for entry in self._entries]
        study["runners"] = self._runners()
        if "precision" not in str(study):
            self._note("dtype is not given: precision is bf16 here, not what the engine takes")
        ordered = dict.fromkeys(("name", "model", "backend")) | study
        return {key: value for key, value in ordered.items() if value}

    def _note(self, text: str) -> None:
        """Keep a note, once."""
        self.notes[text] = None

    def _engine_of(self, entry: Mapping[str, Any]) -> str:
        return str(entry.get("engine", self._old.get("engine", "transformers")))

    def _engines_of_the_grid(self) -> list[str]:
        """Return its engines in the original tool's order."""
        if not self._sweep and self._entries:
            return []
        given = self._sweep.pop("engine", None) or self._old.get("engine")
        scopes = {scope for key in self._sweep if (scope := _scope(_path(key))) is not None}
        if isinstance(given, list):
            return [str(engine) for engine in given]
        return sorted(scopes.union([given] if given else [])) or ["transformers"]

    def _settings(
        self, values: Any, path: tuple[str, ...] = (), within: str | None = None
    ) -> Settings:
        """Return each setting below ``values``; what has no counterpart is noted.

        Args:
            values: what was written.
            path: where.
            within: the engine that the settings are for, regardless of their names.
        """
        if isinstance(values, Mapping) and (values or not path):
            inner = (
                self._settings(value, (*path, *_path(key)), within) for key, value in values.items()
            )
            return {key: value for each in inner for key, value in each.items()}
        new = _today(path)
        engine = _scope(path) or within
        if new == "" or values == {} or (values is None and new != "energy.backend"):
            return {}
        if new is None or not _is_known(new):
            self._note(f"{'.'.join(path)} has no counterpart here, and is left out")
            return {}
        alone = engine is not None and _path(new)[0] != ENGINES.get(engine) and len(self._used) > 1
        key = f"{ENGINES[engine]}.{new}" if alone and engine is not None else new
        return {key: _value(new, values)} if engine in (None, *self._used) else {}

    def _axes(self) -> Settings:
        """Return the sweep as the original expands it: groups, axes of all engines, axes of one."""
        groups = [key for key, value in self._sweep.items() if is_group(value)]
        scoped = [key for key in self._sweep if _scope(_path(key)) is not None]
        axes: Settings = {}
        for key in sorted(self._sweep, key=lambda key: (key not in groups, key in scoped)):
            value = self._sweep[key]
            if key in groups:
                scope = _scope(_path(key))
                variants = [variant for entry in value for variant in _variants(entry)]
                label = key if field_at(_path(key)) is None else f"{key} settings"
                axes[label] = [self._settings(variant, (), scope) for variant in variants]
                continue
            listed = list(ranges.expand(value, False)) if isinstance(value, Mapping) else value
            for each in listed if isinstance(listed, list) else [listed]:
                for name, item in (self._settings(each, _path(key)) or {key: None}).items():
                    axes.setdefault(name, []).append(item)
        return {
            key: value for key, value in axes.items() if any(each is not None for each in value)
        }

    def _experiment(self, entry: Mapping[str, Any], own: Settings) -> dict[str, Any]:
        backend = ENGINES[self._engine_of(entry)]
        given = own | self._settings({k: v for k, v in entry.items() if k != "engine"})
        mine = {
            ".".join(meant(_path(key))): value
            for key, value in given.items()
            if key not in own or key.startswith(f"{backend}.")
        }
        return {"backend": backend, **_nested(mine)}

    def _runners(self) -> dict[str, str]:
        words = ORIGINAL_VALUES["runners"]
        given = {
            name: words.get(each, each) for name, each in (self._old.get("runners") or {}).items()
        }
        images = {name: f"docker:{each}" for name, each in (self._old.get("images") or {}).items()}
        return {
            ENGINES[name]: each for name, each in {**given, **images}.items() if name in self._used
        }


def _path(key: Any) -> tuple[str, ...]:
    return tuple(str(key).split("."))


def _today(path: tuple[str, ...]) -> str | None:
    """Return a key's replacements; empty if none is needed, None if there is no counterpart."""
    path = tuple(part for place in enumerate(path) for part in SPELLINGS.get(place, place[1:]))
    for length in range(len(path), 0, -1):
        new = ORIGINAL.get(".".join(path[:length]))
        if new is not None:
            return ".".join((new, *path[length:])) if new else ""
    return None


def _is_known(new: str) -> bool:
    section, _, name = new.partition(".")
    if section == "execution":
        return name in ExecutionConfig.model_fields
    return new == "name" or field_at(_path(new)) is not None


def _value(new: str, value: Any) -> Any:
    if new == "slo.percentile":
        return value * 100
    return value if isinstance(value, list) else ORIGINAL_VALUES.get(new, {}).get(value, value)


def _scope(path: tuple[str, ...]) -> str | None:
    """Return the engine that a key of the original tool belongs to."""
    return next(
        (part for part in path[:2] if part in ENGINES and path[0] in (part, "harness")), None
    )


def _variants(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the values that an entry of a group lists."""
    options = [
        value
        if isinstance(value, list) and value and not isinstance(value[0], list | dict)
        else [value]
        for value in entry.values()
    ]
    for chosen in itertools.product(*options):
        yield dict(zip(entry, chosen, strict=True))


def _nested(settings: Settings) -> dict[str, Any]:
    return assigned({}, {_path(key): value for key, value in settings.items()})
