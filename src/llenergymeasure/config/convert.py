"""Studies of the original tool's releases 0.6 and later, rewritten in our format."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config import ranges, strict_yaml
from llenergymeasure.config.execution import ExecutionConfig
from llenergymeasure.config.fields import field_at
from llenergymeasure.config.merge_settings import NotASectionError, assign
from llenergymeasure.config.old_names import (
    ENGINES,
    KEY_REPLACEMENTS,
    NON_SETTINGS,
    ORIGINAL_DEFAULTS,
    PART_SPELLINGS,
    VALUE_REPLACEMENTS,
    is_original_format,
)
from llenergymeasure.config.sweep import is_group, target_setting
from llenergymeasure.config.validation_messages import describe
from llenergymeasure.errors import ConfigurationError, Problem

Settings = dict[str, Any]
"""Settings by dotted name, as in a sweep: ``pytorch.precision`` is for that engine only."""


def convert(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a study of the original tool as one of ours, and notes on what has no counterpart.

    Raises:
        ConfigurationError: the file cannot be read, is no such study, or contradicts itself.
    """
    original, _ = strict_yaml.read(path)
    if not isinstance(original, dict) or not is_original_format(original):
        message = "is no study in the format of LLenergyMeasure 0.6 or 0.7; nothing to convert"
        raise ConfigurationError(Problem(message, file=path))
    for key, value, message in _malformed_parts(original):
        raise ConfigurationError(Problem(message, key=key, found=describe(value), file=path))
    if original.get("base") is not None:
        base, _ = strict_yaml.read(path.parent / original["base"])
        base = base if isinstance(base, dict) else {}
        inherited = {key: value for key, value in base.items() if key not in NON_SETTINGS}
        original = {**inherited, **original}
    try:
        conversion = _Conversion(original)
        return conversion.study(), list(conversion.notes)
    except (NotASectionError, ranges.RangeError) as error:
        raise ConfigurationError(Problem(str(error), file=path)) from error


