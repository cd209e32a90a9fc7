"""A finished run's figures, recomputed from its samples and its requests."""

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llenergymeasure.analysis.comparison_tables import OUTPUT_LENGTH
from llenergymeasure.config.calibration import Calibration, load_calibration
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.sensor_gain import Gain
from llenergymeasure.config.servers import is_external
from llenergymeasure.energy.account import METHOD
from llenergymeasure.errors import ConfigurationError, LlemError, ResultsError
from llenergymeasure.parquet import read_parquet
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.results.complete import Difference, faults
from llenergymeasure.results.energy import Energy, Footprint, Reading
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.record import Result, Tokens
from llenergymeasure.results.record_files import read_result, read_run_row
from llenergymeasure.results.table import run_row
from llenergymeasure.run.result.batch_requests import batch_tokens, group_batches
from llenergymeasure.run.result.run_energy import run_energy
from llenergymeasure.run.result.traffic_result import ServedRun
from llenergymeasure.sensors.known_behaviour import Characterisation

RELATIVE_TOLERANCE = 1e-9
"""Two computations of one figure differ by less than this on any processor."""

_FIRST_WITH_SENSORS = 2
"""Since this method a record holds what probes had found in the way it is read today."""

_FIRST_WITH_SAME_SPLIT = 7
"""Since this method prefill and decode are computed as now, but for a calibration then."""

_LATER_COUNTS = ("output_sd", "output_mean", "output_came", "requests_worked")
"""Counts that records of earlier versions lack; what follows from them has not changed."""

_COUNTED_BY_WORK = ("input", "input_cached", "thinking")
"""Tokens that earlier versions counted as they came under traffic, which is not computed here; of
the output that is ``output_came``."""

_POWER_TOLERANCE = 0.05
"""So far beyond both intervals an earlier method's energy of power readings may lie: method 6 moved
such energies by up to 3 %."""

_PROPORTIONAL = (
    "power_mean_w",
    "per_output_token_j",
    "per_input_token_j",
    "per_request_j",
    "per_1000_requests_wh",
    "footprint.energy_site_kwh",
    "footprint.carbon_gco2e",
    "footprint.carbon_per_1000_requests_gco2e",
    "footprint.cost",
    "footprint.cost_per_1000_requests",
)
"""Values that are proportional to the headline energy."""


