"""``llem report``: the tables and the page made anew from what is there."""

from pathlib import Path

from llenergymeasure.cli.results import study_folder
from llenergymeasure.files import locked
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.results.whole import is_whole
from llenergymeasure.workflow.study import OWNER


def report_command(path: Path) -> Path:
    """Write a study's tables and report from its finished runs; return the page.

    Runs that are missing are named in it, and the next call of the workflow makes it again.

    Raises:
        ConfigurationError: there is no plan yet.
        ResultsError: plan or a run's record is damaged.
        StudyLockedError: a workflow is at work on the study.
    """
    from llenergymeasure.analysis.tables import write_tables
    from llenergymeasure.report.page import PAGE_NAME, write_report

    folder = study_folder(path)
    with locked(folder.lock, OWNER):
        partial = _incomplete(folder)
        write_tables(folder.path, partial=partial)
        write_report(folder.path, partial=partial)
    page = folder.path / PAGE_NAME
    print(page)
    return page


def _incomplete(folder: StudyFolder) -> bool:
    runs = Plan.read(folder.plan).runs
    return any(not is_whole(folder.run(run.experiment, run.cycle)) for run in runs)
