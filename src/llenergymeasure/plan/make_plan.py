"""From a study to its plan; nothing is read or written."""

from collections.abc import Mapping, Sequence
from typing import Any

from llenergymeasure import ids
from llenergymeasure.config.execution import ExecutionConfig
from llenergymeasure.config.study import Study
from llenergymeasure.plan.orders import Slot, extended, ordered, together
from llenergymeasure.plan.plan import Plan, PlannedRun


def make_plan(study: Study, stopping: Mapping[str, Mapping[str, Any]] | None = None) -> Plan:
    """Return every run of ``study`` in the order to run them.

    Args:
        study: what to run.
        stopping: under a precision target, what the pilot of each experiment decided: ``cycles``
            in all, and why. Experiments that are not in it have their pilot alone.
    """
    stopping = stopping or {}
    design_hash = ids.study_design_hash(each.id for each in study.experiments)
    given = study.execution
    seed = design_hash if given.shuffle_seed is None else str(given.shuffle_seed)
    slots = list(ordered(len(study.experiments), study.n_cycles, given.cycle_order, seed))
    cycles = [
        int(stopping.get(each.id, {}).get("cycles", study.n_cycles)) for each in study.experiments
    ]
    slots += extended(cycles, study.n_cycles, given.cycle_order, seed)
    slots, sessions = together(study, slots)
    return Plan(
        study=study.name,
        study_design_hash=design_hash,
        runs=tuple(_runs(study, slots, sessions)),
        left_out=study.left_out,
        same_as=study.same_as,
        swept_keys=study.swept_keys,
        execution={
            **given.model_dump(exclude_none=True),
            "n_cycles": study.n_cycles,
            **({} if given.cycles_at_most is None else {"max_cycles": given.cycles_at_most}),
        },
        stopping=stopping,
        images={
            name: choice.image for name, choice in study.runners.items() if choice.image is not None
        },
        runner_reasons={
            name: choice.reason for name, choice in study.runners.items() if choice.reason
        },
        notes=study.notes,
        sections=study.sections,
        written=study.written,
        overrides=study.overrides,
    )


def _runs(study: Study, slots: Sequence[Slot], sessions: Mapping[Slot, int]) -> list[PlannedRun]:
    runs = []
    before: Slot | None = None
    for order, slot in enumerate(slots, start=1):
        index, cycle = slot
        experiment = study.experiments[index]
        backend = experiment.model.backend
        runs.append(
            PlannedRun(
                experiment=experiment.id,
                cycle=cycle,
                order=order,
                backend=backend,
                runner=study.runner(backend).runner,
                config=experiment.config,
                swept=experiment.swept,
                gap_s=_gap_s(before, slot, study.execution),
                timeout_s=study.execution.run_timeout_seconds,
                session=sessions.get(slot),
            )
        )
        before = slot
    return runs


def _gap_s(before: Slot | None, now: Slot, execution: ExecutionConfig) -> float:
    """Return the rest between two runs: the longer one where experiment and cycle both change."""
    if before is None:
        return 0.0
    between_experiments = execution.experiment_gap_seconds or 0.0 if before[0] != now[0] else 0.0
    between_cycles = execution.cycle_gap_seconds or 0.0 if before[1] != now[1] else 0.0
    return max(between_experiments, between_cycles)
