"""``llem report`` and ``llem verify``: what follows from the runs, made again or recomputed."""

import sys

from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import JsonOption, StudyArgument, note, print_json
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK
from llenergymeasure.files import locked
from llenergymeasure.plan import Plan
from llenergymeasure.report.formatting import counted
from llenergymeasure.workflow.manifest import states
from llenergymeasure.workflow.snakefile import OWNER


def report(study: StudyArgument = None) -> None:
    """Rebuild a study's tables and report from its completed runs, and print the report's place.

    Where runs are missing the report names them, and the next llem run or snakemake rebuilds it.
    """
    from llenergymeasure.analysis.tables import write_tables
    from llenergymeasure.report.page import PAGE_NAME, write_report

    folder = study_folder(study)
    with locked(folder.lock, OWNER):
        runs = states(Plan.read(folder.plan), folder, full=True)
        done = sum(run["status"] == "completed" for run in runs)
        write_tables(folder.path, partial=done < len(runs))
        write_report(folder.path, partial=done < len(runs))
    if done < len(runs):
        note(f"{done} of {counted(len(runs), 'run')} completed; the report names the others")
    print(folder.path / PAGE_NAME)


def verify(study: StudyArgument = None, as_json: JsonOption = False) -> int:
    """Recompute every figure of a study from its raw samples, and list those that do not match."""
    from llenergymeasure.analysis.verify import verify_study

    found = verify_study(study_folder(study).path)
    code = EXIT_FAILED if found.differences else EXIT_OK
    if as_json:
        print_json(found.as_dict())
        return code
    for each in found.differences:
        print(each)
    runs = counted(found.runs, "run")
    missing = f"; {found.missing} planned without a result" if found.missing else ""
    if found.unhashed:
        print(
            f"{found.study}: no hash was kept of {found.unhashed} of {runs} (made by an earlier "
            "version, or killed at the very end): a change in a record where nothing can be "
            "recomputed would not show",
            file=sys.stderr,
        )
    if found.differences:
        differences = counted(len(found.differences), "difference")
        print(f"{found.study}: {differences} in {runs}{missing}", file=sys.stderr)
    else:
        print(f"{found.study}: {runs} and all tables follow from what was recorded{missing}")
    return code
