"""Makes a study's experiments from the study as written: the grid, exclusions, shared settings."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llenergymeasure.config import old_names, protocol
from llenergymeasure.config.calibration import load_calibration
from llenergymeasure.config.candidates import Candidate, candidates
from llenergymeasure.config.conflicting_settings import Shape, broken_rules
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.execution import (
    DEFAULT_CYCLES,
    PILOT_CYCLES,
    ExecutionConfig,
)
from llenergymeasure.config.experiment import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.identity import Identifier
from llenergymeasure.config.merge_settings import flatten
from llenergymeasure.config.preferences import preferred_folder, preferred_notify
from llenergymeasure.config.requested_work import SHARED_SAMPLING_NAMES
from llenergymeasure.config.section import Fault, Section, secret_fault
from llenergymeasure.config.strict_yaml import KeyPath, dotted_name
from llenergymeasure.config.study import Experiment, Study
from llenergymeasure.config.study_document import Document, check_document
from llenergymeasure.config.study_file import StudyFile
from llenergymeasure.config.sweep import target_setting
from llenergymeasure.config.validation_messages import as_problem, describe, validation_faults
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.redact import secret_argument, without_secrets_in
from llenergymeasure.units import BACKENDS, BackendName

MAX_RUNS = 250_000
"""Its plan of some 1.8 kB a run is still read (``files.TEXT_LIMIT_BYTES``)."""

SHOWN_PROBLEMS = 20

_SETTINGS = tuple(name for name in ExperimentConfig.model_fields if name != "output_dir")

FindShape = Callable[[str], Shape | None]
"""Returns a model's shape by its name; None if it is not known."""


def expand(document: Document, find_shape: FindShape) -> Study:
    """Return the study that ``document`` describes.

    Args:
        document: the study as written.
        find_shape: gives a model's shape, for the rules that need it.

    Raises:
        ConfigurationError: the study cannot be used; it names every problem found.
    """
    study = check_document(document)
    outcomes = _Outcomes(document, find_shape)
    for candidate in candidates(study, document.overrides):
        outcomes.add(candidate)
    experiments = outcomes.experiments()
    n_cycles = _cycles(study.execution, experiments)
    max_cycles = study.execution.cycles_at_most or n_cycles
    if len(experiments) * max_cycles > MAX_RUNS:
        count = f"{len(experiments)} experiments x {max_cycles} cycles"
        message = f"{count} are more than {MAX_RUNS} runs"
        fault = Fault(("execution", "n_cycles"), message, ...)
        raise ConfigurationError(as_problem(fault, document.places))
    swept_keys = _swept_keys(study, document, experiments)
    runners = study.runners.choices()
    return Study(
        name=study.name,
        origin=document.file,
        experiments=tuple(
            replace(experiment, swept={key: value_at(experiment.config, key) for key in swept_keys})
            for experiment in experiments
        ),
        left_out=tuple(outcomes.left_out),
        same_as=tuple(outcomes.same_as),
        execution=study.execution,
        n_cycles=n_cycles,
        runners={name: runners[name] for name in _used_backends(experiments) if name in runners},
        notify=preferred_notify(study.notify),
        sections=study.for_runs(),
        results_root=preferred_folder(Path(study.output_dir) if study.output_dir else None),
        swept_keys=swept_keys,
        notes=tuple(_notes(document, study, outcomes, experiments, n_cycles)),
        written={key: value for key, value in document.values.items() if key != "notify"},
        overrides={".".join(path): value for path, value in document.overrides.items()},
    )


