"""Names and quantities that every room uses the same."""

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

DISQUALIFYING: frozenset[str] = frozenset(
    {
        "channel_mismatch",
        "failed_requests",
        "not_comparable",
        "other_process",
        "recorder_lost",
        "sample_gap",
    }
)
"""Validity codes that keep a run out of the means; it is still kept and shown."""

MARKING: frozenset[str] = frozenset(
    {
        "late_sends",
        "not_steady",
        "over_saturated",
        "shared_node",
        "short_window",
        "temperature_drift",
        "throttled",
        "token_mismatch",
        "undersampled",
    }
)
"""Validity codes that are shown beside a run that stays in the means."""
