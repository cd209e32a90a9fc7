"""Makes a study's experiments from the study as written: the grid, exclusions, shared settings."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llenergymeasure.config import old_names, protocol
from llenergymeasure.config.calibration import calibration_of
from llenergymeasure.config.candidates import Candidate, candidates
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.execution import (
    DEFAULT_CYCLES,
    PILOT_CYCLES,
    ExecutionConfig,
)
from llenergymeasure.config.experiment import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.identity import Identifier
from llenergymeasure.config.merging import flattened
from llenergymeasure.config.preferences import preferred_folder, preferred_notify
from llenergymeasure.config.rules import Shape, breaches
from llenergymeasure.config.section import Fault, Section, secret_fault
from llenergymeasure.config.strict_yaml import KeyPath, dotted
from llenergymeasure.config.study import Experiment, Study
from llenergymeasure.config.study_document import Document, checked
from llenergymeasure.config.study_file import StudyFile
from llenergymeasure.config.sweep import meant
from llenergymeasure.config.validation_messages import describe, faults_of, located
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.redact import secret_argument, without_secrets_in
from llenergymeasure.units import BACKENDS, BackendName

MAX_RUNS = 1_000_000
SHOWN_PROBLEMS = 20

_SETTINGS = tuple(name for name in ExperimentConfig.model_fields if name != "output_dir")

ShapeOf = Callable[[str], Shape | None]
"""Returns a model's shape by its name; None if it is not known."""


def expand(document: Document, shape_of: ShapeOf) -> Study:
    """Return the study that ``document`` describes.

    Args:
        document: the study as written.
        shape_of: gives a model's shape, for the rules that need it.

    Raises:
        ConfigurationError: the study cannot be used; it names every problem found.
    """
    study = checked(document)
    outcome = _Outcome(document, shape_of)
    for candidate in candidates(study, document.overrides):
        outcome.take(candidate)
    experiments = outcome.experiments()
    n_cycles = _cycles(study.execution, experiments)
    most = study.execution.cycles_at_most or n_cycles
    if len(experiments) * most > MAX_RUNS:
        message = f"{len(experiments)} experiments x {most} cycles are more than {MAX_RUNS} runs"
        fault = Fault(("execution", "n_cycles"), message, ...)
        raise ConfigurationError(located(fault, document.places))
    swept_keys = _swept_keys(study, document, experiments)
    runners = study.runners.choices()
    return Study(
        name=study.name,
        origin=document.file,
        experiments=tuple(
            replace(each, swept={key: value_at(each.config, key) for key in swept_keys})
            for each in experiments
        ),
        left_out=tuple(outcome.left_out),
        same_as=tuple(outcome.same_as),
        execution=study.execution,
        n_cycles=n_cycles,
        runners={name: runners[name] for name in _used(experiments) if name in runners},
        notify=preferred_notify(study.notify),
        sections=study.for_runs(),
        results_root=preferred_folder(Path(study.output_dir) if study.output_dir else None),
        swept_keys=swept_keys,
        notes=tuple(_notes(document, study, outcome, experiments, n_cycles)),
        written={key: value for key, value in document.values.items() if key != "notify"},
        overrides={".".join(path): value for path, value in document.overrides.items()},
    )


