"""``llem meter``: the energy of any command, like ``perf stat``."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration, read_calibration
from llenergymeasure.errors import EXIT_CONFIGURATION
from llenergymeasure.files import write_text
from llenergymeasure.meter.account import account
from llenergymeasure.meter.characters import load_known
from llenergymeasure.meter.child import Ended, run_command
from llenergymeasure.meter.client import RecorderProcess
from llenergymeasure.meter.cost import recorder_cost
from llenergymeasure.meter.samples import read_samples, write_samples
from llenergymeasure.meter.ticks import TickClock
from llenergymeasure.results.record import Reading
from llenergymeasure.units import NS_PER_S

READY_S = 60.0
STOP_S = 10.0
TICK_S = 2.0
"""How long to wait for a counter's tick; the slowest known step at about 1 s."""


@dataclass(frozen=True)
class _Run:
    """A command that has run inside a window.

    Attributes:
        ended: how the command ended.
        start_ns: where the window opens, at or before the command's start.
        end_ns: where it closes, at or after its end.
        aligned: whether both are ticks of a counter.
    """

    ended: Ended
    start_ns: int
    end_ns: int
    aligned: bool


def run_meter(
    command: Sequence[str],
    *,
    json_path: Path | None = None,
    samples_path: Path | None = None,
    devices: str | None = None,
    align: bool = True,
    require: bool = False,
    calibration_path: Path | None = None,
) -> int:
    """Run a command and say what energy it took.

    Args:
        command: program and arguments.
        json_path: where to write the readings, as JSON.
        samples_path: where to keep the time series (``.parquet``, or ``.arrows`` as recorded).
        devices: GPUs by UUID or NVML index joined by commas; those a CUDA process would see if
            not given.
        align: open and close the window at ticks of the energy counter, a few milliseconds
            before the command's start and after its end.
        require: do not run the command where nothing can be measured (an estimate does not
            count).
        calibration_path: gains found against an external meter.

    Returns:
        The command's exit code, 128 + n if signal n ended it; 2 if nothing can be measured and
        that is required.

    Raises:
        MeterError: the recorder did not start.
        ConfigurationError: the devices are not there, or the calibration cannot be used.
    """
    calibration = NO_CALIBRATION if calibration_path is None else read_calibration(calibration_path)
    with _recording(samples_path, devices) as (recorder, ticks, stream):
        ready = recorder.wait_ready(READY_S)
        for warning in ready["warnings"]:
            print(f"llem: {warning}", file=sys.stderr)
        if require and not _measures(ready):
            print(f"llem: nothing can be measured here\n{_reasons(ready)}", file=sys.stderr)
            return EXIT_CONFIGURATION
        run = _run(command, ticks, align=align)
        status = recorder.stop(STOP_S)
        document = _account(command, run, ready, stream, calibration, lost=status != 0)
        if run.ended.error is not None:
            print(f"llem: {run.ended.error}", file=sys.stderr)
        if samples_path is not None and samples_path != stream:
            write_samples(read_samples(stream), samples_path)
    if json_path is not None:
        write_text(json_path, json.dumps(document, indent=1) + "\n")
    print(_text(document, run), file=sys.stderr)
    return run.ended.exit_code