class _Outcomes:
    """The result of each candidate: an experiment, a repeat of one, or left out."""

    def __init__(self, document: Document, find_shape: FindShape) -> None:
        self.document = document
        self._find_shape = find_shape
        self.left_out: list[dict[str, Any]] = []
        self.same_as: list[dict[str, Any]] = []
        self._by_work: dict[str, str] = {}
        self.repeats = 0
        self._by_id: dict[str, Experiment] = {}
        self._shared_problems: dict[str, Problem] = {}
        self._point_problems: dict[str, Problem] = {}
        self._identifier = Identifier()
        self._calibrations: dict[str | None, list[Fault]] = {}
        self._sections: dict[tuple[str, str], Section] = {}

    def add(self, candidate: Candidate) -> None:
        """Try one candidate."""
        if candidate.failure is not None:
            self._reject(candidate, [candidate.failure])
            return
        try:
            model = self._validated(candidate.values)
        except ValidationError as error:
            self._reject(candidate, validation_faults(error, candidate.values, ExperimentConfig))
            return
        faults = self._calibration_faults(model.energy.calibration)
        if not faults:
            problems = broken_rules(model, self._find_shape(model.model))
            faults = _faults(problems, candidate, standalone=False)
        if faults:
            self._reject(candidate, faults)
            return
        config = {}
        for key in _SETTINGS:
            value = getattr(model, key)
            plain = value.plain if isinstance(value, Section) else value
            if plain is not None and plain != {}:
                config[key] = plain
        try:
            experiment_id = self._identifier.experiment_id(config)
        except ConfigurationError as error:
            self._reject(candidate, _faults(error.problems, candidate, standalone=True))
            return
        if experiment_id in self._by_id:
            self.repeats += 1
            return
        work, reason = _resolved_work(model, config)
        first_id = experiment_id if work is None else self._by_work.setdefault(work, experiment_id)
        if first_id != experiment_id:
            self.same_as.append({"config": config, "experiment": first_id, "reason": reason})
            return
        self._by_id[experiment_id] = Experiment(experiment_id, config, model, {})

    def _validated(self, values: Mapping[str, Any]) -> ExperimentConfig:
        """Return the experiment; sections that several experiments share are made once."""
        keys = {name: (name, repr(item)) for name, item in values.items() if isinstance(item, dict)}
        cached = {name: self._sections[key] for name, key in keys.items() if key in self._sections}
        model = ExperimentConfig.model_validate({**values, **cached})
        for name in keys.keys() - cached.keys():
            if isinstance(section := getattr(model, name), Section):
                self._sections[keys[name]] = section
        return model

    def _calibration_faults(self, path: str | None) -> list[Fault]:
        """Return what is wrong with a calibration file; each is read once."""
        if path not in self._calibrations:
            faults: list[Fault] = []
            try:
                load_calibration(path)
            except ConfigurationError as error:
                key = ("energy", "calibration")
                faults = [Fault(key, str(problem), ...) for problem in error.problems]
            self._calibrations[path] = faults
        return self._calibrations[path]

    def experiments(self) -> list[Experiment]:
        """Return the experiments, each once.

        Raises:
            ConfigurationError: a setting that all share is wrong, or no point can be run.
        """
        self._identifier.save()
        if self._shared_problems:
            raise ConfigurationError(_shown_problems(self._shared_problems))
        if not self._by_id:
            fault = Fault(("sweep",), "leaves no point that can be run", ...)
            problems = _shown_problems(self._point_problems)
            raise ConfigurationError(problems or as_problem(fault, self.document.places))
        return list(self._by_id.values())

    def _reject(self, candidate: Candidate, faults: list[Fault]) -> None:
        engine_values = {
            name: value
            for name, value in candidate.values.items()
            if name.partition(".")[0] in (*BACKENDS, "passthrough_kwargs")
        }
        secret = secret_argument(engine_values)
        if secret is not None and not any(fault.standalone for fault in faults):
            faults = [*faults, secret_fault(secret)]
        for fault in faults:
            problem = as_problem(fault, self.document.places, _place(fault.path, candidate.places))
            setting = dotted_name(fault.path)
            if problem.key is not None and setting.partition("[")[0] not in problem.key:
                # A group has its own name, which does not say what is wrong in it.
                problem = replace(problem, message=f"{setting} {problem.message}")
            # A value that is wrong by itself is wrong in every place, also in a sweep.
            problems = self._shared_problems if fault.standalone else self._point_problems
            if len(problems) <= SHOWN_PROBLEMS:
                problems.setdefault(str(problem), problem)
        reason = "; ".join(str(as_problem(fault, {})) for fault in faults)
        written = without_secrets_in(candidate.values)
        self.left_out.append({"config": written, "reason": reason})


_SAMPLING = ("preset", "temperature", "do_sample", "top_k", "top_p", "min_p")
"""Settings of sampling, which greedy decoding ignores."""

_GREEDY = (
    "greedy decoding (do_sample false, or temperature 0) takes the likeliest token "
    "whatever temperature, top_k, top_p and min_p say"
)


def _merge_reason(model: ExperimentConfig) -> str:
    """Return the rule that merges points of greedy decoding; a request's fields win over it."""
    body = model.openai.body if model.backend == "openai" and model.openai else None
    if names := [f"openai.body.{name}" for name in _SAMPLING if name in (body or {})]:
        return (
            "with do_sample false, or temperature 0, requests hold nothing of temperature, top_k, "
            f"top_p and min_p but {', '.join(names)}, the same in both"
        )
    return _GREEDY


