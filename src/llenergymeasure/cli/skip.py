"""``llem skip``: end the rest before the run at work."""

import sys
from pathlib import Path

from llenergymeasure.cli.results import study_folder
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK
from llenergymeasure.plan import Plan
from llenergymeasure.workflow.skip import resting


def skip_command(path: Path) -> int:
    """End the rest of every run of a study that rests now; return 1 if none does."""
    folder = study_folder(path)
    rests = resting(Plan.read(folder.plan).runs, folder)
    for rest in rests:
        rest.skip()
        print(f"Rest before {rest.run.experiment} cycle {rest.run.cycle} skipped.")
    if not rests:
        print("llem: no run of this study is resting now", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK
