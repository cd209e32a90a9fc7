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
        folder = folder_of(root)
    elif path is not None and not root.exists():
        message = (
            f"no such study file or results folder; "
            f"{_named(studies_in(preferred_folder(None)), 'studies here')}"
        )
        raise ConfigurationError(Problem(message, file=path))
    elif StudyFolder(root).plan.is_file():
        folder = StudyFolder(root)
    else:
        return _last(root)
    if not folder.plan.is_file():
        message = f"no results yet in {folder.path}; `llem run {shlex.quote(str(path))}` makes them"
        raise ConfigurationError(Problem(_begun(folder) or message, file=path))
    return folder


def folder_of(study_file: Path) -> StudyFolder:
    """Return the results of a study's file: where it lies, if ``llem`` wrote it into them."""
    around = StudyFolder(study_file.absolute().parent)
    if around.plan.is_file():  # it is not expanded: what it names may not be found from here
        name = read_document(study_file).values.get("name", study_file.stem)
        if name == around.path.name:
            return around
    return StudyFolder.of(load_study(study_file))


def studies_in(root: Path) -> list[StudyFolder]:
    """Return the studies in a folder of results, the one run last first."""

    def run_at(folder: StudyFolder) -> float:
        marks = (folder.manifest, folder.plan)
        return max((mark.stat().st_mtime for mark in marks if mark.is_file()), default=0.0)

    found = [StudyFolder(plan.parent) for plan in root.glob("*/plan.json")]
    return sorted(found, key=run_at, reverse=True)


def _last(root: Path) -> StudyFolder:
    found = studies_in(root)
    if not found:
        begun = (_begun(StudyFolder(lock.parent)) for lock in sorted(root.glob("*/.lock")))
        message = next(
            filter(None, begun), "no study was run here yet; `llem run STUDY.yaml` runs one"
        )
        raise ConfigurationError(Problem(message, file=root))
    others = "" if len(found) == 1 else f"; {_named(found[1:], 'others')}"
    note(f"{found[0].path}, the last study that was run{others}")
    return found[0]


def _begun(folder: StudyFolder) -> str | None:
    """Return that a study without a plan is being started, and how far it is; None if not."""
    holder = lock_holder(folder.lock)
    if holder is None:
        return None
    from llenergymeasure.workflow.snakemake_process import LOG_NAME

    log = folder.path / LOG_NAME  # of an earlier call, unless it is younger than the lock's words
    starts = log.is_file() and log.stat().st_mtime_ns >= folder.lock.stat().st_mtime_ns
    doing = "Snakemake is starting" if starts else "models and folders are looked at"
    return f"{folder.path} has begun, by {holder}: {doing}, and no run is planned yet"


def _named(folders: Sequence[StudyFolder], as_what: str) -> str:
    if not folders:
        return "`llem run STUDY.yaml` runs a study"
    return f"{as_what}: {', '.join(str(each.path) for each in folders)}"