def _malformed_parts(original: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield each part with a wrong form for a study of the original tool, and the right form."""
    sweep, entries = original.get("sweep") or {}, original.get("experiments") or []
    for key, kind, word in (
        *((key, Mapping, "a mapping") for key in ("sweep", "runners", "images")),
        ("experiments", list, "a list"),
        ("base", str, "the path of a study"),
    ):
        if original.get(key) is not None and not isinstance(original[key], kind):
            yield key, original[key], f"must be {word}"
            return
    groups = {key: value for key, value in sweep.items() if is_group(value)}
    for key, items in {"experiments": entries, **groups}.items():
        for entry in items:
            if not isinstance(entry, Mapping):
                yield key, entry, "must list mappings alone"
    for part in (original, sweep, *entries):
        engines = part.get("engine")
        for engine in engines if isinstance(engines, list) else [engines]:
            if engine not in (None, *ENGINES):
                yield "engine", engine, f"must be one of {', '.join(ENGINES)}"


class _Conversion:
    """The conversion of one study, with its notes."""

    def __init__(self, original: Mapping[str, Any]) -> None:
        self.notes: dict[str, None] = {}
        self._original = original
        self._sweep = dict(original.get("sweep") or {})
        self._entries = list(original.get("experiments") or [])
        self._engines = self._grid_engines()
        self._used_engines = {*self._engines, *map(self._entry_engine, self._entries)}

    def study(self) -> dict[str, Any]:
        """Return the study."""
        settings = {key: value for key, value in self._original.items() if key not in NON_SETTINGS}
        for key in ("study_name", "name", "study_execution", "output"):
            settings |= {key: self._original[key]} if key in self._original else {}
        shared = self._settings(settings)
        scoped = {k: v for k, v in shared.items() if target_setting(_path(k)) != _path(k)}
        common = {key: value for key, value in shared.items() if key not in scoped}
        study = _nest({**ORIGINAL_DEFAULTS, **common})
        if self._engines:
            backends = [ENGINES[engine] for engine in self._engines]
            study["backend"] = backends if len(backends) > 1 else backends[0]
            study["sweep"] = {key: [value] for key, value in scoped.items()} | self._axes()
        if self._entries:
            study["experiments"] = [self._experiment(entry, scoped) for entry in self._entries]
        study["runners"] = self._runners()
        if "precision" not in str(study):
            self._note("dtype is not given: precision is bf16 here, not what the engine takes")
        ordered = dict.fromkeys(("name", "model", "backend")) | study
        return {key: value for key, value in ordered.items() if value}

    def _note(self, text: str) -> None:
        """Keep a note, once."""
        self.notes[text] = None

    def _entry_engine(self, entry: Mapping[str, Any]) -> str:
        return str(entry.get("engine", self._original.get("engine", "transformers")))

    def _grid_engines(self) -> list[str]:
        """Return its engines in the original tool's order."""
        if not self._sweep and self._entries:
            return []
        named = self._sweep.pop("engine", None) or self._original.get("engine")
        scopes = {scope for key in self._sweep if (scope := _engine_scope(_path(key))) is not None}
        if isinstance(named, list):
            return [str(engine) for engine in named]
        return sorted(scopes.union([named] if named else [])) or ["transformers"]

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
            settings: Settings = {}
            for name, value in values.items():
                settings |= self._settings(value, (*path, *_path(name)), within)
            return settings
        key = _replacement_key(path)
        engine = _engine_scope(path) or within
        if key == "" or values == {} or (values is None and key != "energy.backend"):
            return {}
        if key is None or not _is_known(key):
            self._note(f"{'.'.join(path)} has no counterpart here, and is left out")
            return {}
        if engine not in (None, *self._used_engines):
            return {}
        value = _converted_value(key, values)
        if engine is not None and len(self._used_engines) > 1:
            backend = ENGINES[engine]
            key = key if _path(key)[0] == backend else f"{backend}.{key}"
        return {key: value}

    def _axes(self) -> Settings:
        """Return the sweep as the original expands it: groups, axes of all engines, axes of one."""
        groups = [key for key, value in self._sweep.items() if is_group(value)]
        scoped = [key for key in self._sweep if _engine_scope(_path(key)) is not None]
        axes: Settings = {}
        for key in sorted(self._sweep, key=lambda key: (key not in groups, key in scoped)):
            value = self._sweep[key]
            if key in groups:
                scope = _engine_scope(_path(key))
                variants = [variant for entry in value for variant in _variants(entry)]
                label = key if field_at(_path(key)) is None else f"{key} settings"
                axes[label] = [self._settings(variant, (), scope) for variant in variants]
                continue
            items = list(ranges.expand(value, False)) if isinstance(value, Mapping) else value
            for item in items if isinstance(items, list) else [items]:
                settings = self._settings(item, _path(key)) or {key: None}
                for name, setting in settings.items():
                    axes.setdefault(name, []).append(setting)
        return {key: values for key, values in axes.items() if values != [None] * len(values)}

    def _experiment(self, entry: Mapping[str, Any], scoped: Settings) -> dict[str, Any]:
        backend = ENGINES[self._entry_engine(entry)]
        settings = scoped | self._settings({k: v for k, v in entry.items() if k != "engine"})
        own_settings = {
            ".".join(target_setting(_path(key))): value
            for key, value in settings.items()
            if key not in scoped or key.startswith(f"{backend}.")
        }
        return {"backend": backend, **_nest(own_settings)}

    def _runners(self) -> dict[str, str]:
        new_names = VALUE_REPLACEMENTS["runners"]
        runners = self._original.get("runners") or {}
        runners = {name: new_names.get(runner, runner) for name, runner in runners.items()}
        images = self._original.get("images") or {}
        runners |= {name: f"docker:{image}" for name, image in images.items()}
        return {ENGINES[name]: runners[name] for name in runners if name in self._used_engines}


def _path(key: Any) -> tuple[str, ...]:
    return tuple(str(key).split("."))


def _replacement_key(path: tuple[str, ...]) -> str | None:
    """Return the key in place of one; empty if none is needed, None without a counterpart."""
    path = tuple(part for place in enumerate(path) for part in PART_SPELLINGS.get(place, place[1:]))
    for length in range(len(path), 0, -1):
        replacement = KEY_REPLACEMENTS.get(".".join(path[:length]))
        if replacement is not None:
            return ".".join((replacement, *path[length:])) if replacement else ""
    return None


def _is_known(key: str) -> bool:
    section, _, name = key.partition(".")
    if section == "execution":
        return name in ExecutionConfig.model_fields
    return key == "name" or field_at(_path(key)) is not None


def _converted_value(key: str, value: Any) -> Any:
    if key == "slo.percentile":
        return value * 100
    return value if isinstance(value, list) else VALUE_REPLACEMENTS.get(key, {}).get(value, value)


def _engine_scope(path: tuple[str, ...]) -> str | None:
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
    for combination in itertools.product(*options):
        yield dict(zip(entry, combination, strict=True))


def _nest(settings: Settings) -> dict[str, Any]:
    return assign({}, {_path(key): value for key, value in settings.items()})
