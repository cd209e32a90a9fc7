"""``llem report``: a study's tables and page, made again from its runs."""

from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import StudyArgument, note
from llenergymeasure.files import locked
from llenergymeasure.plan import Plan
from llenergymeasure.report.formatting import count_text
from llenergymeasure.workflow.manifest import states
from llenergymeasure.workflow.snakemake_study import OWNER


def report(study: StudyArgument = None) -> None:
    """Rebuild a study's tables and report from its completed runs, and print the report's place.

    Where runs are missing the report names them, and the next llem run or snakemake rebuilds it.
    """
    from llenergymeasure.analysis.tables import write_tables
    from llenergymeasure.report.page import PAGE_NAME, write_report

    folder = study_folder(study)
    with locked(folder.lock, OWNER):
        runs = states(Plan.read(folder.plan), folder, full=True)
        completed = sum(run["status"] == "completed" for run in runs)
        write_tables(folder.path, partial=completed < len(runs))
        write_report(folder.path, partial=completed < len(runs))
    if completed < len(runs):
        note(
            f"{completed} of {count_text(len(runs), 'run')} completed; the report names the others"
        )
    print(folder.path / PAGE_NAME)
