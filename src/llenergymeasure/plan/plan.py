"""The plan: every run of a study in the order to run them, and the file it is kept in."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from llenergymeasure.config.dotted import leaves
from llenergymeasure.errors import ResultsError
from llenergymeasure.files import load_json
from llenergymeasure.units import BackendName, RunnerName

PLAN_VERSION = 1

PLAIN_VALUES = ("model", "backend", "precision")
"""Settings whose values need no name."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One experiment in one cycle.

    Attributes:
        experiment: its id.
        cycle: from 1.
        order: its place among all runs, from 1.
        backend: the engine that runs it.
        runner: where that engine runs.
        config: the settings that are set.
        swept: the value of each setting that the study varies.
        gap_s: rest before it.
        timeout_s: its wall-clock limit; None for none.
        session: a number that it has in common with the runs whose server it shares; None where
            it has its own.
    """

    experiment: str
    cycle: int
    order: int
    backend: BackendName
    runner: RunnerName
    config: dict[str, Any]
    swept: dict[str, Any] = field(default_factory=dict)
    gap_s: float = 0.0
    timeout_s: float | None = None
    session: int | None = None


_RUN_FIELDS = ("experiment", "cycle", "order", "backend", "runner", "gap_s", "timeout_s")


@dataclass(frozen=True)
class Plan:
    """Every run of a study, in order, and what was left out; in the order of its file.

    Attributes:
        study: its name, which is its folder's name too.
        study_design_hash: the hash of its ordered experiments.
        runs: in the order to run them.
        left_out: what cannot be run: ``config`` as it was written, and ``reason``.
        same_as: what another experiment's runs stand for: ``config``, ``experiment``, ``reason``.
        execution: how the runs follow each other: ``n_cycles``, ``cycle_order`` and so on.
        images: the image of each backend whose runner was given one.
        runner_reasons: why each backend's runner was chosen.
        swept_keys: dotted names of the settings that vary.
        notes: what a reader should know before running it, a sentence each.
        stopping: under a precision target, what the pilot of an experiment decided, by experiment.
        sections: what each run is given of the study's own sections, by name.
        written: the study as it was written; empty in plans of earlier versions.
        overrides: dotted names of settings that were set over it, and their values.
    """

    study: str
    study_design_hash: str
    runs: tuple[PlannedRun, ...]
    left_out: tuple[dict[str, Any], ...] = ()
    same_as: tuple[dict[str, Any], ...] = ()
    execution: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    runner_reasons: Mapping[str, str] = field(default_factory=dict)
    swept_keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stopping: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def run(self, experiment: str, cycle: int) -> PlannedRun:
        """Return the run of an experiment in a cycle.

        Raises:
            ResultsError: the plan has no such run.
        """
        run = self._by_name.get((experiment, cycle))
        if run is None:
            raise ResultsError(f"the plan of {self.study} has no run {experiment}/{cycle}")
        return run

    def label(self, run: PlannedRun) -> str:
        """Return a run's name for people: its settings and its cycle."""
        return f"{self.labels[run.experiment]}, cycle {run.cycle}"

    @cached_property
    def labels(self) -> dict[str, str]:
        """The settings in which each experiment differs from another one, as in the report."""
        swept = {
            run.experiment: {"backend": run.backend, **dict(leaves(run.swept))} for run in self.runs
        }
        keys = dict.fromkeys(key for settings in swept.values() for key in settings)
        differing = [key for key in keys if len({_dump(s.get(key)) for s in swept.values()}) > 1]
        return {
            run.experiment: settings_label(
                {key: swept[run.experiment].get(key) for key in differing}
            )
            or str(run.config.get("model", run.experiment))
            for run in self.runs
        }

    @property
    def experiments(self) -> tuple[str, ...]:
        """The ids of the experiments, in the order they are first run."""
        return tuple(dict.fromkeys(run.experiment for run in self.runs))

    @cached_property
    def _by_name(self) -> dict[tuple[str, int], PlannedRun]:
        return {(run.experiment, run.cycle): run for run in self.runs}

    def to_json_bytes(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """Return the plan as JSON, a line for each run; the same plan gives the same bytes.

        Args:
            extra: keys given next to the plan's own, which reading it back leaves aside.
        """
        empty_parts = (name for name in ("stopping", "sections") if not getattr(self, name))
        omitted = {*_IN_LINES, *empty_parts}
        values = {key: getattr(self, name) for name, key in _KEYS.items() if name not in omitted}
        head = {"schema_version": PLAN_VERSION, **values, **(extra or {})}
        parts = [f"{_dump(key)}: {_dump(value)}" for key, value in head.items()]
        for key in _IN_LINES:
            lines = self._run_lines() if key == "runs" else map(_dump, getattr(self, key))
            joined = ",\n".join(lines)
            parts.append(f'"{key}": [\n{joined}\n]' if joined else f'"{key}": []')
        return ("{\n" + ",\n".join(parts) + "\n}\n").encode()

    def _run_lines(self) -> Iterator[str]:
        shared: dict[str, str] = {}
        for run in self.runs:
            if run.experiment not in shared:
                shared[run.experiment] = _dump({"config": run.config, "swept": run.swept})[1:]
            head = {name: getattr(run, name) for name in _RUN_FIELDS}
            if run.session is not None:
                head["session"] = run.session
            yield f"{_dump(head)[:-1]}, {shared[run.experiment]}"

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Return the plan that a file holds.

        Raises:
            ResultsError: there is no such file, or it holds no plan this version reads.
        """
        try:
            stored = load_json(path)
        except OSError as error:
            raise ResultsError(f"{path}: no plan can be read: {error.strerror}") from None
        except ValueError as error:
            raise ResultsError(f"{path}: is no JSON: {error}") from None
        version = stored.get("schema_version") if isinstance(stored, dict) else None
        if version != PLAN_VERSION:
            raise ResultsError(
                f"{path}: has plan version {version}; this program reads {PLAN_VERSION}"
            )
        try:
            values = {
                name: stored[key]
                for name, key in _KEYS.items()
                if key in stored or key not in _ADDED_LATER
            }
            values["runs"] = [PlannedRun(**run) for run in values["runs"]]
            values["sections"] = run_sections(stored)
            for name in _OBJECTS:
                _check_object(name, values[name])
            tuples = {name: tuple(values[name]) for name in _LISTS if name in values}
            return cls(**{**values, **tuples})
        except (KeyError, TypeError) as error:
            raise ResultsError(f"{path}: is no plan: {error}") from None


_KEYS = {part.name: part.name for part in fields(Plan)} | {"swept_keys": "swept"}
"""What the file calls each part of a plan."""

_IN_LINES = ("runs", "left_out", "same_as")
_LISTS = (*_IN_LINES, "swept_keys", "notes")
_OBJECTS = ("execution", "images", "runner_reasons")
_ADDED_LATER = ("same_as", "stopping", "sections", "written", "overrides")


def _check_object(name: str, part: Any) -> None:
    if not isinstance(part, Mapping):
        raise TypeError(f"{name} is no object")


def run_sections(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what each run is given of a stored plan's sections; earlier plans hold them apart."""
    apart = ("carbon", "quality")
    return stored.get("sections") or {name: stored[name] for name in apart if stored.get(name)}


def settings_label(settings: Mapping[str, Any]) -> str:
    """Return the settings that have a value, by their dotted names, as one line for people."""
    return " · ".join(_text(key, value) for key, value in settings.items() if value is not None)


def _text(key: str, value: Any) -> str:
    text = value if isinstance(value, str) else _dump(value)
    return text if key in PLAIN_VALUES else f"{key.rpartition('.')[2]}={text}"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
