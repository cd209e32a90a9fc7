"""What is said of a run that ends while it is watched."""

import json
import socket

from llenergymeasure.plan import make_plan
from llenergymeasure.processes import boot_id
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.progress import Progress
from llenergymeasure.workload.studies import study_from_mapping
from support.studies import SMALL


def test_a_run_that_ended_without_a_word_is_said_to_be_lost_and_why(tmp_path):
    plan, folder = make_plan(study_from_mapping(SMALL)), StudyFolder(tmp_path)
    progress = Progress(plan, folder)
    (run,) = plan.runs
    place = folder.run(run.experiment, run.cycle)
    place.path.mkdir(parents=True)
    left = {"status": "running", "phase": "measure", "host": socket.gethostname()}
    left |= {"pid": 2**22 + 1, "boot_id": boot_id(), "error": None}
    place.outcome.write_text(json.dumps(left))
    (ended,) = progress.look()
    assert ended.told.endswith(
        "lost in measure: ProcessGone: its process 4194305 ended without a word (killed?)"
    )
