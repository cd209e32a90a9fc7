"""``llem sensors``: what can be measured here, and how the cards' sensors behave."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llenergymeasure.api.calibrate import calibrate
from llenergymeasure.api.sensor_probe import ProbeResult, probe
from llenergymeasure.api.sensors import channel_lines, channel_report, sensors_report, sensors_text
from llenergymeasure.cli.output import JsonOption, print_json
from llenergymeasure.energy.meter_comparison import MeterSetup
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK

CONTEXT = {"allow_interspersed_args": False}
DevicesOption = Annotated[
    str | None, typer.Option(help="GPUs by index or UUID, comma-separated; default: all")
]


def sensors(
    load: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="command that loads the GPUs in bursts for --characterise or "
            "--calibrate-against, instead of PyTorch",
        ),
    ] = None,
    as_json: JsonOption = False,
    characterise: Annotated[
        bool,
        typer.Option(
            "--characterise",
            help="load each GPU for about 70 s, and save how its sensor behaves",
        ),
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option(
            help="write the recording to this file (Parquet); --calibrate-against reads it"
        ),
    ] = None,
    calibrate_against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="log of an external meter during the recording (CSV of times and watts): prints "
            "the gain and offset of the card as a calibration file",
        ),
    ] = None,
    meter_accuracy: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="relative accuracy of that meter, half width at 95 %"),
    ] = 0.01,
    rest_watts: Annotated[
        float | None,
        typer.Option(help="power of other parts that the meter sees; default: none"),
    ] = None,
    supply_efficiency: Annotated[
        float,
        typer.Option(
            min=0.5, max=1.0, help="efficiency of the power supply between meter and card, 0.5 to 1"
        ),
    ] = 1.0,
    devices: DevicesOption = None,
) -> int:
    """List the sensors of this machine, how accurate they are, and what is missing and why."""
    if characterise and calibrate_against is not None:
        raise typer.BadParameter("--characterise and --calibrate-against are two calls")
    if load and not (characterise or calibrate_against):
        raise typer.BadParameter("a COMMAND is for --characterise; to meter one: llem meter")
    if samples is not None and not (characterise or calibrate_against):
        raise typer.BadParameter("--samples keeps the recording of --characterise")
    if calibrate_against is not None:
        meter = MeterSetup(meter_accuracy, rest_watts, supply_efficiency)
        text, messages = calibrate(calibrate_against, samples, meter, devices, load or ())
        print("\n".join(messages), file=sys.stderr)
        print(text, end="")
        return EXIT_OK
    if not characterise:
        report = sensors_report(devices)
        if as_json:
            print_json(report)
        else:
            print(sensors_text(report))
        return EXIT_OK
    probed, errors = probe(devices, load or (), samples)
    if as_json:
        print_json({"characterised": [_result_json(result) for result in probed]})
    else:
        print("\n".join(line for result in probed for line in _result_lines(result)))
    for line in errors:
        print(f"llem: {line}", file=sys.stderr)
    return EXIT_OK if all(result.is_kept for result in probed) and not errors else EXIT_FAILED


def _result_json(result: ProbeResult) -> dict[str, Any]:
    report = channel_report(result.info, result.characterised)
    return {**report, "kept": result.is_kept, "not_kept_because": result.reason}


def _result_lines(result: ProbeResult) -> list[str]:
    mark = "✓" if result.is_kept else "✗"
    lines = [f"{mark} {result.characterised.device}  {result.characterised.name}"]
    lines += channel_lines(_result_json(result))
    return lines + ([] if result.is_kept else [f"    not kept: {result.reason}"])
