"""``llem sensors``: what can be measured here, and how the cards' sensors behave."""

from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.api.characterise import Probed, probe
from llenergymeasure.api.sensors import known_lines, known_report, sensors_report, sensors_text
from llenergymeasure.cli.output import JsonOption, print_json
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK

CONTEXT = {"allow_interspersed_args": False}
DevicesOption = Annotated[
    str | None, typer.Option(help="GPUs by index or UUID, comma-separated; default all")
]


def sensors(
    load: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND …]",
            help="with --characterise: what makes the GPUs work in bursts, in place of PyTorch",
        ),
    ] = None,
    as_json: JsonOption = False,
    characterise: Annotated[
        bool,
        typer.Option(
            "--characterise",
            help="find how each GPU's sensor behaves, in about 70 s of load, and keep it",
        ),
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option(help="with --characterise: keep the recording here (Parquet)"),
    ] = None,
    devices: DevicesOption = None,
) -> int:
    """List the sensors of this machine, how well they do, and what is missing and why."""
    if load and not characterise:
        raise typer.BadParameter("a COMMAND is for --characterise; to meter one: llem meter")
    if samples is not None and not characterise:
        raise typer.BadParameter("--samples keeps the recording of --characterise")
    if not characterise:
        report = sensors_report(devices)
        if as_json:
            print_json(report)
        else:
            print(sensors_text(report))
        return EXIT_OK
    probed = probe(devices, load or (), samples)
    if as_json:
        print_json({"characterised": [_report(each) for each in probed]})
    else:
        print("\n".join(line for each in probed for line in _lines(each)))
    return EXIT_OK if all(each.kept for each in probed) else EXIT_FAILED


def _report(probed: Probed) -> dict[str, object]:
    found = known_report(probed.info, probed.found)
    return {**found, "kept": probed.kept, "not_kept_because": probed.reason}


def _lines(probed: Probed) -> list[str]:
    mark = "✓" if probed.kept else "✗"
    lines = [f"{mark} {probed.found.device}  {probed.found.name}"]
    lines += known_lines(known_report(probed.info, probed.found))
    return lines + ([] if probed.kept else [f"    not kept: {probed.reason}"])
