"""A study's runs as its statistics take them: read, selected and found comparable once."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from llenergymeasure.analysis.comparable import COLUMNS as COMPARED_COLUMNS
from llenergymeasure.analysis.comparable import Comparable
from llenergymeasure.analysis.pareto import OBJECTIVES
from llenergymeasure.analysis.selection import (
    MACHINE_COLUMNS,
    Row,
    Selection,
    by_experiment,
    select,
)
from llenergymeasure.results.columns import RUN_SCHEMA, SETTING_COLUMNS
from llenergymeasure.results.record import Clocks

METRICS = (
    "energy_per_output_token_j",
    "energy_per_request_j",
    "energy_node_ratio",
    "output_tokens_per_request",
    "power_mean_w",
    "output_tokens_per_s",
    "request_latency_p50_s",
    "request_latency_p95_s",
    "time_to_first_token_p50_s",
    "time_to_first_token_p99_s",
    "time_per_output_token_p50_s",
    "goodput_requests_per_s",
    "energy_per_good_request_j",
    "perplexity",
    "quality_score",
    "carbon_per_1000_requests_gco2e",
    "cost_per_1000_requests",
)
"""Quantities whose mean the summary has."""

CLOCK_REALS = tuple(name for name in Clocks.model_fields if name != "slowed_by")

COLUMNS = (
    *("experiment", "cycle", "order", "status", "kind", "energy_source", "energy_scopes"),
    *("validity", "window_s", "energy_gross_j", "energy_u95_j", "energy_u_sys_j", "study"),
    *("energy_shared_u95_j", *CLOCK_REALS, "slowed_by", "quality_items"),
    *("study_design_hash", "host", "gpu_uuid", "started_at", "start_temperature_celsius"),
    *("energy_method", *OBJECTIVES, *SETTING_COLUMNS, *MACHINE_COLUMNS, *METRICS),
    *COMPARED_COLUMNS,
)
"""Columns of ``runs.parquet`` that are read: the others of a large study stay packed."""


class StudyRuns:
    """The runs of a study, and which of them are in the means.

    Attributes:
        rows: one a run.
        settings: the columns of the swept settings, and their types.
        planned: the plan's runs, with their settings.
        execution: the plan's.
        design_hash: the study's; the seed of random draws.
    """

    def __init__(self, runs: pa.Table, plan: Mapping[str, Any] | None = None) -> None:
        """Take the runs of a study's table.

        Args:
            runs: one row a run.
            plan: ``plan.json``, parsed.
        """
        fixed, plan = set(RUN_SCHEMA.names), plan or {}
        self.settings = {each.name: each.type for each in runs.schema if each.name not in fixed}
        columns = dict.fromkeys([*COLUMNS, *self.settings])
        self.rows: list[Row] = runs.select([*columns]).to_pylist()
        self.planned: Sequence[Mapping[str, Any]] = plan.get("runs") or ()
        self.execution: Mapping[str, Any] = plan.get("execution") or {}
        self.design_hash = str(plan.get("study_design_hash"))

    @cached_property
    def experiments(self) -> dict[str, list[Row]]:
        """The rows of each experiment, in the order of their first ones."""
        return by_experiment(self.rows)

    @cached_property
    def selections(self) -> dict[str, Selection]:
        """Which runs of each experiment are in its mean."""
        return {name: select(members) for name, members in self.experiments.items()}

    @cached_property
    def comparable(self) -> Comparable:
        """What may be compared."""
        return Comparable(self.selections, self.planned)
