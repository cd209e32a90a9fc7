"""A study's precision target: how many cycles its pilots ask for, and what is left to do.

The plan begins with a pilot. Where an experiment's pilot is complete when a workflow starts, its
number of cycles is set from it and written into the plan by the main process; from then on it
stays, whatever later cycles show. Failed or interrupted pilots are completed first: their
experiments are decided by the next start.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llenergymeasure.config.study import Study
from llenergymeasure.errors import ResultsError
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.report.formatting import count_text
from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import SUMMARY_NAME, StudyFolder

DECIDING_SETTINGS = ("precision_target", "max_cycles", "n_cycles")
"""Settings that a decision depends on: if one changes, it is made again from the same pilot."""


def plan_study(study: Study, folder: StudyFolder) -> Plan:
    """Return the study's plan, with the cycles that its complete pilots ask for."""
    plan = make_plan(study)
    if plan.execution.get("precision_target") is None:
        return plan
    written_plan = make_plan(study, _written_decisions(plan, folder))
    decided = decisions(written_plan, folder)
    return make_plan(study, decided) if decided else plan


def decisions(plan: Plan, folder: StudyFolder) -> dict[str, Mapping[str, Any]]:
    """Return the pilots' decisions by experiment: those in the plan, then newly complete ones."""
    decided = dict(plan.stopping)
    for experiment in plan.experiments:
        if experiment not in decided:
            decision = _decision(plan, folder, experiment)
            if decision is not None:
                decided[experiment] = decision
    return decided


@dataclass(frozen=True)
class Precision:
    """How far a study is from its precision target.

    Attributes:
        target: half width of the interval over the mean.
        reached: whether every experiment has it.
        runs_to_come: runs that the next call of the workflow adds to the plan.
        short: experiments that have reached max_cycles but not the precision.
    """

    target: float
    reached: bool
    runs_to_come: int
    short: int

    def __str__(self) -> str:
        """Return it as a line for people, which begins with the field's name for programs."""
        target = f"±{100 * self.target:g} % of the energy per output token"
        if self.reached:
            return f"precision_reached: true: {target}"
        line = f"precision_reached: false: {target}"
        if self.runs_to_come:
            line += (
                f" takes {count_text(self.runs_to_come, 'more run')}; the same command runs them"
            )
        if self.short:
            experiments = count_text(self.short, "experiment has", "experiments have")
            line += f"; {experiments} all planned cycles and not the precision"
        return line


def precision(plan: Plan, folder: StudyFolder, open_runs: int) -> Precision | None:
    """Return the state of the study's precision target; None without one.

    Whether the target is reached is read from the summary once all runs are done.
    """
    target = plan.execution.get("precision_target")
    if target is None:
        return None
    cycles = Counter(run.experiment for run in plan.runs)
    decided = decisions(plan, folder).items()
    extra_runs = sum(max(0, decision["cycles"] - cycles[name]) for name, decision in decided)
    reached = {} if open_runs or extra_runs else _reached(folder)
    is_summarised = reached.keys() == cycles.keys()
    return Precision(
        target=float(target),
        reached=is_summarised and all(reached.values()),
        runs_to_come=extra_runs,
        short=sum(not has_precision for has_precision in reached.values()),
    )


def _written_decisions(plan: Plan, folder: StudyFolder) -> Mapping[str, Mapping[str, Any]]:
    """Return the decisions of the plan that was written, if they are those of these settings."""
    try:
        written = Plan.read(folder.plan)
    except ResultsError:
        return {}
    if any(written.execution.get(name) != plan.execution.get(name) for name in DECIDING_SETTINGS):
        return {}
    experiments = set(plan.experiments)
    return {name: decision for name, decision in written.stopping.items() if name in experiments}


def _decision(plan: Plan, folder: StudyFolder, experiment: str) -> dict[str, Any] | None:
    """Return what an experiment's pilot decides; None where it is not complete."""
    pilot_cycles = int(plan.execution["n_cycles"])
    runs = [folder.run(experiment, cycle) for cycle in range(1, pilot_cycles + 1)]
    if not all(is_complete(run) for run in runs):
        return None
    from llenergymeasure.analysis.selection import select
    from llenergymeasure.analysis.stopping_rule import METRIC, decide
    from llenergymeasure.results.record_files import read_result
    from llenergymeasure.results.table import run_row

    try:
        rows = [run_row(read_result(run.result), {}) for run in runs]
    except ResultsError:
        return None
    values = [row[METRIC] for row in select(rows).used_runs if row.get(METRIC) is not None]
    settings = plan.execution["precision_target"], int(plan.execution["max_cycles"])
    return asdict(decide(values, pilot_cycles, *settings))


def _reached(folder: StudyFolder) -> dict[str, bool]:
    """Return of each experiment in the summary whether it has the precision."""
    from llenergymeasure.parquet import read_parquet

    try:
        summary = read_parquet(folder.path / SUMMARY_NAME, ["experiment", "precision_reached"])
    except ResultsError:
        return {}
    return {row["experiment"]: bool(row["precision_reached"]) for row in summary.to_pylist()}
