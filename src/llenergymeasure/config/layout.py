"""The parts of a study file, each checked on its own before any are combined."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from llenergymeasure.config.carbon import CarbonConfig
from llenergymeasure.config.document import Document
from llenergymeasure.config.execution import ExecutionConfig, Runners, runner_choice
from llenergymeasure.config.fields import unknown_key_message, unknown_keys
from llenergymeasure.config.merging import NotASectionError, assigned, flattened, merged
from llenergymeasure.config.messages import Rejection, rejections
from llenergymeasure.config.names import study_name
from llenergymeasure.config.nearest import among
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.config.preferences import preferred_folder, preferred_notify
from llenergymeasure.config.quality import QualityConfig
from llenergymeasure.config.section import Section
from llenergymeasure.config.strict_yaml import KeyPath
from llenergymeasure.config.study import DEFAULT_RESULTS
from llenergymeasure.config.sweep import (
    MAX_POINTS,
    STUDY_ONLY,
    Axis,
    backends_named,
    backends_scoped,
    count_points,
    parse_axes,
    points,
    unknown_backend,
)
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import BACKENDS, BackendName

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration to try, and where each of its own settings was written."""

    values: dict[str, Any]
    own: Mapping[tuple[str, ...], KeyPath]
    failure: Rejection | None = None


class Layout:
    """The parts of a study, each checked on its own before any are combined."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        values = document.values
        self.shared = {key: value for key, value in values.items() if key not in STUDY_ONLY}
        self._unknown_keys(self.shared, ())
        self.name = self._name(values.get("name"))
        self.execution = self._execution(values.get("execution"))
        self.runners = self._runners(values.get("runners"))
        self.notify = self._notify(values.get("notify"))
        self.carbon = self._carbon(values.get("carbon"))
        self.quality = self._quality(values.get("quality"))
        self.results_root = self._results_root()
        self.axes = self._axes()
        self.entries = self._entries()
        self.shared_backends = self._shared_backends()
        self.sweep_backends = self._sweep_backends()
        self._sections_are_used()
        if self.problems:
            raise ConfigurationError(self.problems)

    def candidates(self) -> Iterator[Candidate]:
        """Yield the grid's points, then the explicit experiments, each with what overrides it."""
        grid = self._grid() if self.axes or not self.entries else ()
        for candidate in itertools.chain(grid, self._explicit()):
            yield self._overridden(candidate)

    def _overridden(self, candidate: Candidate) -> Candidate:
        settings = {
            path: value
            for path, value in self.document.overrides.items()
            if path[0] not in BACKENDS or path[0] == candidate.values["backend"]
        }
        if not settings or candidate.failure is not None:
            return candidate
        own = {path: place for path, place in candidate.own.items() if path not in settings}
        try:
            return Candidate(assigned(candidate.values, settings), own)
        except NotASectionError as error:
            path = next(iter(settings))
            return replace(candidate, failure=Rejection(path, str(error), ..., alone=True))

    def _grid(self) -> Iterator[Candidate]:
        bases = {name: self._shared_for(name) for name in self.sweep_backends}
        for point in points(self.axes, self.sweep_backends):
            values = {**bases[point.backend], "backend": point.backend}
            try:
                yield Candidate(assigned(values, point.settings), point.written)
            except NotASectionError as error:
                path = next(iter(point.settings))
                written = {".".join(key): value for key, value in point.settings.items()}
                rejection = Rejection(path, str(error), ..., alone=False)
                yield Candidate({**values, **written}, point.written, rejection)

    def _explicit(self) -> Iterator[Candidate]:
        for place, entry in enumerate(self.entries):
            own: dict[tuple[str, ...], KeyPath] = {
                path: ("experiments", place, *path) for path in flattened(entry)
            }
            given = entry.get("backend")
            for backend in self.shared_backends if given is None else [given]:
                shared = self._shared_for(backend)
                yield Candidate({**merged(shared, entry), "backend": backend}, own)

    def _shared_for(self, backend: BackendName) -> dict[str, Any]:
        """Return the shared settings without the sections of other backends."""
        return {
            key: value
            for key, value in self.shared.items()
            if key != "backend" and (key not in BACKENDS or key == backend)
        }

    def _add(self, message: str, path: KeyPath, *, found: Any = ...) -> None:
        self.problems.append(self.document.problem(message, path, found=found))

    def _unknown_keys(self, values: Mapping[str, Any], prefix: KeyPath) -> None:
        for path in unknown_keys(values):
            names = tuple(str(part) for part in path)
            message = unknown_key_message(names, () if prefix else STUDY_ONLY)
            if "." in names[-1]:
                message = "unknown key; dotted keys are for sweep, write nested mappings here"
            self._add(message, (*prefix, *path), found=_value(values, path))

    def _name(self, given: Any) -> str:
        file = self.document.file
        if given is None:
            given = "study" if file is None else file.stem
        if not isinstance(given, str):
            self._add("must be text, in quotes", ("name",), found=given)
            return ""
        try:
            return study_name(given)
        except ValueError as error:
            self._add(str(error), ("name",), found=given)
            return ""

    def _execution(self, given: Any) -> ExecutionConfig:
        return self._section("execution", given, ExecutionConfig) or ExecutionConfig()

    def _notify(self, given: Any) -> NotifyConfig | None:
        return preferred_notify(self._section("notify", given, NotifyConfig))

    def _carbon(self, given: Any) -> dict[str, Any] | None:
        """Return the figures that the study declares, a country's grid looked up."""
        section = self._section("carbon", given, CarbonConfig)
        if section is None:
            return None
        try:
            return section.declared()
        except ConfigurationError as error:
            self._add(str(error), ("carbon", "country"), found=section.country)
            return None

    def _quality(self, given: Any) -> dict[str, Any] | None:
        """Return what is asked of the answers' quality; the file of texts by its whole path."""
        section = self._section("quality", given, QualityConfig)
        if section is None:
            return None
        asked = section.asked()
        if section.texts is not None:
            path = Path(section.texts).expanduser().absolute()
            if not path.is_file():
                self._add("is no file here", ("quality", "texts"), found=section.texts)
            asked["texts"] = str(path)
        return asked

    def _section(self, name: str, given: Any, model: type[SectionT]) -> SectionT | None:
        """Return a part that is the study's own; None if it is not given, or wrong."""
        if given is None:
            return None
        if not isinstance(given, Mapping):
            self._add("must be a mapping", (name,), found=given)
            return None
        try:
            return model.model_validate(given)
        except ValidationError as error:
            known = tuple(model.model_fields)
            for each in rejections(error, given, model):
                if len(each.path) == 1 and each.path[0] not in known:
                    message = f"unknown key{among(each.path[0], known)}"
                    each = Rejection(each.path, message, each.found, alone=True)
                self.problems.append(each.at((name,), self.document.places))
            return None

    def _runners(self, given: Any) -> Runners:
        runners: Runners = {}
        if given is None:
            return runners
        if not isinstance(given, Mapping) or not given:
            self._add("must be a mapping of backends to runners", ("runners",), found=given)
            return runners
        for name, value in given.items():
            backend = next((each for each in BACKENDS if each == name), None)
            if backend is None:
                path: KeyPath = ("runners", name)
                self.problems.append(unknown_backend(name, path, self.document.places))
                continue
            choice = runner_choice(value)
            if isinstance(choice, str):
                self._add(choice, ("runners", name), found=value)
                continue
            runners[backend] = choice
        return runners

    def _results_root(self) -> Path:
        given = self.shared.get("output_dir")
        if given is None:
            return preferred_folder(None)
        if not isinstance(given, str) or not given.strip() or not given.isprintable():
            self._add("must be the path of a folder", ("output_dir",), found=given)
            return DEFAULT_RESULTS
        return preferred_folder(Path(given))

    def _axes(self) -> list[Axis]:
        if "sweep" not in self.document.values:
            return []
        try:
            return parse_axes(self.document.values["sweep"], self.document.places)
        except ConfigurationError as error:
            self.problems.extend(error.problems)
            return []

    def _entries(self) -> list[Mapping[str, Any]]:
        if "experiments" not in self.document.values:
            return []
        given = self.document.values["experiments"]
        if not isinstance(given, list):
            self._add("must be a list of mappings", ("experiments",), found=given)
            return []
        if not given:
            message = "is empty; list an experiment, or remove it"
            self._add(message, ("experiments",), found=given)
        if len(given) > MAX_POINTS:
            self._add(f"lists {len(given)}; at most {MAX_POINTS}", ("experiments",))
        entries: list[Mapping[str, Any]] = []
        for place, entry in enumerate(given):
            path: KeyPath = ("experiments", place)
            if not isinstance(entry, Mapping):
                self._add("must be a mapping of settings to values", path, found=entry)
                continue
            self._unknown_keys(entry, path)
            backend = entry.get("backend")
            if backend is not None and backend not in BACKENDS:
                where = (*path, "backend")
                self.problems.append(unknown_backend(backend, where, self.document.places))
                continue
            entries.append(entry)
        return entries

    def _shared_backends(self) -> list[BackendName]:
        given = self.shared.get("backend")
        if given is None:
            return ["pytorch"]
        listed = given if isinstance(given, list) else [given]
        if not listed:
            self._add("is an empty list; name at least one", ("backend",), found=given)
        known: dict[BackendName, None] = {}
        for place, name in enumerate(listed):
            if name in BACKENDS:
                known[name] = None
                continue
            path = ("backend", place) if isinstance(given, list) else ("backend",)
            self.problems.append(unknown_backend(name, path, self.document.places))
        return list(known)

    def _sweep_backends(self) -> list[BackendName]:
        """Return the backends of the grid: named by an axis, shared, or by what is swept."""
        if self.problems:
            return []
        named, scoped = backends_named(self.axes), backends_scoped(self.axes)
        stated = "backend" in self.shared and self.shared["backend"] is not None
        if named and isinstance(self.shared.get("backend"), list):
            self._add("is a list here and in the sweep; keep one", ("backend",))
        backends = named or (self.shared_backends if stated else list(scoped))
        for name, label in scoped.items():
            if backends and name not in backends:
                message = (
                    f"sweeps {name}, which the study does not use: backend is "
                    f"{', '.join(backends)}; add {name} to backend or remove this key"
                )
                self._add(message, ("sweep", label))
        backends = backends or self.shared_backends
        count = 0 if self.problems else count_points(self.axes, backends)
        if count > MAX_POINTS:
            message = f"makes a grid of {count} points; at most {MAX_POINTS} can be planned"
            self._add(message, ("sweep",))
        return backends

    def _sections_are_used(self) -> None:
        used = set(self.sweep_backends) if self.axes or not self.entries else set()
        for entry in self.entries:
            given = entry.get("backend")
            used.update(self.shared_backends if given is None else [given])
        overridden = {path[0] for path in self.document.overrides}
        for name in BACKENDS:
            given = self.shared.get(name) is not None or name in overridden
            if self.problems or not given or name in used:
                continue
            message = (
                f"belongs to backend {name}, which the study does not use; "
                f"set backend: {name} or remove this section"
            )
            self._add(message, (name,))


def _value(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values[part]
    return values
