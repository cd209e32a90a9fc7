"""``llem status`` and ``llem results``: what a study has so far."""

import json
from pathlib import Path

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.manifest import count, states, told_precision
from llenergymeasure.workflow.stopping import precision
from llenergymeasure.workload.studies import load_study


def study_folder(path: Path) -> StudyFolder:
    """Return the results folder that ``path`` is, or that the study file at ``path`` writes to.

    Raises:
        ConfigurationError: there is no plan yet.
    """
    folder = StudyFolder(path)
    if path.is_file():
        study = load_study(path)
        folder = StudyFolder(Path(study.results_root) / study.name)
    if not folder.plan.is_file():
        raise ConfigurationError(
            Problem(f"no results yet in {folder.path}; `llem run {path}` makes them", file=path)
        )
    return folder


def status_command(path: Path, *, as_json: bool) -> None:
    """Print how many runs are in each state, and those that failed."""
    folder = study_folder(path)
    plan = Plan.read(folder.plan)
    runs = states(plan, folder)
    if as_json:
        head = {"study": plan.study, "counts": count(runs), **told_precision(plan, folder)}
        print(json.dumps({**head, "runs": runs}, indent=1))
        return
    counts = ", ".join(f"{number} {status}" for status, number in sorted(count(runs).items()))
    print(f"{plan.study}: {len(runs)} runs: {counts}")
    reached = precision(plan, folder)
    if reached is not None:
        print(reached)
    for run in runs:
        if run["status"] in {"failed", "interrupted", "lost"}:
            where = folder.run(run["experiment"], run["cycle"]).path
            print(f"  {where}: {run['status']}: {run['error_class']}: {run['error_message']}")


def results_command(path: Path) -> None:
    """Print the summary of what has been measured."""
    from llenergymeasure.report.text import study_text

    print(study_text(study_folder(path).path))
