"""``llem plan``: what a study would do."""

import sys
from pathlib import Path

from llenergymeasure.containers.runner_choice import with_runners
from llenergymeasure.plan import describe_plan, engines_compared
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run.preflight.memory_text import memory_lines
from llenergymeasure.workflow.stopping import planned
from llenergymeasure.workload.studies import load_study


def plan_command(study_file: Path, *, as_json: bool) -> None:
    """Print the plan of ``study_file``, as text or as the JSON that outside programs read."""
    study = with_runners(load_study(study_file), apptainer_offered=False)
    plan = planned(study, StudyFolder(Path(study.results_root) / study.name))
    if as_json:
        sys.stdout.write(plan.to_json_bytes(engines_compared(plan)).decode())
        return
    print(describe_plan(plan))
    print("Memory, at the least:")
    configs = {run.experiment: run.config for run in plan.runs}
    print("\n".join(memory_lines(configs.values())))
    if study.notify is not None:
        print(f"At its end this tells {study.notify.whom()}.")
