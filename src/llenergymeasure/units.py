"""Names and quantities that every room uses the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["measured", "estimated"]
"""Whether a sensor saw the energy or a model guessed it."""

Scope = Literal["gpu", "cpu", "dram", "module", "host"]
"""What a reading covers. Overlapping scopes are never added."""

SensorName = Literal["nvml", "rapl", "zeus", "codecarbon"]

BackendName = Literal["pytorch", "vllm", "sglang", "tensorrt", "openai"]
BACKENDS: tuple[BackendName, ...] = ("pytorch", "vllm", "sglang", "tensorrt", "openai")

RunnerName = Literal["local", "apptainer", "docker"]
RUNNERS: tuple[RunnerName, ...] = ("local", "apptainer", "docker")

Status = Literal["running", "completed", "failed", "interrupted", "lost"]
"""How a run's latest attempt ended; ``lost`` is never written by the run, only concluded."""

MISSING = "missing"
"""State of a planned run that was never started; no attempt, so no :data:`Status`."""

J_PER_WH = 3600.0
NS_PER_S = 1_000_000_000
"""Nanoseconds in a second: every time stamp is CLOCK_MONOTONIC in nanoseconds."""


@dataclass(frozen=True)
class Code:
    """What a validity code means.

    Attributes:
        disqualifies: whether it keeps a run out of the means; the run is still kept and shown.
        meaning: in a sentence.
    """

    disqualifies: bool
    meaning: str


VALIDITY: Mapping[str, Code] = {
    "channel_mismatch": Code(True, "the energy counter and the power readings disagree"),
    "computes_on_cpu": Code(True, "a GPU was metered while the engine computed on the CPU"),
    "counter_jump": Code(True, "the energy counter did not rise by what a card can draw"),
    "counter_reset": Code(True, "the energy counter started over within the window"),
    "failed_requests": Code(True, "requests failed"),
    "mig_slice": Code(True, "the energy is that of a whole card, of which the run had a slice"),
    "not_comparable": Code(True, "the work differed from that of the experiment's other runs"),
    "other_process": Code(True, "another process computed on the GPU"),
    "recorder_lost": Code(True, "the recording ends before the window does"),
    "sample_gap": Code(True, "power readings were missing for too long"),
    "counter_unverified": Code(False, "nothing shows what the energy counter counts"),
    "graphics_process": Code(False, "another process drew on the GPU"),
    "late_sends": Code(False, "requests were sent later than planned"),
    "not_steady": Code(False, "throughput or power had a trend within the window"),
    "over_saturated": Code(False, "more requests came than were answered"),
    "rest_not_steady": Code(False, "the rest that net energy is above was not steady"),
    "shared_node": Code(False, "other GPUs of the machine were at work"),
    "short_window": Code(False, "the window is short for the sensor"),
    "split_poor_fit": Code(False, "prefill and decode do not explain the energy between ticks"),
    "temperature_drift": Code(False, "the GPU warmed or cooled within the window"),
    "throttled": Code(False, "the GPU lowered its clocks within the window"),
    "token_mismatch": Code(False, "the server counted other tokens than the client"),
    "undersampled": Code(False, "the sensor sees part of the time"),
}
"""Every validity code. Those of the meter are decided in ``energy.validity``."""

DISQUALIFYING = frozenset(code for code, each in VALIDITY.items() if each.disqualifies)
"""Validity codes that keep a run out of the means; it is still kept and shown."""

MARKING = frozenset(VALIDITY) - DISQUALIFYING
"""Validity codes that are shown beside a run that stays in the means."""