def check_run(folder: RunFolder, swept: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield where a finished run's record or row differs from what its recording gives.

    The files' hashes come first: if one does not match, the other differences may follow from it.

    Args:
        folder: the run's.
        swept: the settings that the study sweeps, by dotted key.

    Raises:
        RecordVersionError: another version of this program wrote the record.
    """
    damage = []
    try:
        for difference in faults(folder):
            damage.append(difference)
            yield difference
    except OSError as error:
        yield Difference(folder.path, what=f"cannot be read: {error}")
        return
    try:
        result = read_result(folder.result)
    except ResultsError as error:
        if not damage:
            yield Difference(folder.result, what=str(error).removeprefix(f"{folder.result}: "))
        return
    try:
        yield from _check_figures(folder, result)
        yield from _check_row(folder, result, swept)
    except (
        *(LlemError, OSError, pa.ArrowException),
        *(ValueError, LookupError, TypeError, AttributeError),
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Difference(folder.path, what=f"its figures cannot be recomputed: {reason}")


def _check_figures(folder: RunFolder, result: Result) -> Iterator[Difference]:
    """Yield what differs in the record's energy, tokens, latencies and codes."""
    requests = read_parquet(folder.requests)
    window = (result.window.start_monotonic_ns, result.window.end_monotonic_ns)
    details = result.provenance.get("validity_details") or {}
    method = result.provenance.get("energy_method") or 0
    sensors = result.provenance.get("known_sensors") if method >= _FIRST_WITH_SENSORS else None
    probed = [Characterisation.from_dict(each) for each in sensors or []]
    served = _served_run(result, requests, window)
    prompt_hash = result.tokens.prompt_hash
    tokens = batch_tokens(requests, prompt_hash) if served is None else served.tokens(prompt_hash)
    absent = [name for name in _LATER_COUNTS if getattr(result.tokens, name) is None]
    update: dict[str, Any] = dict.fromkeys(absent)
    if served is not None and "output_came" in absent:
        update |= {name: getattr(result.tokens, name) for name in _COUNTED_BY_WORK}
        update["output"] = tokens.output_came
    tokens = tokens.model_copy(update=update)
    counted = _with_counted_requests(tokens, result)
    energy = run_energy(
        read_samples(folder.samples),
        window,
        [(each.name, each.start_monotonic_ns, each.end_monotonic_ns) for each in result.phases],
        group_batches(requests),
        counted,
        devices=_devices(result),
        settings=result.config.get("energy") or {},
        characterised={(sensor.sensor, sensor.device): sensor for sensor in probed},
        carbon=_declared_carbon(result.energy.footprint),
        recorder_lost="recorder_lost" in details,
        own_server=not is_external(result.config),
        precision=result.protocol.get("precision"),
        calibration=_calibration(result),
    )
    record, recomputed = energy.record, {"tokens": tokens.model_dump()}
    recomputed["performance"] = (
        _latencies(requests) if served is None else served.performance(counted)
    )
    old_devices, new_devices = (_headline_devices(each) for each in (result.energy, record))
    if method == METHOD and old_devices == new_devices:
        recomputed["energy"] = record.model_dump(exclude=_abandoned_parts(result.energy))
    stored = result.model_dump(include={*recomputed})
    recorded = {key: {name: stored[key][name] for name in recomputed[key]} for key in recomputed}
    yield from differences(folder.result, recorded, recomputed)
    if old_devices != new_devices:
        what = (
            f"the headline is of {_device_names(old_devices)}, and this version counts "
            f"{_device_names(new_devices)}; if an earlier version made the record, it may hold "
            "what was read in part: each device's own energy is in energy.readings"
        )
        yield Difference(folder.result, "energy.scopes", what=what)
    if method != METHOD:
        yield from _check_earlier_method(folder, result.energy, record)
        if method >= _FIRST_WITH_SAME_SPLIT and _headline(result.energy) == _headline(record):
            parts = {"split"} - _abandoned_parts(result.energy)
            old, new = (energy.model_dump(include=parts) for energy in (result.energy, record))
            yield from differences(folder.result, old, new, "energy")
        return
    if old_devices != new_devices:
        recorded_readings, readings = (
            [each.model_dump(exclude={"headline"}) for each in energy.readings]
            for energy in (result.energy, record)
        )
        yield from differences(folder.result, recorded_readings, readings, "energy.readings")
    for code in energy.account.validity:
        if code not in result.validity:
            yield Difference(folder.result, "validity", what=f"{code} is not among its codes")


def _calibration(result: Result) -> Calibration | None:
    """Return the gains that a record's energies were computed with; None where it names none.

    The file itself counts where it is there as it was: earlier versions noted those of cards alone.
    """
    recorded = result.provenance.get("calibration")
    if recorded is None:
        return None
    with suppress(ConfigurationError):
        file = load_calibration((result.config.get("energy") or {}).get("calibration"))
        if file.sha256 == recorded["sha256"]:
            return file
    return Calibration({name: Gain(**gain) for name, gain in recorded["gains"].items()})


def _with_counted_requests(tokens: Tokens, result: Result) -> Tokens:
    """Return tokens whose requests are those that the record's figures are of.

    Earlier versions took a window in which no answer ended for one without requests.
    """
    if result.tokens.requests or result.performance.requests_per_s:
        return tokens
    return tokens.model_copy(update={"requests_worked": None})


def _abandoned_parts(energy: Energy) -> set[str]:
    """Return the parts of an energy that earlier versions gave, and this one does not.

    They could have negative energies for prefill or decode.
    """
    split = energy.split
    energies = split and (split.prefill_per_input_token_j, split.decode_per_output_token_j)
    has_negative = any(energy_j is not None and energy_j <= 0 for energy_j in energies or ())
    return {"split", "thinking"} if has_negative else set()


def _headline_devices(energy: Energy) -> set[str]:
    """Return the devices whose energies are the headline."""
    return {device for device, _, _ in _headline(energy)}


def _channel(reading: Reading) -> tuple[str, str, str]:
    return reading.device, reading.sensor, reading.channel


def _headline(energy: Energy) -> set[tuple[str, str, str]]:
    return {_channel(each) for each in energy.readings if each.headline}


def _at_channels(channels: set[tuple[str, str, str]], energy: Energy) -> float | None:
    """Return the headline energy as it would be by other channels, where they show one."""
    if channels == _headline(energy):
        return energy.gross_j
    energies_j = [each.gross_j for each in energy.readings if _channel(each) in channels]
    known_j = [energy_j for energy_j in energies_j if energy_j is not None]
    return sum(known_j) if len(known_j) == len(channels) else energy.gross_j


def _device_names(devices: Collection[str]) -> str:
    return ", ".join(sorted(devices)) or "nothing"


def _check_earlier_method(folder: RunFolder, old: Energy, new: Energy) -> Iterator[Difference]:
    """Yield where an earlier method's energy is further off than both methods' intervals allow.

    Quotients of the headline energy have to follow from the recorded one.
    """
    if _headline_devices(old) == _headline_devices(new):
        by_power = any(each.channel == "power" for each in old.readings if each.headline)
        tolerance = _POWER_TOLERANCE if by_power else RELATIVE_TOLERANCE
        energies = (old.gross_j, old.u95_j), (_at_channels(_headline(old), new), new.u95_j)
        yield from _energy_difference(folder, "energy.gross_j", *energies, tolerance)
    new_readings = {_channel(each): each for each in new.readings}
    for number, reading in enumerate(old.readings):
        new_reading = new_readings.get(_channel(reading))
        if new_reading is not None and None not in (reading.gross_j, new_reading.gross_j):
            figure = f"energy.readings[{number}].gross_j"
            tolerance = _POWER_TOLERANCE if reading.channel == "power" else RELATIVE_TOLERANCE
            old_energy = reading.gross_j, reading.gross_u95_j or reading.u95_j
            new_energy = new_reading.gross_j, new_reading.gross_u95_j
            yield from _energy_difference(folder, figure, old_energy, new_energy, tolerance)
    if not old.gross_j or not new.gross_j:
        return
    scale = old.gross_j / new.gross_j
    figures = _proportionals(old), _proportionals(new, scale)
    yield from differences(folder.result, *figures, "energy")


def _energy_difference(
    folder: RunFolder,
    figure: str,
    old: tuple[float | None, float | None],
    new: tuple[float | None, float | None],
    tolerance: float,
) -> Iterator[Difference]:
    """Yield a difference if two energies are further apart than their half widths allow.

    Energies of a new method may differ by the share ``tolerance`` in addition.
    """
    (old_j, old_u95_j), (new_j, new_u95_j) = old, new
    if old_j is not None and new_j is not None:
        allowed_j = (old_u95_j or 0.0) + (new_u95_j or 0.0) + tolerance * abs(old_j)
        if abs(old_j - new_j) <= allowed_j:
            return
    elif old_j is new_j:
        return
    yield Difference(folder.result, figure, old_j, new_j)


def _proportionals(energy: Energy, scale: float = 1.0) -> dict[str, Any]:
    """Return the values proportional to the headline, for a headline multiplied by a factor."""
    fields = energy.model_dump()
    values = {name: value_at(fields, name) for name in _PROPORTIONAL}
    return {name: None if value is None else value * scale for name, value in values.items()}


def _served_run(result: Result, requests: pa.Table, window: tuple[int, int]) -> ServedRun | None:
    if result.serving is None:
        return None
    config = ExperimentConfig.model_validate(result.config)
    return ServedRun.from_requests(requests, config, window, {})


def _devices(result: Result) -> list[str]:
    """Return the cards in use; records of before they were kept name them among the machine's."""
    recorded = result.provenance.get("energy_devices")
    if isinstance(recorded, list):
        return [str(device) for device in recorded]
    cards = result.environment.get("gpus") or []
    return [str(card["uuid"]) for card in cards if "uuid" in card]


def _declared_carbon(footprint: Footprint | None) -> dict[str, Any] | None:
    """Return what the study declared of the place when it ran."""
    if footprint is None:
        return None
    names = ("grid_gco2e_per_kwh", "pue", "price_per_kwh", "currency", "source")
    return {name: getattr(footprint, name) for name in names}


def _latencies(requests: pa.Table) -> dict[str, Any]:
    latencies_s = requests["latency_s"].to_pylist()
    return {
        "request_latency_p50_s": statistics.median(latencies_s),
        "request_latency_p95_s": float(np.percentile(latencies_s, 95)),
    }


def _check_row(folder: RunFolder, result: Result, swept: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what differs between the record and its flat row.

    The row was written for the sweep of that time: another sweep may have the same run.
    """
    stored = read_run_row(folder.row)
    keys = [name for name in stored if "." in name or name in swept]
    fresh = run_row(result, {key: value_at(result.config, key) for key in keys})
    # An older version's row lacks later columns, and the length of answers of which none ended in
    # the window: no difference.
    names = [name for name in stored if name in fresh]
    if stored.get(OUTPUT_LENGTH) is None:
        names = [name for name in names if name != OUTPUT_LENGTH]
    recorded, recomputed = ({name: row[name] for name in names} for row in (stored, fresh))
    yield from differences(folder.row, recorded, recomputed)


def differences(
    file: Path, recorded: Any, recomputed: Any, figure: str = ""
) -> Iterator[Difference]:
    """Yield every leaf in which two nested values differ; numbers by :data:`RELATIVE_TOLERANCE`."""
    if isinstance(recorded, Mapping) and isinstance(recomputed, Mapping):
        for key in dict.fromkeys([*recorded, *recomputed]):
            nested = f"{figure}.{key}" if figure else str(key)
            yield from differences(file, recorded.get(key), recomputed.get(key), nested)
    elif _is_list(recorded) and _is_list(recomputed) and len(recorded) == len(recomputed):
        for index, pair in enumerate(zip(recorded, recomputed, strict=True)):
            yield from differences(file, *pair, f"{figure}[{index}]")
    elif not _is_same(recorded, recomputed):
        yield Difference(file, figure, recorded, recomputed)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        try:
            return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-12) or (
                math.isnan(a) and math.isnan(b)
            )
        except TypeError:
            return False
    return bool(a == b)
