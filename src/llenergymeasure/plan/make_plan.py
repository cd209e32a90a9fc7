"""From a study to its plan; nothing is read or written."""

from collections.abc import Mapping, Sequence
from typing import Any

from llenergymeasure import ids
from llenergymeasure.config.execution import ExecutionConfig
from llenergymeasure.config.study import Study
from llenergymeasure.plan.orders import Slot, group_by_session, later_slots, order_slots
from llenergymeasure.plan.plan import Plan, PlannedRun


def make_plan(study: Study, stopping: Mapping[str, Mapping[str, Any]] | None = None) -> Plan:
    """Return every run of ``study`` in the order to run them.

    Args:
        study: what to run.
        stopping: under a precision target, what the pilot of each experiment decided: ``cycles``
            in all, and why. Experiments that are not in it have their pilot alone.
    """
    stopping = stopping or {}
    design_hash = ids.study_design_hash(experiment.id for experiment in study.experiments)
    execution = study.execution
    seed = design_hash if execution.shuffle_seed is None else str(execution.shuffle_seed)
    slots = list(order_slots(len(study.experiments), study.n_cycles, execution.cycle_order, seed))
    decisions = (stopping.get(experiment.id, {}) for experiment in study.experiments)
    cycles = [int(decision.get("cycles", study.n_cycles)) for decision in decisions]
    slots += later_slots(cycles, study.n_cycles, execution.cycle_order, seed)
    slots, sessions = group_by_session(study, slots)
    settings = {**execution.model_dump(exclude_none=True), "n_cycles": study.n_cycles}
    if execution.cycles_at_most is not None:
        settings["max_cycles"] = execution.cycles_at_most
    return Plan(
        study=study.name,
        study_design_hash=design_hash,
        runs=tuple(_runs(study, slots, sessions)),
        left_out=study.left_out,
        same_as=study.same_as,
        swept_keys=study.swept_keys,
        execution=settings,
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
    previous: Slot | None = None
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
                gap_s=_gap_s(previous, slot, study.execution),
                timeout_s=study.execution.run_timeout_seconds,
                session=sessions.get(slot),
            )
        )
        previous = slot
    return runs


def _gap_s(previous: Slot | None, slot: Slot, execution: ExecutionConfig) -> float:
    """Return the rest between two runs: the longer one where experiment and cycle both change."""
    if previous is None:
        return 0.0
    between_experiments = execution.experiment_gap_seconds or 0.0 if previous[0] != slot[0] else 0.0
    between_cycles = execution.cycle_gap_seconds or 0.0 if previous[1] != slot[1] else 0.0
    return max(between_experiments, between_cycles)
