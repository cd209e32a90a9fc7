"""From a study to its runs, in order. Pure: nothing is read or written but the plan's own file."""

from llenergymeasure.plan.describe import describe_plan, left_out_lines
from llenergymeasure.plan.estimate import Estimates
from llenergymeasure.plan.make_plan import make_plan
from llenergymeasure.plan.plan import PLAIN_VALUES, Plan, PlannedRun, settings_label

__all__ = [
    "PLAIN_VALUES",
    "Estimates",
    "Plan",
    "PlannedRun",
    "describe_plan",
    "left_out_lines",
    "make_plan",
    "settings_label",
]
