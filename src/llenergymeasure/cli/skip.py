"""``llem skip``: the waiting time before a run, ended now."""

import sys

from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import StudyArgument
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK
from llenergymeasure.plan import Plan
from llenergymeasure.workflow.progress import resting_runs


def skip(study: StudyArgument = None) -> int:
    """Skip the waiting time before the next run."""
    folder = study_folder(study)
    rests = resting_runs(Plan.read(folder.plan), folder)
    for rest in rests:
        print(rest.skip())
    if not rests:
        print("llem: no run of this study is resting now", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK
