"""What a precision target may cost, in words."""

from collections.abc import Iterator
from dataclasses import replace

from llenergymeasure.plan.model import Plan


def longest(plan: Plan) -> Plan:
    """Return the plan as it would be if every experiment needed all cycles it may have.

    Its runs stand for their number and their length; they are in no order to run them in.
    """
    most = int(plan.execution["max_cycles"])
    last = {run.experiment: run for run in plan.runs}
    planned: dict[str, int] = {}
    for run in plan.runs:
        planned[run.experiment] = max(planned.get(run.experiment, 0), run.cycle)
    more = [
        replace(run, cycle=cycle)
        for experiment, run in last.items()
        if experiment not in plan.stopping
        for cycle in range(planned[experiment] + 1, most + 1)
    ]
    return replace(plan, runs=plan.runs + tuple(more))


def precision_lines(plan: Plan) -> Iterator[str]:
    """Yield what is planned for a precision target; nothing without one."""
    target = plan.execution.get("precision_target")
    if target is None:
        return
    pilot, most = plan.execution["n_cycles"], plan.execution["max_cycles"]
    experiments = len(plan.experiments)
    yield (
        f"  to ±{100 * target:g} % of the energy per output token: {pilot} pilot cycles, then as "
        f"many as their spread asks for, at most {most}"
    )
    decided = len(plan.stopping)
    if decided == experiments:
        yield "  every experiment's number of cycles is fixed by its pilot"
        return
    told = "no experiment's" if decided == 0 else f"{decided} of {experiments} experiments'"
    yield f"  {told} number of cycles is fixed yet: at most {len(longest(plan).runs)} runs in all"
