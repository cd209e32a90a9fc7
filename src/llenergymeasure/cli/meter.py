"""``llem meter``: the energy of any command, like ``perf stat``."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llenergymeasure.api.metering import Metered, meter
from llenergymeasure.cli.metered_command import Ended, run_command
from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration, read_calibration
from llenergymeasure.errors import EXIT_CONFIGURATION
from llenergymeasure.files import write_text
from llenergymeasure.recording.cost import recorder_cost
from llenergymeasure.results.record import Reading
from llenergymeasure.units import NS_PER_S


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
    """Run a command and report what energy it took.

    Args:
        command: program and arguments.
        json_path: where to write the readings, as JSON.
        samples_path: where to keep the time series (``.parquet``, or ``.arrows`` as recorded).
        devices: GPUs by UUID or NVML index joined by commas; those a CUDA process would see if
            not given.
        align: rest a little before the command and after it, so that its ends are exact.
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
    ended: Ended | None = None
    with meter(devices, align=align, samples=samples_path, calibration=calibration) as metered:
        for warning in metered.ready["warnings"]:
            print(f"llem: {warning}", file=sys.stderr)
        if _measures(metered.ready) or not require:
            ended = run_command(command)
    if ended is None:
        print(f"llem: nothing can be measured here\n{_reasons(metered.ready)}", file=sys.stderr)
        return EXIT_CONFIGURATION
    document = _document(command, ended, metered, calibration)
    if json_path is not None:
        write_text(json_path, json.dumps(document, indent=1) + "\n")
    # A command that could not be started has done nothing whose energy is of interest.
    said = _text(document, ended, metered) if ended.error is None else f"llem: {ended.error}"
    print(said, file=sys.stderr)
    return ended.exit_code


def _document(
    command: Sequence[str], ended: Ended, metered: Metered, calibration: Calibration
) -> dict[str, Any]:
    made = metered.account
    start_ns, end_ns = made.window
    used = calibration.for_record((card.info.device, card.info.name) for card in made.cards)
    return {
        "window": {
            "start_monotonic_ns": start_ns,
            "end_monotonic_ns": end_ns,
            "duration_s": (end_ns - start_ns) / NS_PER_S,
        },
        "readings": [reading.model_dump() for reading in made.readings],
        "validity": list(made.validity),
        "validity_reasons": dict(made.validity),
        "command_exit_code": ended.exit_code,
        "command": list(command),
        "unavailable": metered.unavailable,
        "sensors": metered.ready["sensors"],
        "gpus": [dict(card) for card in made.gpus],
        "calibration": used,
        "recorder_cost": asdict(recorder_cost(metered.samples)),
    }


def _measures(ready: Mapping[str, Any]) -> bool:
    return any(
        sensor["kind"] == "measured" and sensor["unavailable"] is None
        for sensor in ready["sensors"]
    )


def _reasons(ready: Mapping[str, Any]) -> str:
    return "\n".join(
        f"  {sensor['sensor']}: {sensor['unavailable'] or 'only an estimate'}"
        for sensor in ready["sensors"]
    )


def _text(document: dict[str, Any], ended: Ended, metered: Metered) -> str:
    """Return what a person reads, after the manner of perf stat."""
    duration_s = document["window"]["duration_s"]
    lines = ["", f" Energy of: {' '.join(document['command'])}", ""]
    readings = [Reading.model_validate(reading) for reading in document["readings"]]
    lines += [_line(reading, duration_s) for reading in readings]
    if not readings:
        lines.append("  nothing could be measured or estimated")
    elif not any(reading.headline for reading in readings):
        lines.append(f"  no total: {document['unavailable']}")
    else:
        lines += ["", f"  * in the total: {metered}"]
    lines += ["", f"  {(ended.ended_ns - ended.started_ns) / NS_PER_S:.3f} s elapsed"]
    if any(reading.u_sys_j for reading in readings):
        lines.append("  ±: 95 % interval; the gain of the sensor is apart from it")
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
    spread = "" if reading.gross_u95_j is None else f" ± {reading.gross_u95_j:.2f}"
    mean_w = reading.gross_j / duration_s if duration_s > 0 else float("nan")
    mark = " *" if reading.headline else ""
    energy = f"{reading.gross_j:.2f}{spread} J"
    gain = "" if not reading.u_sys_j else f", gain ± {reading.u_sys_j / reading.gross_j:.0%}"
    return f"  {energy:>32}   {mean_w:9.2f} W  {reading.device}  ({what}{gain}){mark}"
