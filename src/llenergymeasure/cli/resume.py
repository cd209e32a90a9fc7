"""``llem resume``: an interrupted study, continued with the options of its last call."""

from contextlib import chdir, suppress
from dataclasses import replace
from pathlib import Path

from llenergymeasure.cli.find_study import results_folder
from llenergymeasure.cli.output import ProfileOption, StudyArgument, note
from llenergymeasure.cli.run import experiment_ids, run_call
from llenergymeasure.config.identity import local_files
from llenergymeasure.config.preferences import preferred_folder
from llenergymeasure.config.study import Study
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.machine.folders import why_not_writable
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.resume import (
    NotResumedError,
    StudyCall,
    last_started_study,
    read_call,
)
from llenergymeasure.workflow.snakemake_profile import is_bundled
from llenergymeasure.workload.load_study import load_study


def resume(study: StudyArgument = None, profile: ProfileOption = None) -> int:
    """Continue a study that was interrupted.

    Runs what is missing or failed, with the options of the last call.
    """
    if study is None:
        results = preferred_folder(None)
        last_study = last_started_study(results)
        if last_study is None:
            raise ConfigurationError(f"no study was run here: there is none in {results}/")
        study = last_study.path
    call = _last_call(study)
    if profile is None and call.profile is not None and not is_bundled(call.profile):
        message = (
            f"was run with a profile that is not ours; --profile {call.profile} takes it again"
        )
        raise ConfigurationError(Problem(message, file=study))
    around = study.absolute() if study.is_dir() else study.absolute().parent
    folder = StudyFolder(around) if study.is_dir() else results_folder(study)
    place = _call_folder(call, folder)
    in_other_folder = place != Path.cwd()
    if profile is not None and in_other_folder and Path(profile).is_dir():
        profile = str(Path(profile).absolute())
    call = replace(call, profile=profile or call.profile)
    note(f"Resuming {call}, in {place}" if in_other_folder else f"Resuming {call}")
    with chdir(place):
        loaded = load_study(call.study_file, call.settings)
        root = _results_root(around, loaded) if folder.path == around else None
        if in_other_folder and root is None:  # what is said of it is read here
            root = Path(loaded.results_root).absolute()
        return run_call(call, loaded, dry_run=False, root=root)


def _last_call(path: Path) -> StudyCall:
    """Return how the study of a file or folder was started last; a file as it is, if it was not."""
    if path.is_dir():
        call = read_call(StudyFolder(path))
        if call is None:
            message = "holds no study that `llem run` started; name the study's file"
            raise ConfigurationError(Problem(message, file=path))
        return call
    try:
        call = read_call(results_folder(path))
    except NotResumedError:  # the file alone is another study
        raise
    except ConfigurationError:  # its file has another name now: this one
        if not path.is_file():
            raise
        call = None
    if call is None or not call.study_file.samefile(path):
        return StudyCall(path)
    return call


def _call_folder(call: StudyCall, folder: StudyFolder) -> Path:
    """Return where the words of a call mean what they meant then: there, or else here.

    Raises:
        ConfigurationError: neither is known to hold what the study names.
    """
    here = Path.cwd()
    cwd = call.cwd or here
    if call.cwd == here:
        return here
    plan = Plan.read(folder.plan) if folder.plan.is_file() else None
    planned_ids = set() if plan is None else {run.experiment for run in plan.runs}
    if cwd != here and why_not_writable(cwd) is None:
        with chdir(cwd), suppress(ConfigurationError):
            ids = experiment_ids(load_study(call.study_file, call.settings))
            if plan is None or ids <= planned_ids:
                return cwd
    if plan is None:
        return here
    study = load_study(call.study_file, call.settings)
    configs = [experiment.config for experiment in study.experiments]
    has_local_files = any(True for config in configs for _ in local_files(config, in_folders=True))
    is_same = study.written == plan.written
    if is_same and not has_local_files and not experiment_ids(study) <= planned_ids:
        message = (
            "names a model or file that is not found from here; go to the folder that it was run in"
        )
        raise ConfigurationError(Problem(message, file=call.study_file))
    return here


def _results_root(folder: Path, study: Study) -> Path | None:
    """Return what a study's folder goes under; None for where the study says."""
    for root in (None, folder.absolute().parent, folder.resolve().parent):
        path = (root or Path(study.results_root)) / study.name
        if path.is_dir() and path.samefile(folder):
            return root
    message = (
        f"holds the study {study.name}, whose folder must have that name; rename the folder, or "
        "the study in its file"
    )
    raise ConfigurationError(Problem(message, file=folder))
