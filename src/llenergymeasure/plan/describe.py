"""A plan as text for people."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llenergymeasure.config.dotted import value_at
from llenergymeasure.plan.estimate import JUDGING_TIME, Estimates, duration
from llenergymeasure.plan.fairness import fairness, unmatched_experiments
from llenergymeasure.plan.plan import Plan
from llenergymeasure.screen import align_columns

SHOWN_RUNS = 40
SHOWN_LEFT_OUT = 20
SHOWN_UNKNOWN = 4
_CELL = 40
_PLACES = {"local": "without a container", "apptainer": "in Apptainer", "docker": "in Docker"}


def describe_plan(
    plan: Plan, estimates: Estimates | None = None, *, share: bool = True, jobs: str | None = None
) -> str:
    """Return what will be run and in which order, what was left out and why, and how long.

    Args:
        plan: the plan.
        estimates: how long runs take, by who knows models and devices.
        share: whether runs may share a server, which those of one machine do, one at a time.
        jobs: that runs are jobs, and whose, in words; None where they go on this machine.
    """
    return "\n".join(_lines(plan, estimates or Estimates(), share, jobs)) + "\n"


def _lines(plan: Plan, estimates: Estimates, share: bool, jobs: str | None) -> Iterator[str]:
    yield f"Study {plan.study}: {_count(len(plan.runs), 'run')}"
    yield from () if jobs is None else (f"  {jobs}",)
    order = plan.execution.get("cycle_order")
    yield f"  {_count(len(plan.experiments), 'experiment')} x {_cycles(plan)}, {order}"
    sequence = "one run after the other" if jobs is None else "all jobs added up, without the queue"
    yield f"  {_estimated(plan, estimates, share=share)}, {sequence}"
    if plan.execution.get("precision_target") is not None:
        longest = _estimated(_longest(plan), estimates, share=share)
        yield f"  with all cycles that it may take: {longest}"
    estimate = estimates.plan(plan)
    unknown = estimate.unknown
    if unknown:
        more = ", …" if len(unknown) > SHOWN_UNKNOWN else ""
        yield f"  not counted, as not known here: {', '.join(unknown[:SHOWN_UNKNOWN])}{more}"
    elif estimate.longest:
        yield "  counted at max_input_tokens and max_output_tokens: shorter texts take less"
        if "quality" in plan.sections:
            yield f"  not counted: {JUDGING_TIME}"
    yield from _precision(plan)
    yield from _sessions(plan, share=share)
    yield from _runners(plan, "" if jobs is None else "in its job ")
    yield ""
    yield _table(plan)
    hidden_count = len(plan.runs) - SHOWN_RUNS
    if hidden_count > 0:
        yield f"… and {_count(hidden_count, 'more run')}"
    if plan.left_out or plan.same_as:
        yield ""
        yield from left_out_lines(plan)
    yield from _engines(plan)
    for note in plan.notes:
        yield f"Note: {note}"


def _longest(plan: Plan) -> Plan:
    """Return the plan as it would be if every experiment needed all cycles it may have.

    Its runs stand for their number and their length; they are in no order to run them in.
    """
    cycles = Counter(run.experiment for run in plan.runs)
    extra_runs = [
        replace(run, cycle=cycle)
        for run in {run.experiment: run for run in plan.runs}.values()
        if run.experiment not in plan.stopping
        for cycle in range(cycles[run.experiment] + 1, int(plan.execution["max_cycles"]) + 1)
    ]
    return replace(plan, runs=plan.runs + tuple(extra_runs))


def _precision(plan: Plan) -> Iterator[str]:
    """Yield what is planned for a precision target; nothing without one."""
    target = plan.execution.get("precision_target")
    if target is None:
        return
    pilot, max_cycles = plan.execution["n_cycles"], plan.execution["max_cycles"]
    experiments = len(plan.experiments)
    yield (
        f"  to ±{100 * target:g} % of the energy per output token: {pilot} pilot cycles, then as "
        f"many as their spread asks for, at most {max_cycles}"
    )
    decided = len(plan.stopping)
    if decided == experiments:
        yield "  every experiment's number of cycles is fixed by its pilot"
        return
    fixed = "no experiment's" if decided == 0 else f"{decided} of {experiments} experiments'"
    yield f"  {fixed} number of cycles is fixed yet: at most {len(_longest(plan).runs)} runs in all"


def _sessions(plan: Plan, *, share: bool) -> Iterator[str]:
    """Yield how many starts of servers are shared, where the study asks for it."""
    if not plan.execution.get("share_server"):
        return
    shared = [run.session for run in plan.runs if run.session is not None]
    if not shared:
        yield "  no runs of a cycle can share a server; docs/serving.md says which can"
        return
    if not share:
        yield "  each run starts its own server: with this profile several may go at a time"
        return
    starts = _count(len(set(shared)), "start")
    yield f"  {_count(len(shared), 'run')} on {starts} of a server, on one machine, one at a time"


def _cycles(plan: Plan) -> str:
    """Return how many cycles the experiments have; under a precision target they may differ."""
    counts = Counter(run.experiment for run in plan.runs).values()
    fewest, most = min(counts, default=1), max(counts, default=1)
    return _count(most, "cycle") if fewest == most else f"{fewest} to {most} cycles"


def _estimated(plan: Plan, estimates: Estimates, *, share: bool) -> str:
    quick, standard = (estimates.plan(plan, measured, share=share) for measured in (False, True))
    if quick == standard:
        return f"{quick} by estimate"
    return (
        f"{standard} by estimate where a sensor measures, "
        f"{duration(quick.seconds)} where energy is only estimated"
    )


def _engines(plan: Plan) -> Iterator[str]:
    comparison = fairness(plan)
    if comparison is None:
        return
    groups = comparison["same_work"]
    shared = sum(len(group) for group in groups)
    yield ""
    yield (
        f"Engines compared: {_count(shared, 'experiment')} in {_count(len(groups), 'group')} of "
        "the same work; prompts and output tokens are held against each other when merged"
        if groups
        else "Engines compared: none does the work of another"
    )
    for pair in unmatched_experiments(plan):
        yield f"Not comparable: {pair}"


def _runners(plan: Plan, in_job: str) -> Iterator[str]:
    runners: dict[str, str] = {run.backend: run.runner for run in plan.runs}
    for backend, reason in plan.runner_reasons.items():
        image = f" with {plan.images[backend]}" if backend in plan.images else ""
        yield f"  {in_job}{backend} runs {_PLACES[runners[backend]]}{image} ({reason})"


def _table(plan: Plan) -> str:
    header = ["order", "experiment", "cycle", "backend", *plan.swept_keys]
    rows = [
        [
            *(str(run.order), run.experiment, str(run.cycle), run.backend),
            *(_cell(run.swept.get(key)) for key in plan.swept_keys),
        ]
        for run in plan.runs[:SHOWN_RUNS]
    ]
    return align_columns([header, *rows], left=range(1, len(header)), droppable=(1,))


def left_out_lines(plan: Plan) -> Iterator[str]:
    """Yield which points of the grid are not run, and why; nothing where all are."""
    yield from _point_lines("Left out", plan.left_out, plan.swept_keys)
    repeated = [
        {**point, "reason": f"as {point['experiment']}, for {point['reason']}"}
        for point in plan.same_as
    ]
    yield from _point_lines("Measured once with another", repeated, plan.swept_keys)


def _point_lines(
    title: str, points: Sequence[Mapping[str, Any]], swept_keys: Sequence[str]
) -> Iterator[str]:
    if not points:
        return
    yield f"{title}: {_count(len(points), 'point')}"
    for point in points[:SHOWN_LEFT_OUT]:
        yield f"  {_point_text(point['config'], swept_keys)}: {point['reason']}"
    hidden_count = len(points) - SHOWN_LEFT_OUT
    if hidden_count > 0:
        yield f"  … and {hidden_count} more"


def _point_text(config: dict[str, Any], keys: Sequence[str]) -> str:
    values = {key: value_at(config, key) for key in keys}
    parts = [f"{key}={_cell(value)}" for key, value in values.items() if value is not None]
    return " ".join([f"backend={config.get('backend')}", *parts])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
