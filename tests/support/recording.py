"""Recording the simulated card in a process of its own, as the supervisor does."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llenergymeasure.recording.recorder_process import RecorderProcess
from llenergymeasure.recording.samples import Header
from llenergymeasure.sensors.base import SensorInfo
from nvml_sim import sim

READY_S = 60.0
STOP_S = 20.0


def uuid(number: int) -> str:
    """A GPU's UUID, different for each number from its first digits on."""
    return f"GPU-{number:08d}-0000-4000-8000-000000000000"


def card_environment(
    folder: Path, devices: Sequence[sim.Device], **variables: str
) -> dict[str, str]:
    """Variables for processes that are to see these cards, with time zero now."""
    sim.library_or_skip()
    base = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_")}
    trace = sim.Trace(devices).write(folder)
    return {**sim.environment(trace, base=base), **variables}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have exactly these variables, so that children started inside inherit them."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def recorder(
    folder: Path, variables: Mapping[str, str], **options: Any
) -> Iterator[tuple[RecorderProcess, dict[str, Any]]]:
    """A recorder that samples, and what it said when it was ready."""
    with environment(variables):
        process = RecorderProcess.start(folder / "samples.arrows", **options)
    try:
        yield process, process.wait_ready(READY_S)
    finally:
        process.stop(STOP_S)


def run_module(
    module: str, *arguments: str, variables: Mapping[str, str], timeout_s: float = 120
) -> "subprocess.CompletedProcess[str]":
    """Run a module of ours to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=dict(variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def header(*sensors: SensorInfo) -> Header:
    """A recording's header."""
    return Header("boot", "time:[1]", "host", 0, "2025-01-01T00:00:00+00:00", sensors)
