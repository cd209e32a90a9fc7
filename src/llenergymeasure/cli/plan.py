"""``llem plan``: what a study would do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.cli.output import JsonOption, ProfileOption, print_raw
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.containers.runner_choice import choose_runners
from llenergymeasure.plan import Plan, describe_plan
from llenergymeasure.plan.fairness import fairness
from llenergymeasure.plan.trust import trust_lines
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.precision_target import plan_study
from llenergymeasure.workflow.snakemake_profile import forecast_for, job_request, may_share, misfits
from llenergymeasure.workload.arrivals import trace_lines
from llenergymeasure.workload.load_study import load_study
from llenergymeasure.workload.prompts import check_files


def plan(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study file")],
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a study would run, and what is left out.

    Prints the runs in order, each point that was left out with its reason, and how long it may
    take; with a cluster's profile, also what does not fit into its jobs. Nothing is run.
    """
    resolved = choose_runners(load_study(study), apptainer_offered=False)
    notes = check_files(experiment.model for experiment in resolved.experiments)
    study_plan = plan_study(resolved, StudyFolder.for_study(resolved))
    study_plan = replace(study_plan, notes=(*study_plan.notes, *notes))
    if as_json:
        compared = fairness(study_plan)
        extra = {} if compared is None else {"fairness": compared}
        print_raw(study_plan.to_json_bytes(extra).decode())
    else:
        print("\n".join(plan_lines(study_plan, profile, resolved.notify)))


def plan_lines(plan: Plan, profile: str | None, notify: NotifyConfig | None) -> Iterator[str]:
    """Yield a plan with the time and memory it needs, here or in a cluster's jobs."""
    request = job_request(profile)
    forecast = forecast_for(request)
    share = may_share(plan.execution, profile)
    jobs = None if request is None else request.description
    yield describe_plan(plan, forecast.estimates, share=share, jobs=jobs)
    yield "Memory needed:"
    configs = {run.experiment: run.config for run in plan.runs}
    labels = [plan.labels[experiment] for experiment in configs]
    yield from forecast.memory_lines([*configs.values()], labels)
    yield from trace_lines(configs.values())
    if request is not None:
        for problem in misfits(plan, request, forecast):
            yield f"Does not fit: {problem}"
    yield from trust_lines(plan, notify)