@contextmanager
def _recording(
    samples_path: Path | None, devices: str | None
) -> Iterator[tuple[RecorderProcess, Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="llem-meter-") as name:
        folder = Path(name)
        stream = folder / "samples.arrows"
        if samples_path is not None and samples_path.suffix == ".arrows":
            stream = samples_path
        ticks = folder / "ticks"
        recorder = RecorderProcess.start(stream, ticks=ticks, devices=devices)
        try:
            yield recorder, ticks, stream
        finally:
            recorder.stop(STOP_S)


def _run(command: Sequence[str], ticks: Path, *, align: bool) -> _Run:
    with TickClock(ticks) as clock:
        opened_ns = clock.wait_next(TICK_S) if align else None
        ended = run_command(command)
        closed_ns = clock.wait_next(TICK_S) if opened_ns is not None else None
    return _Run(
        ended,
        start_ns=ended.started_ns if opened_ns is None else opened_ns,
        end_ns=ended.ended_ns if closed_ns is None else closed_ns,
        aligned=opened_ns is not None and closed_ns is not None,
    )


def _account(
    command: Sequence[str],
    run: _Run,
    ready: dict[str, Any],
    stream: Path,
    calibration: Calibration,
    *,
    lost: bool,
) -> dict[str, Any]:
    ended = run.ended
    samples = read_samples(stream)
    result = account(
        samples,
        window=(run.start_ns, run.end_ns),
        phases=[("command", ended.started_ns, ended.ended_ns)],
        calibration=calibration,
        known=load_known(samples.header.sensors),
        recorder_lost=lost,
    )
    used = calibration.for_record((card.info.device, card.info.name) for card in result.cards)
    return {
        "window": {
            "start_monotonic_ns": run.start_ns,
            "end_monotonic_ns": run.end_ns,
            "duration_s": (run.end_ns - run.start_ns) / NS_PER_S,
        },
        "readings": [reading.model_dump() for reading in result.readings],
        "validity": list(result.validity),
        "validity_reasons": dict(result.validity),
        "command_exit_code": ended.exit_code,
        "command": list(command),
        "phases": [
            {
                "name": "command",
                "start_monotonic_ns": ended.started_ns,
                "end_monotonic_ns": ended.ended_ns,
            }
        ],
        "tick_aligned": run.aligned,
        "sensors": ready["sensors"],
        "gpus": [dict(card) for card in result.gpus],
        "calibration": used,
        "recorder_cost": asdict(recorder_cost(samples)),
    }


def _measures(ready: dict[str, Any]) -> bool:
    return any(
        sensor["kind"] == "measured" and sensor["unavailable"] is None
        for sensor in ready["sensors"]
    )


def _reasons(ready: dict[str, Any]) -> str:
    return "\n".join(
        f"  {sensor['sensor']}: {sensor['unavailable'] or 'only an estimate'}"
        for sensor in ready["sensors"]
    )


def _text(document: dict[str, Any], run: _Run) -> str:
    """Return what a person is told, after the manner of perf stat."""
    duration_s = document["window"]["duration_s"]
    lines = ["", f" Energy of: {' '.join(document['command'])}", ""]
    readings = [Reading.model_validate(reading) for reading in document["readings"]]
    lines += [_line(reading, duration_s) for reading in readings]
    if not readings:
        lines.append("  nothing could be measured or estimated")
    lines += ["", f"  {(run.ended.ended_ns - run.ended.started_ns) / NS_PER_S:.3f} s elapsed"]
    if run.aligned:
        before_ms = (run.ended.started_ns - run.start_ns) / 1e6
        after_ms = (run.end_ns - run.ended.ended_ns) / 1e6
        lines.append(
            f"  window {duration_s:.3f} s, from counter tick to counter tick: "
            f"{before_ms:.1f} ms before the command and {after_ms:.1f} ms after it are in it"
        )
    calibration = document["calibration"]
    if calibration is not None and not calibration["gains"]:
        lines.append(f"  {calibration['file']} names none of these GPUs: they are uncalibrated")
    reasons = document["validity_reasons"]
    lines += [f"  validity: {code}: {reason}" for code, reason in reasons.items()]
    return "\n".join(lines)


def _line(reading: Reading, duration_s: float) -> str:
    what = f"{reading.sensor} {reading.channel}, {reading.kind}, scope {reading.scope}"
    if reading.gross_j is None:
        return f"  {'unavailable':>32}   {reading.device}  ({what}): {reading.unavailable}"
    spread = "" if reading.u95_j is None else f" ± {reading.u95_j:.2f}"
    mean_w = reading.gross_j / duration_s if duration_s > 0 else float("nan")
    mark = " *" if reading.headline else ""
    energy = f"{reading.gross_j:.2f}{spread} J"
    return f"  {energy:>32}   {mean_w:9.2f} W  {reading.device}  ({what}){mark}"
