"""Which study a command is about: the one that is named, or the last one that was run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from llenergymeasure.cli.output import note
from llenergymeasure.config.preferences import preferred_folder
from llenergymeasure.config.study_document import read_document
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import lock_holder
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workload.load_study import load_study


def study_folder(path: Path | None) -> StudyFolder:
    """Return a study's results: by its file or folder, or the last ones in a folder of results.

    Raises:
        ConfigurationError: there is no plan yet.
    """
    root = preferred_folder(None) if path is None else path
    if root.is_file():
        folder = results_folder(root)
    elif path is not None and not root.exists():
        message = (
            f"no such study file or results folder; "
            f"{_listed(studies_in(preferred_folder(None)), 'studies here')}"
        )
        raise ConfigurationError(Problem(message, file=path))
    elif StudyFolder(root).plan.is_file():
        folder = StudyFolder(root)
    else:
        return _last_study(root)
    if not folder.plan.is_file():
        message = f"no results yet in {folder.path}; `llem run {shlex.quote(str(path))}` makes them"
        raise ConfigurationError(Problem(_start_message(folder) or message, file=path))
    return folder


def results_folder(study_file: Path) -> StudyFolder:
    """Return the results of a study's file: where it lies, if ``llem`` wrote it into them."""
    folder = StudyFolder(study_file.absolute().parent)
    if folder.plan.is_file():  # it is not expanded: what it names may not be found from here
        name = read_document(study_file).values.get("name", study_file.stem)
        if name == folder.path.name:
            return folder
    return StudyFolder.for_study(load_study(study_file))


def studies_in(root: Path) -> list[StudyFolder]:
    """Return the studies in a folder of results, the one run last first."""

    def last_run_s(folder: StudyFolder) -> float:
        files = (folder.manifest, folder.plan)
        return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)

    studies = [StudyFolder(plan.parent) for plan in root.glob("*/plan.json")]
    return sorted(studies, key=last_run_s, reverse=True)


def _last_study(root: Path) -> StudyFolder:
    studies = studies_in(root)
    if not studies:
        for lock in sorted(root.glob("*/.lock")):
            if (message := _start_message(StudyFolder(lock.parent))) is not None:
                raise ConfigurationError(Problem(message, file=root))
        message = "no study was run here yet; `llem run STUDY.yaml` runs one"
        raise ConfigurationError(Problem(message, file=root))
    others = "" if len(studies) == 1 else f"; {_listed(studies[1:], 'others')}"
    note(f"{studies[0].path}, the last study that was run{others}")
    return studies[0]


def _start_message(folder: StudyFolder) -> str | None:
    """Return that a study without a plan is being started, and how far it is; None if not."""
    holder = lock_holder(folder.lock)
    if holder is None:
        return None
    from llenergymeasure.workflow.snakemake_process import LOG_NAME

    log = folder.path / LOG_NAME  # of an earlier call, unless it is younger than the lock's words
    is_starting = log.is_file() and log.stat().st_mtime_ns >= folder.lock.stat().st_mtime_ns
    activity = "Snakemake is starting" if is_starting else "models and folders are looked at"
    return f"{folder.path} has begun, by {holder}: {activity}, and no run is planned yet"


def _listed(folders: Sequence[StudyFolder], title: str) -> str:
    if not folders:
        return "`llem run STUDY.yaml` runs a study"
    return f"{title}: {', '.join(str(folder.path) for folder in folders)}"
