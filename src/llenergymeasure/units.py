"""Names and quantities that every room uses the same."""

import math
from typing import Literal

Kind = Literal["measured", "estimated"]
"""Whether a sensor saw the energy or a model guessed it."""

Scope = Literal["gpu", "cpu", "dram", "module", "host", "node"]
"""What a reading covers. Overlapping scopes are never added; a node is the machine at its plug."""

SensorName = Literal["nvml", "rapl", "zeus", "codecarbon", "node"]

BackendName = Literal["pytorch", "vllm", "sglang", "tensorrt", "openai"]
BACKENDS: tuple[BackendName, ...] = ("pytorch", "vllm", "sglang", "tensorrt", "openai")

RunnerName = Literal["local", "apptainer", "docker"]

Status = Literal["running", "completed", "failed", "interrupted", "lost", "missing"]
"""How a run's latest attempt ended; ``lost`` and ``missing`` are only concluded, never written."""

MISSING: Literal["missing"] = "missing"
"""Status of a planned run that never began, also where it had a job."""

J_PER_WH = 3600.0
NS_PER_S = 1_000_000_000
"""Nanoseconds in a second: every time stamp is CLOCK_MONOTONIC in nanoseconds."""

COVERAGE_FACTOR = 1.96
"""Half width of the central 95 % of a normal distribution in standard deviations (GUM G.1.3): of
every ``u95``."""

NO_VALUE = "-"
"""What stands for None."""


def percent(share: float | None) -> str:
    """Return a share such as 0.0123 as ``1.2 %``, with two significant digits.

    What is not all does not read as 100 %: 0.996 is ``99.6 %``.
    """
    if share is None:
        return NO_VALUE
    size = abs(share * 100)
    if size == 0:
        return "0 %"
    decimals = 1 - math.floor(math.log10(size))
    if 99 < size < 100 - 5e-5:
        decimals = -math.floor(math.log10(100 - size) + 1e-9)
    decimals = min(max(decimals, 0), 4)
    return f"{share * 100:.{decimals}f} %"
