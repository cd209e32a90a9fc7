"""``llem report``: the tables and the page, made again from what is there."""

from llenergymeasure.cli.output import StudyArgument, note
from llenergymeasure.cli.studies import study_folder
from llenergymeasure.files import locked
from llenergymeasure.plan import Plan
from llenergymeasure.report.wording import counted
from llenergymeasure.results.whole import is_whole
from llenergymeasure.workflow.open_study import OWNER


def report(study: StudyArgument = None) -> None:
    """Rebuild a study's tables and report from its completed runs, and print the report's place.

    The report names runs that are missing; the next call of the workflow rebuilds it.
    """
    from llenergymeasure.analysis.tables import write_tables
    from llenergymeasure.report.page import PAGE_NAME, write_report

    folder = study_folder(study)
    with locked(folder.lock, OWNER):
        runs = Plan.read(folder.plan).runs
        done = sum(is_whole(folder.run(run.experiment, run.cycle)) for run in runs)
        write_tables(folder.path, partial=done < len(runs))
        write_report(folder.path, partial=done < len(runs))
    if done < len(runs):
        note(f"{done} of {counted(len(runs), 'run')} completed; the report names the others")
    print(folder.path / PAGE_NAME)
