"""A whole study, driven from its first run to its last, and a notification of its end."""

from dataclasses import dataclass
from pathlib import Path

from llenergymeasure.config.study import Study
from llenergymeasure.plan import Plan
from llenergymeasure.report.wording import counted
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.drive import Call, Drive, View
from llenergymeasure.workflow.manifest import open_runs
from llenergymeasure.workflow.notify import News, tell, warn_of_missing_variables
from llenergymeasure.workflow.stopping import carried_through, planned


@dataclass(frozen=True)
class Ended:
    """How a study ended.

    Attributes:
        code: 0, 1, 130 or 143.
        complaint: what Snakemake said where it failed and no run explains it.
    """

    code: int
    complaint: str


def drive_study(
    study: Study, study_file: Path, folder: StudyFolder, view: View, call: Call, lock: int
) -> Ended:
    """Make every run of a study that is missing, then tables and report.

    Args:
        study: what to run, its runners chosen.
        study_file: the same, as Snakemake reads it.
        folder: where its results go.
        view: who watches.
        call: how Snakemake is called.
        lock: the open file of the study's lock, which the caller holds.
    """
    plan = planned(study, folder)
    anything = open_runs(plan, folder) > 0
    if anything:
        warn_of_missing_variables(study.notify, view.say)
    complaint, broken = "", ""

    def drive(now: Plan) -> int:
        nonlocal complaint, broken
        if now is not plan:
            view.say(f"{counted(open_runs(now, folder), 'more run')} for the precision target")
        drive = Drive(study_file, now, folder, view, lock)
        code = drive.run(call)
        complaint, broken = drive.complaint, drive.broken or ""
        return code

    code = carried_through(study, plan, folder, drive)
    if anything:
        tell(study.notify, News.of(planned(study, folder), folder, broken or None), view.say)
    return Ended(code, complaint)
