"""``llem meter``: the energy of any command, like ``perf stat``."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llenergymeasure.api.benchmark_energy import benchmark_energy
from llenergymeasure.api.benchmarks import BenchmarkFile
from llenergymeasure.api.metering import Metered
from llenergymeasure.api.metering import meter as metered_block
from llenergymeasure.cli.metered_command import CommandResult, run_command
from llenergymeasure.cli.sensors import DevicesOption
from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration, read_calibration
from llenergymeasure.errors import (
    EXIT_CONFIGURATION,
    EXIT_FAILED,
    EXIT_OK,
    ConfigurationError,
    LlemError,
    as_message,
    say_if_possible,
)
from llenergymeasure.files import write_text
from llenergymeasure.recording.samples import recorder_cost, write_samples
from llenergymeasure.redact import without_secret_arguments
from llenergymeasure.results.energy import Reading
from llenergymeasure.screen import printable
from llenergymeasure.units import NS_PER_S

REST_S = 3.0
"""How long to rest before a benchmark and after it, to know what is drawn without work."""

CONTEXT = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def meter(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="what to measure")],
    json_path: Annotated[
        Path | None, typer.Option("--json", help="write the readings to this file")
    ] = None,
    samples_path: Annotated[
        Path | None, typer.Option("--samples", help="write the time series to this file (Parquet)")
    ] = None,
    devices: DevicesOption = None,
    no_align: Annotated[
        bool, typer.Option("--no-align", help="no idle time before and after the command")
    ] = False,
    require: Annotated[
        bool, typer.Option("--require", help="exit with 2 if nothing can be measured")
    ] = False,
    calibration_path: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="calibration of the GPUs against an external meter",
        ),
    ] = None,
    result_path: Annotated[
        Path | None,
        typer.Option(
            "--result",
            metavar="FILE",
            help="result file of a benchmark: report energy per token and request (vLLM, SGLang, "
            "AIPerf, GuideLLM, llama-bench)",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="address of the benchmarked server on this machine"),
    ] = None,
) -> int:
    """Measure the energy of any command, as perf stat does."""
    benchmark_file = None if result_path is None else BenchmarkFile(result_path)
    calibration = NO_CALIBRATION if calibration_path is None else read_calibration(calibration_path)
    result: CommandResult | None = None
    writes_at_end = samples_path is not None and samples_path.suffix == ".parquet"
    clock_offsets_ns = [_clock_offset_ns()]
    with metered_block(
        devices,
        align=not no_align,
        samples=None if writes_at_end else samples_path,
        calibration=calibration,
        server=server,
        rest_s=REST_S if benchmark_file else 0.0,
    ) as metered:
        for warning in metered.ready["warnings"]:
            say_if_possible(f"llem: {warning}")
        if metered.has_measuring_sensor or not require:
            result = run_command(command)
    if result is None:
        say_if_possible(f"llem: nothing can be measured here\n{_sensor_reasons(metered.ready)}")
        return EXIT_CONFIGURATION
    document = _document(command, result, metered, calibration)
    exit_code = result.exit_code
    if benchmark_file is not None and result.error is None:
        clock_offsets_ns.append(_clock_offset_ns())
        runs, reason = [], None
        try:
            runs = benchmark_file.read(result.started_ns, result.ended_ns, clock_offsets_ns)
        except ConfigurationError as error:  # the energy of the whole is not lost
            reason, exit_code = str(error), exit_code or EXIT_CONFIGURATION
        is_server = server is not None
        document |= {
            "benchmarks": [benchmark_energy(metered, run, server=is_server) for run in runs],
            "benchmarks_unavailable": reason,
        }
    text = json.dumps(document, indent=1) + "\n"
    parquet_path = samples_path if writes_at_end else None
    write_errors = [
        *_try_writing(json_path, lambda path: write_text(path, text)),
        *_try_writing(parquet_path, lambda path: write_samples(metered.samples, path)),
    ]
    # A command that could not be started has done nothing whose energy is of interest.
    report = _text(document, result, metered) if result.error is None else f"llem: {result.error}"
    say_if_possible("\n".join([report, *write_errors]))
    return exit_code or (EXIT_FAILED if write_errors else EXIT_OK)


def _try_writing(path: Path | None, write: Callable[[Path], None]) -> Iterator[str]:
    """Write a file if one is asked for; yield why that failed: the energy is not lost with it."""
    if path is not None:
        try:
            write(path)
        except (LlemError, OSError) as error:
            yield f"llem: {as_message(error)}"


def _clock_offset_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


def _document(
    command: Sequence[str], result: CommandResult, metered: Metered, calibration: Calibration
) -> dict[str, Any]:
    account = metered.account
    start_ns, end_ns = account.window
    calibration_record = calibration.for_record(account.calibratable)
    return {
        "window": {
            "start_monotonic_ns": start_ns,
            "end_monotonic_ns": end_ns,
            "duration_s": (end_ns - start_ns) / NS_PER_S,
        },
        "readings": [reading.model_dump() for reading in account.readings],
        "validity": list(account.validity),
        "validity_reasons": dict(account.validity),
        "command_exit_code": result.exit_code,
        "command": without_secret_arguments(command),
        "unavailable": metered.unavailable,
        "sensors": metered.ready["sensors"],
        "gpus": [dict(card) for card in account.gpus],
        "calibration": calibration_record,
        "recorder_cost": recorder_cost(metered.samples),
    }


def _sensor_reasons(ready: Mapping[str, Any]) -> str:
    lines = (
        f"  {sensor['sensor']}: {sensor['unavailable'] or 'only an estimate'}"
        for sensor in ready["sensors"]
    )
    return "\n".join(dict.fromkeys(lines))  # one sensor may estimate several devices


def _text(document: dict[str, Any], result: CommandResult, metered: Metered) -> str:
    """Return what a person reads, after the manner of perf stat."""
    duration_s = document["window"]["duration_s"]
    lines = ["", f" Energy of: {' '.join(document['command'])}", ""]
    readings = [Reading.model_validate(reading) for reading in document["readings"]]
    width = max((len(_energy(reading)) for reading in readings), default=0)
    lines += [_line(reading, duration_s, width) for reading in readings]
    if not readings:
        lines.append("  nothing could be measured or estimated")
    elif not any(reading.headline for reading in readings):
        lines.append(f"  no total: {document['unavailable']}")
    else:
        lines += ["", f"  * in the total: {metered}"]
    lines += ["", f"  {(result.ended_ns - result.started_ns) / NS_PER_S:.3f} s elapsed"]
    if any(reading.u_sys_j for reading in readings):
        lines.append("  ±: 95 % interval; the gain of the sensor is apart from it")
    calibration = document["calibration"]
    if calibration is not None and not calibration["gains"]:
        lines.append(f"  {calibration['file']} names none of what was read: it is uncalibrated")
    reasons = document["validity_reasons"]
    lines += [f"  validity: {code}: {reason}" for code, reason in reasons.items()]
    for benchmark in document.get("benchmarks", ()):
        lines += _benchmark_lines(benchmark)
    if document.get("benchmarks_unavailable"):
        lines += ["", f"  no energy of the benchmark: {document['benchmarks_unavailable']}"]
    return printable("\n".join(lines))


def _benchmark_lines(benchmark: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person reads of one benchmark."""
    window, energy = benchmark["window"], benchmark["energy"]
    requests, requests_worked = benchmark["requests"], benchmark["requests_worked"]
    unsure = f" (its start is known to ± {window['unsure_s']:.2f} s)" if window["unsure_s"] else ""
    work = "" if requests_worked in (None, requests) else f" (the work of {requests_worked:.1f})"
    yield ""
    yield f" {benchmark['tool']}: {benchmark['what']}"
    yield (
        f"  {window['duration_s']:.3f} s{unsure}, {requests} requests{work}, "
        f"{benchmark['output_tokens']} output and {benchmark['input_tokens']} input tokens"
    )
    if energy["gross_j"] is None:
        yield f"  no energy: {energy['unavailable']}"
    for name, unit in (
        ("gross", "J"),
        ("net", "J above the power at rest before and after"),
        ("per_output_token", "J per output token"),
        ("per_request", "J per request"),
    ):
        value, half = energy[f"{name}_j"], energy[f"{name}_u95_j"]
        if value is not None:
            spread = "" if half is None else f" ± {half:.3g}"
            yield f"  {f'{value:.4g}{spread}':>32} {unit}"
    if benchmark["advice"]:
        yield f"  to know when it began: {benchmark['advice']}"
    for code, reason in benchmark["validity_reasons"].items():
        yield f"  validity: {code}: {reason}"


def _line(reading: Reading, duration_s: float, width: int) -> str:
    details = f"{reading.sensor} {reading.channel}, {reading.kind}, scope {reading.scope}"
    energy = f"  {_energy(reading):>{width}}"
    if reading.gross_j is None:
        return f"{energy}   {reading.device}  ({details}): {reading.unavailable}"
    mean_w = reading.gross_j / duration_s if duration_s > 0 else float("nan")
    mark = " *" if reading.headline else ""
    gain_rel = (reading.u_sys_j or 0.0) / reading.gross_j if reading.gross_j else 0.0
    gain_text = f", gain ± {100 * gain_rel:.0f} %" if gain_rel else ""
    return f"{energy}   {mean_w:9.2f} W  {reading.device}  ({details}{gain_text}){mark}"


def _energy(reading: Reading) -> str:
    if reading.gross_j is None:
        return "unavailable"
    spread = "" if reading.gross_u95_j is None else f" ± {reading.gross_u95_j:.2f}"
    return f"{reading.gross_j:.2f}{spread} J"
