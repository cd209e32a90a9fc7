"""``llem plan``: what a study would do."""

import sys
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.containers.runner_choice import with_runners
from llenergymeasure.plan import Plan, describe_plan, engines_compared
from llenergymeasure.plan.trust import runs_or_sends
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.profile import forecast_for, job_request, misfits
from llenergymeasure.workflow.stopping import planned
from llenergymeasure.workload.studies import load_study


def plan_command(study_file: Path, *, as_json: bool, profile: str | None = None) -> None:
    """Print the plan of ``study_file``, as text or as the JSON that outside programs read."""
    study = with_runners(load_study(study_file), apptainer_offered=False)
    plan = planned(study, StudyFolder(Path(study.results_root) / study.name))
    if as_json:
        sys.stdout.write(plan.to_json_bytes(engines_compared(plan)).decode())
        return
    print("\n".join(plan_lines(plan, profile, study.notify)))


def plan_lines(plan: Plan, profile: str | None, notify: NotifyConfig | None) -> Iterator[str]:
    """Yield a plan with the time and memory it needs, here or in a cluster's jobs.

    Args:
        plan: the plan.
        profile: the Snakemake profile it is to run under.
        notify: whom the study tells of its end.
    """
    request = job_request(profile)
    forecast = forecast_for(request)
    yield describe_plan(plan, forecast.estimates)
    yield "Memory, at the least:"
    configs = {run.experiment: run.config for run in plan.runs}
    yield from forecast.memory_lines(configs.values())
    if request is not None:
        for problem in misfits(plan, request, forecast):
            yield f"Does not fit: {problem}"
    yield from runs_or_sends(plan, notify)