class _Outcome:
    """The result of each candidate: an experiment, a repeat of one, or left out."""

    def __init__(self, document: Document, shape_of: ShapeOf) -> None:
        self.document = document
        self._shape_of = shape_of
        self.left_out: list[dict[str, Any]] = []
        self.same_as: list[dict[str, Any]] = []
        self._by_work: dict[str, str] = {}
        self.repeats = 0
        self._found: dict[str, Experiment] = {}
        self._shared_problems: dict[str, Problem] = {}
        self._point_problems: dict[str, Problem] = {}
        self._identify = Identifier()
        self._calibrations: dict[str | None, list[Fault]] = {}
        self._sections: dict[tuple[str, str], Section] = {}

    def take(self, candidate: Candidate) -> None:
        """Try one candidate."""
        if candidate.failure is not None:
            self._reject(candidate, [candidate.failure])
            return
        try:
            model = self._model(candidate.values)
        except ValidationError as error:
            self._reject(candidate, faults_of(error, candidate.values, ExperimentConfig))
            return
        wrong = self._calibration_faults(model.energy.calibration)
        if wrong:
            self._reject(candidate, wrong)
            return
        broken = breaches(model, self._shape_of(model.model))
        if broken:
            self._reject(candidate, _faults(broken, candidate.values, alone=False))
            return
        config = {}
        for key in _SETTINGS:
            value = getattr(model, key)
            plain = value.plain if isinstance(value, Section) else value
            if plain is not None and plain != {}:
                config[key] = plain
        try:
            name = self._identify.experiment_id(config)
        except ConfigurationError as error:
            wrong = _faults(error.problems, candidate.values, alone=True)
            self._reject(candidate, wrong)
            return
        if name in self._found:
            self.repeats += 1
            return
        work = _greedy_work(model, config)
        first = name if work is None else self._by_work.setdefault(work, name)
        if first != name:
            why = _why_same(model)
            self.same_as.append({"config": config, "experiment": first, "reason": why})
            return
        self._found[name] = Experiment(name, config, model, {})

    def _model(self, values: Mapping[str, Any]) -> ExperimentConfig:
        """Return the experiment; sections that several experiments share are made once."""
        known = {key: (key, repr(each)) for key, each in values.items() if isinstance(each, dict)}
        ready = {key: self._sections[name] for key, name in known.items() if name in self._sections}
        model = ExperimentConfig.model_validate({**values, **ready})
        for key in known.keys() - ready.keys():
            if isinstance(section := getattr(model, key), Section):
                self._sections[known[key]] = section
        return model

    def _calibration_faults(self, path: str | None) -> list[Fault]:
        """Return what is wrong with a calibration file; each is read once."""
        if path not in self._calibrations:
            self._calibrations[path] = []
            try:
                calibration_of(path)
            except ConfigurationError as error:
                key = ("energy", "calibration")
                self._calibrations[path] = [Fault(key, str(each), ...) for each in error.problems]
        return self._calibrations[path]

    def experiments(self) -> list[Experiment]:
        """Return the experiments, each once.

        Raises:
            ConfigurationError: a setting that all share is wrong, or no point can be run.
        """
        self._identify.save()
        if self._shared_problems:
            raise ConfigurationError(_first(self._shared_problems))
        if not self._found:
            none = Fault(("sweep",), "leaves no point that can be run", ...)
            problems = _first(self._point_problems) or located(none, self.document.places)
            raise ConfigurationError(problems)
        return list(self._found.values())

    def _reject(self, candidate: Candidate, reasons: list[Fault]) -> None:
        own = candidate.own
        passed_on = {
            name: value
            for name, value in candidate.values.items()
            if name.partition(".")[0] in (*BACKENDS, "passthrough_kwargs")
        }
        secret = secret_argument(passed_on)
        if secret is not None and not any(reason.alone for reason in reasons):
            reasons = [*reasons, secret_fault(secret)]
        for reason in reasons:
            found = located(reason, self.document.places, _written(reason.path, own))
            setting = dotted(reason.path)
            if found.key is not None and setting.partition("[")[0] not in found.key:
                # A group has its own name, which does not say what is wrong in it.
                found = replace(found, message=f"{setting} {found.message}")
            # A value that is wrong by itself is wrong in every place, also in a sweep.
            problems = self._shared_problems if reason.alone else self._point_problems
            if len(problems) <= SHOWN_PROBLEMS:
                problems.setdefault(str(found), found)
        text = "; ".join(str(located(reason, {})) for reason in reasons)
        written = without_secrets_in(candidate.values)
        self.left_out.append({"config": written, "reason": text})


_SAMPLING = ("preset", "temperature", "do_sample", "top_k", "top_p", "min_p")
"""Settings of sampling, which greedy decoding ignores."""


_GREEDY = (
    "greedy decoding (do_sample false, or temperature 0) takes the likeliest token "
    "whatever temperature, top_k, top_p and min_p say"
)


def _why_same(model: ExperimentConfig) -> str:
    """Return the rule that merges points of greedy decoding; a request's fields win over it."""
    body = model.openai.body if model.backend == "openai" and model.openai else None
    if names := [f"openai.body.{name}" for name in _SAMPLING if name in (body or {})]:
        return (
            "with do_sample false, or temperature 0, requests hold nothing of temperature, top_k, "
            f"top_p and min_p but {', '.join(names)}, the same in both"
        )
    return _GREEDY


