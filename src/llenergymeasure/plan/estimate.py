"""How long a plan may take: the waits that are known, and a guess at the rest."""

import json
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.plan.model import Plan

START_S = 5.0
"""Guess: starting and ending the processes of a run."""

LOAD_S = {"quick": 5.0, "standard": 30.0, "publication": 30.0}
"""Guess: loading a model, by protocol; quick is for small ones."""

SETTLE_SHARE = 0.25
"""Guess: how much of the longest wait for the start temperature is needed on average."""


def estimate_duration_s(plan: Plan, measured: bool = True) -> float:
    """Return roughly how long the runs of ``plan`` take, one after the other, in seconds.

    Args:
        plan: the plan.
        measured: whether a sensor measures, on which ``protocol: auto`` depends.
    """
    known: dict[str, float] = {}
    total = 0.0
    for run in plan.runs:
        timed = {key: run.config[key] for key in _TIMED if key in run.config}
        same = json.dumps(timed, sort_keys=True)
        if same not in known:
            known[same] = _run_s(timed, measured)
        total += known[same] + run.gap_s
    return total


_TIMED = ("protocol", "warmup", "baseline", "window")
"""The settings that the known waits follow from."""


def _run_s(timed: dict[str, Any], measured: bool) -> float:
    config = ExperimentConfig.model_validate({"model": "any", **timed})
    protocol = resolve_protocol(config, measured)
    idle_s = 2 * protocol.idle_before_s + protocol.idle_after_s
    settle_s = protocol.settle_max_s * SETTLE_SHARE if protocol.settle_enabled else 0.0
    return (
        START_S
        + LOAD_S[protocol.name]
        + settle_s
        + idle_s
        + _warmup_s(protocol)
        + protocol.window_min_s
    )


def _warmup_s(protocol: ProtocolSettings) -> float:
    if not protocol.warmup_enabled:
        return 0.0
    return max(protocol.warmup_floor_s, float(protocol.warmup_n))
