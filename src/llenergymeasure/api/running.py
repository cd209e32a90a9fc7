"""Running one experiment, or a study, from a program."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Unpack

from llenergymeasure.api.results import (
    ExperimentResult,
    StudyResult,
    in_memory,
    load_result,
    load_results,
)
from llenergymeasure.api.settings import Settings
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.identity import with_absolute_paths
from llenergymeasure.config.preferences import FOLDER_VARIABLE
from llenergymeasure.config.study import Study
from llenergymeasure.config.study_document import as_plain
from llenergymeasure.containers.runner_choice import choose_runners
from llenergymeasure.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_SIGINT,
    ConfigurationError,
    LlemError,
    RunFailedError,
)
from llenergymeasure.files import locked, write_text
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.plan.trust import trust_lines
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.workflow.complete_study import complete_study
from llenergymeasure.workflow.resume import StudyCall, store_call
from llenergymeasure.workflow.snakemake_process import OWNER, Call, Listener, SnakemakeProcess
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from llenergymeasure.workload.prompts import check_files

Config = Mapping[str, Any] | Path | str
Progress = Callable[[str], None]


def run_experiment(
    config: Config | None = None,
    /,
    *,
    directory: Path | str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> ExperimentResult:
    """Measure one experiment once.

    Args:
        config: a study of one experiment, as a mapping or the path of its file; may be left out
            where ``settings`` say all.
        directory: folder to keep the run's files in; where it holds the same run already, that
            is returned. Without it the run is made in a temporary folder, and nothing is left.
        progress: is called with a line for each phase of the run, and one for how it ended.
        **settings: settings of the experiment, which win over ``config``, such as
            ``model="tiny-llama"`` or ``pytorch={"batch_size": 8}``.

    Returns:
        The result, its tables included.

    Raises:
        ConfigurationError: the settings cannot be used, or describe several experiments.
        RunFailedError: the run ended without a result.
    """
    study = _resolve_study(config, settings)
    if len(study.experiments) != 1:
        raise ConfigurationError(
            f"run_experiment makes one experiment, and this describes {len(study.experiments)}; "
            "run_study runs them all"
        )
    if directory is not None:
        path = Path(directory).absolute()
        path.mkdir(parents=True, exist_ok=True)
        return load_result(_measure_once(study, path, progress).path)
    with tempfile.TemporaryDirectory(prefix="llem-") as name:
        path = Path(name).resolve()
        # Engines keep files of their own where temporary ones go.
        return in_memory(_measure_once(study, path, progress, {"TMPDIR": str(path)}))


def run_study(
    config: Config,
    /,
    *,
    directory: Path | str | None = None,
    profile: str | None = None,
    progress: Progress | None = None,
    **settings: Unpack[Settings],
) -> StudyResult:
    """Run a study: make every run that is missing, then tables and report.

    A finished run is never measured again. Results always go into a folder of the study's name.

    Args:
        config: the study, as a mapping or the path of its file.
        directory: what that folder goes under; the study's ``output_dir`` if not given.
        profile: the Snakemake profile to run under, such as ``slurm``.
        progress: is called with a line for each phase of a run, and one for each run that ends.
        **settings: settings that win over the study's, wherever it sets them.

    Returns:
        What came out, runs without a result included: look at its ``failed``.

    Raises:
        ConfigurationError: the study cannot be used; nothing was run.
        KeyboardInterrupt: it was interrupted; what had finished is kept.
        LlemError: the workflow did not start.
    """
    study = _resolve_study(config, settings)
    root = Path(study.results_root) if directory is None else Path(directory).absolute()
    folder = StudyFolder(root / study.name)
    study = choose_runners(study, apptainer_offered=False)
    environment = {} if directory is None else {FOLDER_VARIABLE: str(root)}
    call = Call(_to_plain(settings), profile, environment=environment)
    with locked(folder.lock, OWNER) as lock:
        study_file = folder.path / "study.yaml" if isinstance(config, Mapping) else Path(config)
        if isinstance(config, Mapping):
            # Whom to notify is for this call alone: results are shared.
            shared = {key: value for key, value in config.items() if key != "notify"}
            mapping = {"name": study.name, **shared}
            if mapping.get("base") is not None:
                # Read from here, it would be looked for next to the file that is written there.
                mapping["base"] = str(Path(mapping["base"]).absolute())
            _write_study(study_file, mapping)
        for line in store_call(folder, StudyCall(study_file, call.overrides, profile)):
            if progress is not None:
                progress(line)
        _raise_stopped(*complete_study(study, study_file, folder, Listener(progress), call, lock))
    return load_results(folder.path)


def _resolve_study(config: Config | None, settings: Mapping[str, Any]) -> Study:
    if config is None:
        study = study_from_mapping(settings)
    elif isinstance(config, Mapping):
        study = study_from_mapping(config, overrides=settings)
    else:
        study = load_study(Path(config), settings)
    check_files(experiment.model for experiment in study.experiments)
    return study


def _measure_once(
    study: Study,
    folder: Path,
    progress: Progress | None,
    environment: Mapping[str, str] | None = None,
) -> RunFolder:
    """Run the first cycle of a study's one experiment in ``folder``, and nothing else."""
    experiment = study.experiments[0]
    mapping = {
        **with_absolute_paths(experiment.config),
        "name": study.name,
        "execution": {
            **study.execution.model_dump(
                exclude_none=True, exclude={"precision_target", "max_cycles"}
            ),
            "n_cycles": 1,
        },
        "runners": {name: str(choice) for name, choice in study.runners.items()},
        **study.sections,
    }
    mapping = {key: value for key, value in mapping.items() if value not in (None, {})}
    study_file = folder / f"{study.name}.yaml"
    _write_study(study_file, mapping)
    single_run = load_study(study_file)
    plan = make_plan(choose_runners(single_run, apptainer_offered=False))
    results = StudyFolder(folder / "results" / study.name)
    run = results.run(experiment.id, 1)
    call = Call(
        folder=folder,
        targets=(str(run.result),),
        environment={**(environment or {}), FOLDER_VARIABLE: str(folder / "results")},
    )
    listener = Listener(progress)
    for line in trust_lines(plan, None):
        listener.say(line)
    with locked(results.lock, OWNER) as lock:
        snakemake = SnakemakeProcess(study_file, plan, results, listener, lock)
        _raise_if_failed(snakemake.run(call), snakemake, run, plan)
    return run