def _greedy_work(model: ExperimentConfig, config: Mapping[str, Any]) -> str | None:
    """Return what identifies the work of an experiment that decodes greedily; None for others."""
    engine = config.get(model.backend)
    own = engine.get("sampling") if isinstance(engine, Mapping) else None
    if not model.decoder.greedy or own or "passthrough_kwargs" in config:
        return None
    decoder = config.get("decoder", {})
    kept = {key: value for key, value in decoder.items() if key not in _SAMPLING}
    work = {**config, "decoder": kept, "command": model.held_by_command()}
    return json.dumps(work, sort_keys=True)


def _faults(problems: Iterable[Problem], values: Mapping[str, Any], *, alone: bool) -> list[Fault]:
    """Return problems of a candidate's settings as its faults."""
    found = []
    for each in problems:
        key = each.key or ""
        value = each.found or value_at(values, key)
        path = tuple(key.split("."))
        found.append(Fault(path, each.message, ... if value is None else value, alone))
    return found


def _written(path: KeyPath, own: Mapping[tuple[str, ...], KeyPath]) -> KeyPath:
    """Return the place in the file where the setting at ``path`` was written."""
    for setting, place in own.items():
        if path[: len(setting)] == setting:
            return place
    return path


def _first(problems: Mapping[str, Problem]) -> list[Problem]:
    listed = list(problems.values())
    if len(listed) <= SHOWN_PROBLEMS:
        return listed
    return [*listed[:SHOWN_PROBLEMS], Problem("there are more; fix these first")]


def _cycles(execution: ExecutionConfig, experiments: Iterable[Experiment]) -> int:
    if execution.n_cycles is not None:
        return execution.n_cycles
    if execution.precision_target is not None:
        return PILOT_CYCLES
    return max(DEFAULT_CYCLES, *(protocol.cycles_min(each.model) for each in experiments))


def _used(experiments: Iterable[Experiment]) -> list[BackendName]:
    used = {each.model.backend for each in experiments}
    return [name for name in BACKENDS if name in used]


def _swept_keys(
    study: StudyFile, document: Document, experiments: list[Experiment]
) -> tuple[str, ...]:
    """Return what varies: all settings of the sweep, and those that differ between experiments."""
    swept = (meant(setting) for axis in study.sweep for setting in axis.settings)
    keys = dict.fromkeys(".".join(setting) for setting in swept)
    explicit = dict.fromkeys(
        ".".join(path) for entry in study.experiments for path in flattened(entry)
    )
    for key in explicit:
        values = {json.dumps(value_at(each.config, key), sort_keys=True) for each in experiments}
        if len(values) > 1:
            keys[key] = None
    fixed = {"backend", "output_dir", *(".".join(path) for path in document.overrides)}
    return tuple(key for key in keys if key not in fixed)


def _notes(
    document: Document,
    study: StudyFile,
    outcome: _Outcome,
    experiments: list[Experiment],
    n_cycles: int,
) -> Iterator[str]:
    yield from document.notes
    given = document.values.get("name")
    if isinstance(given, str) and given != study.name:
        yield f"the study's folder is named {study.name}, for {describe(given)} is no plain name"
    if outcome.repeats:
        points = "1 point repeats" if outcome.repeats == 1 else f"{outcome.repeats} points repeat"
        yield f"{points} an earlier one, whose runs stand for both"
    if any("output_dir" in entry for entry in study.experiments):
        yield "output_dir in an experiment is not used: a study's results are kept together"
    made = [each.model for each in experiments if isinstance(each.model.dataset, SyntheticDataset)]
    for name, own in (("max_input_tokens", "input_len"), ("max_output_tokens", "output_len")):
        plain = {ExperimentConfig.model_fields[name].default}
        if any(getattr(each, name) not in plain | {getattr(each.dataset, own)} for each in made):
            yield f"{name} does not count where dataset is a mapping: dataset.{own} does"
    square = len(experiments) if study.execution.cycle_order == "latin_square" else 1
    target = study.execution.precision_target is not None and square > 1
    if target or n_cycles % square:
        yield (
            f"latin_square has each experiment in each place equally often only where the cycles "
            f"are a multiple of the {square} experiments"
            + (", which a precision target does not see to" if target else f"; they are {n_cycles}")
        )
    wanted = max(protocol.cycles_min(each.model) for each in experiments)
    if n_cycles < wanted:
        yield f"the protocol asks for {wanted} cycles, but execution.n_cycles is {n_cycles}"
    unused = [name for name in study.runners.choices() if name not in _used(experiments)]
    if unused:
        yield f"runners names {', '.join(unused)}, which no experiment uses"
    yield from old_names.notes(each.config for each in experiments)
