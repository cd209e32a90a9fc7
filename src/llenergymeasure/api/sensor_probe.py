"""Characterising this machine's cards: a load that steps, recorded, and what it shows, kept.

``llem sensors --characterise`` makes the load itself with PyTorch, or has a command make it.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llenergymeasure.energy.characterise import characterise
from llenergymeasure.energy.validity import surrounding_doubts
from llenergymeasure.errors import LlemError, MeterError, as_message
from llenergymeasure.processes import python_module
from llenergymeasure.recording.recorder_process import RecorderProcess
from llenergymeasure.recording.samples import Samples, read_samples, write_samples
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.known_behaviour import Characterisation, save_characterised
from llenergymeasure.sensors.stepping_load import STEPS_FILE

READY_S = 60.0
STOP_S = 10.0
REST_S = 3.0
"""Rest before and after the load, so that the recording knows the card's least power."""

_STANDARD_ERROR = 2
"""Where a command's output goes: standard output is for what was found."""

OWN_LOAD = tuple(python_module("llenergymeasure.sensors.stepping_load"))


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found of one card.

    Attributes:
        info: the card.
        characterised: how its channels behave.
        reason: why that is not kept for later recordings; None if it is.
    """

    info: SensorInfo
    characterised: Characterisation
    reason: str | None

    @property
    def is_kept(self) -> bool:
        """Whether it is kept for later recordings."""
        return self.reason is None


def probe(
    devices: str | None = None, command: Sequence[str] = (), samples_path: Path | None = None
) -> tuple[list[ProbeResult], list[str]]:
    """Record a stepping load; return how the cards' channels behave, and what is not kept.

    Args:
        devices: GPUs by UUID or NVML index joined by commas; those a CUDA process would see if
            not given.
        command: what makes the cards work in bursts and ends after about a minute; steps between
            rest and load that are each longer than 1.3 s and come at irregular times show most.
            Averaging windows and the counter's lag are found only by a load that knows when it
            stepped: it may append those moments (CLOCK_MONOTONIC in ns, one a line) to the file
            named in its environment's ``LLEM_STEPS``. The project's own load if empty.
        samples_path: where to keep the recording, as Parquet.

    Raises:
        MeterError: there is no card that can be read, the load failed, or another process used a
            card meanwhile.
        ConfigurationError: the devices are not there.
    """
    samples, edges_ns = record_load(devices, command or OWN_LOAD)
    probed = [
        _probe_result(samples, info, edges_ns)
        for info in samples.header.sensors
        if info.unavailable is None
    ]
    return probed, keep_recording(samples, samples_path)


def keep_recording(samples: Samples, path: Path | None) -> list[str]:
    """Write a recording where that is asked for; return why not: what it shows is not lost."""
    try:
        if path is not None:
            write_samples(samples, path)
    except (LlemError, OSError) as error:
        return [f"the recording is not kept: {as_message(error)}"]
    return []


def record_load(devices: str | None, command: Sequence[str]) -> tuple[Samples, list[int]]:
    """Record the cards while a load steps; return when it did too, where it says so.

    Raises:
        MeterError, ConfigurationError: as :func:`probe`.
    """
    with tempfile.TemporaryDirectory(prefix="llem-probe-") as folder:
        stream = Path(folder) / "samples.arrows"
        recorder = RecorderProcess.start(stream, devices=devices, sensors="nvml")
        try:
            ready = recorder.wait_ready(READY_S)
            reasons = [sensor["unavailable"] for sensor in ready["sensors"]]
            if None not in reasons:
                raise MeterError(
                    f"there is no card whose sensor could be characterised: {'; '.join(reasons)}"
                )
            time.sleep(REST_S)
            start_ns = time.monotonic_ns()
            edges_ns = _run_load(command, Path(folder) / "steps")
            end_ns = time.monotonic_ns()
            time.sleep(REST_S)
        finally:
            status = recorder.stop(STOP_S)
        if status != 0:
            raise MeterError("the recorder ended before it was asked to; nothing was found")
        samples = read_samples(stream)
    cards = {info.device.removeprefix("module:") for info in samples.header.sensors}
    for code, reason in surrounding_doubts(samples, cards, (start_ns, end_ns)):
        if code == "other_process":
            raise MeterError(f"not characterised: {reason}; wait until they have ended")
    return samples, edges_ns


def _run_load(command: Sequence[str], steps: Path) -> list[int]:
    """Have the load run; return when it stepped, where it says so."""
    is_own_load = tuple(command[: len(OWN_LOAD)]) == OWN_LOAD
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
            stderr=subprocess.PIPE if is_own_load else None,
            text=True,
            check=False,
            env={**os.environ, STEPS_FILE: str(steps)},
        )
    except OSError as error:
        raise MeterError(f"the load {command[0]} cannot be started: {error.strerror}") from error
    if process.returncode != 0:
        last_lines = (process.stderr or "").strip().splitlines()[-1:]
        reason = last_lines[0] if last_lines else f"it ended with {process.returncode}"
        raise MeterError(f"the load failed: {reason}")
    try:
        return [int(line) for line in steps.read_text().split()] if steps.exists() else []
    except ValueError as error:
        raise MeterError(f"the load wrote no moments to {STEPS_FILE}: {error}") from error


def _probe_result(samples: Samples, info: SensorInfo, edges_ns: Sequence[int]) -> ProbeResult:
    result = Characterisation.now(info, characterise(samples, info.device, edges_ns, info.sensor))
    reason = None
    if not result.behaviour.is_informative:
        reason = "power changed too little, too seldom or too evenly"
    elif not save_characterised(result):
        reason = "the place for it cannot be written to"
    return ProbeResult(info, result, reason)