def _raise_if_failed(code: int, snakemake: SnakemakeProcess, run: RunFolder, plan: Plan) -> None:
    if code != EXIT_SIGINT and run.result.is_file():
        return
    _raise_stopped(code, snakemake.error_text)
    outcome = read_outcome(run.outcome)
    error = outcome.error
    reason = "it ended without a word" if error is None else f"{error.class_}: {error.message}"
    where = f" in {outcome.phase}" if outcome.phase else ""
    raise RunFailedError(
        f"{plan.runs[0].experiment}: {outcome.status}{where}: {reason}",
        status=outcome.status,
        phase=outcome.phase,
        log=_read_text(run.log),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it does not hide why the run failed
        return ""


def _raise_stopped(code: int, complaint: str) -> None:
    """Raise what ended the workflow, where no run did."""
    if code == EXIT_SIGINT:
        raise KeyboardInterrupt
    if complaint:
        raise LlemError(complaint.strip())
    if code not in (EXIT_OK, EXIT_FAILED):
        raise LlemError("the workflow was ended from outside (SIGTERM)")


def _write_study(path: Path, mapping: Mapping[str, Any]) -> None:
    write_text(path, strict_yaml.dump(_to_plain(mapping)))


def _to_plain(value: Any) -> Any:
    value = as_plain(value)
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