def _resolved_work(
    model: ExperimentConfig, config: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """Return what identifies an experiment's work where some settings do not count, and the rule.

    Without such settings both are None. An engine's own sampling, and the fields of a request, win
    over the decoder's settings of the same names.
    """
    engine = config.get(model.backend)
    engine = engine if isinstance(engine, Mapping) else {}
    sampling = engine.get("sampling")
    part = "sampling" if sampling else "body"
    replaced = tuple(name for name in SHARED_SAMPLING_NAMES if name in (engine.get(part) or {}))
    if "passthrough_kwargs" in config:
        return None, None
    ignored: tuple[str, ...]
    if model.decoder.greedy and not sampling:
        ignored, reason = _SAMPLING, _merge_reason(model)
    elif replaced and not model.decoder.greedy:
        winners = ", ".join(f"{model.backend}.{part}.{name}" for name in replaced)
        verb = "counts" if len(replaced) == 1 else "count"
        ignored, reason = ("preset", *replaced), f"{winners} {verb} in place of the decoder's"
    else:
        return None, None
    decoder = {k: v for k, v in config.get("decoder", {}).items() if k not in ignored}
    work = {**config, "decoder": decoder, "command": model.command_settings()}
    return json.dumps(work, sort_keys=True), reason


def _faults(problems: Iterable[Problem], candidate: Candidate, *, standalone: bool) -> list[Fault]:
    """Return problems of a candidate's settings as its faults."""
    faults = []
    for problem in problems:
        key = problem.key or ""
        value = problem.found or value_at(candidate.values, key)
        path = tuple(key.split("."))
        faults.append(Fault(path, problem.message, ... if value is None else value, standalone))
    return faults


def _place(path: KeyPath, places: Mapping[tuple[str, ...], KeyPath]) -> KeyPath:
    """Return the place in the file where the setting at ``path`` was written."""
    for setting, place in places.items():
        if path[: len(setting)] == setting:
            return place
    return path


def _shown_problems(problems: Mapping[str, Problem]) -> list[Problem]:
    all_problems = list(problems.values())
    if len(all_problems) <= SHOWN_PROBLEMS:
        return all_problems
    return [*all_problems[:SHOWN_PROBLEMS], Problem("there are more; fix these first")]


def _cycles(execution: ExecutionConfig, experiments: Iterable[Experiment]) -> int:
    if execution.n_cycles is not None:
        return execution.n_cycles
    if execution.precision_target is not None:
        return PILOT_CYCLES
    models = (experiment.model for experiment in experiments)
    return max(DEFAULT_CYCLES, *map(protocol.cycles_min, models))


def _used_backends(experiments: Iterable[Experiment]) -> list[BackendName]:
    backends = {experiment.model.backend for experiment in experiments}
    return [name for name in BACKENDS if name in backends]


def _swept_keys(
    study: StudyFile, document: Document, experiments: list[Experiment]
) -> tuple[str, ...]:
    """Return what varies: all settings of the sweep, and those that differ between experiments."""
    swept = (target_setting(setting) for axis in study.sweep for setting in axis.settings)
    keys = dict.fromkeys(".".join(setting) for setting in swept)
    explicit = dict.fromkeys(
        ".".join(path) for entry in study.experiments for path in flatten(entry)
    )
    for key in explicit:
        values = (value_at(experiment.config, key) for experiment in experiments)
        if len({json.dumps(value, sort_keys=True) for value in values}) > 1:
            keys[key] = None
    fixed = {"backend", "output_dir", *(".".join(path) for path in document.overrides)}
    return tuple(key for key in keys if key not in fixed)


def _notes(
    document: Document,
    study: StudyFile,
    outcomes: _Outcomes,
    experiments: list[Experiment],
    n_cycles: int,
) -> Iterator[str]:
    yield from document.notes
    name = document.values.get("name")
    if isinstance(name, str) and name != study.name:
        yield f"the study's folder is named {study.name}, for {describe(name)} is no plain name"
    if outcomes.repeats:
        points = "1 point repeats" if outcomes.repeats == 1 else f"{outcomes.repeats} points repeat"
        yield f"{points} an earlier one, whose runs stand for both"
    if any("output_dir" in entry for entry in study.experiments):
        yield "output_dir in an experiment is not used: a study's results are kept together"
    models = [experiment.model for experiment in experiments]
    synthetic = [model for model in models if isinstance(model.dataset, SyntheticDataset)]
    for name, length in (("max_input_tokens", "input_len"), ("max_output_tokens", "output_len")):
        default = ExperimentConfig.model_fields[name].default
        pairs = [(getattr(model, name), getattr(model.dataset, length)) for model in synthetic]
        if any(limit not in (default, tokens) for limit, tokens in pairs):
            yield f"{name} does not count where dataset is a mapping: dataset.{length} does"
    square = len(experiments) if study.execution.cycle_order == "latin_square" else 1
    target = study.execution.precision_target if square > 1 else None
    if target or n_cycles % square:
        end = ", which a precision target does not see to" if target else f"; they are {n_cycles}"
        yield (
            "latin_square has each experiment in each place equally often only where the cycles "
            f"are a multiple of the {square} experiments{end}"
        )
    cycles_min = max(map(protocol.cycles_min, models))
    if n_cycles < cycles_min:
        yield f"the protocol asks for {cycles_min} cycles, but execution.n_cycles is {n_cycles}"
    unused = [name for name in study.runners.choices() if name not in _used_backends(experiments)]
    if unused:
        yield f"runners names {', '.join(unused)}, which no experiment uses"
    yield from old_names.notes(experiment.config for experiment in experiments)
