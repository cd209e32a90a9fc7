"""Calibrating a card: its sensor held against the log of an external meter over a stepping load."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import yaml

from llenergymeasure.api.sensor_probe import OWN_LOAD, keep_recording, record_load
from llenergymeasure.config.calibration import check_entry
from llenergymeasure.energy.device import open_device
from llenergymeasure.energy.knots import Readings
from llenergymeasure.energy.meter_comparison import MeterComparison, MeterSetup, compare_with_meter
from llenergymeasure.errors import ConfigurationError, MeterError, Problem
from llenergymeasure.files import sha256
from llenergymeasure.recording.samples import Header, Samples, read_samples
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.watt_log import MAX_BYTES, LoggedPower, parse_log
from llenergymeasure.units import NS_PER_S

SLOW_LOAD = (*OWN_LOAD, "--steps", "40", "--slower", "10")
"""Ten minutes of steps that a meter of 1 Hz can follow."""


def calibrate(
    log: Path,
    recording: Path | None,
    meter: MeterSetup,
    devices: str | None = None,
    command: Sequence[str] = (),
) -> tuple[str, list[str]]:
    """Return a calibration file of one card, and what was found in words.

    Args:
        log: the meter's, a CSV of times and watts.
        recording: of the card over that time (``llem meter --samples``); one that is not there is
            made while a load steps, and kept here.
        meter: what is known of the meter.
        devices: the card, by UUID or NVML index, where there are several.
        command: the load, in place of the project's own.

    Raises:
        ConfigurationError: the log cannot be used, or several cards were recorded.
        MeterError: card and meter cannot be held against each other.
    """
    notes: list[str] = []
    if recording is not None and recording.exists():
        samples = read_samples(recording)
    else:
        samples, _ = record_load(devices, command or SLOW_LOAD)
        notes = [f"  {line}" for line in keep_recording(samples, recording)]
    info = _select_card(samples, devices)
    channels = open_device(samples, info).channels(0, 1)
    if not channels:
        raise MeterError(f"{info.device}: the recording holds no energy of this card")
    fit = compare_with_meter(channels[0], _readings(_read_log(log), samples.header), meter)
    return _calibration_yaml(info, fit, log, samples), _summary_lines(info, fit) + notes


def _select_card(samples: Samples, devices: str | None) -> SensorInfo:
    cards = [
        card
        for card in samples.header.sensors
        if (card.sensor, card.scope, card.unavailable) == ("nvml", "gpu", None)
        and (devices is None or card.device == devices or len(samples.header.sensors) == 1)
    ]
    if len(cards) != 1:
        message = "one card at a time can be held against a meter; record it alone"
        names = ", ".join(card.device for card in cards) or "none"
        raise ConfigurationError(Problem(message, key="--devices", found=names))
    return cards[0]


def _read_log(log: Path) -> list[LoggedPower]:
    try:
        with log.open("rb") as file:
            start = max(file.seek(0, os.SEEK_END) - MAX_BYTES, 0)
            file.seek(start)
            return parse_log(file.read(MAX_BYTES).decode(errors="replace").splitlines())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            Problem(f"this meter's log cannot be used: {reason}", file=log)
        ) from error


def _readings(lines: Sequence[LoggedPower], header: Header) -> Readings:
    """Return a log on the recording's time; a moment that is there twice counts once."""
    start_s = datetime.fromisoformat(header.started_at).timestamp()
    t_s = np.array([line.at_s - start_s for line in lines])
    watts = np.array([line.watts for line in lines])
    rising = np.concatenate(([True], np.diff(t_s) > 0))
    return Readings(
        header.started_monotonic_ns, t_s[rising], np.zeros(int(rising.sum())), watts[rising]
    )


def _calibration_yaml(info: SensorInfo, fit: MeterComparison, log: Path, samples: Samples) -> str:
    header = samples.header
    span_s = (int(samples.table["t_ns"][-1].as_py()) - header.started_monotonic_ns) / NS_PER_S
    entry = {
        "gain": round(fit.gain, 5),
        "u_gain_rel": round(fit.u_gain_rel, 5),
        "offset_w": round(fit.offset_w, 3),
        "u_offset_w": round(fit.u_offset_w, 3),
        "source": f"{log.name} (sha256 {sha256(log)[:12]}), {span_s:.0f} s from "
        f"{header.started_at}, {fit.levels} levels",
    }
    try:
        check_entry(info.device, entry)
    except ConfigurationError as error:
        raise MeterError(
            f"what follows is no calibration: {error}. Is the log in watts and of this card alone, "
            "and are --supply-efficiency, --rest-watts and --meter-accuracy as they should be?"
        ) from error
    return yaml.safe_dump({"gpus": {info.device: entry}}, sort_keys=False, width=1000)


def _summary_lines(info: SensorInfo, fit: MeterComparison) -> list[str]:
    return [
        f"{info.device}  {info.name}",
        f"  indicated = {fit.gain:.4f} (± {100 * fit.u_gain_rel:.2f} %) · true power "
        f"{fit.offset_w:+.2f} (± {fit.u_offset_w:.2f}) W, from {fit.levels} levels",
        f"  the meter is {fit.lag.lag_s:.2f} (± {fit.lag.u95_s:.2f}) s late",
        *(f"  {note}" for note in fit.notes),
    ]
