"""A finished run's figures, recomputed from its samples and its requests."""

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llenergymeasure.config.calibration import Calibration, Gain, calibration_of
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.servers import is_external
from llenergymeasure.energy.account import METHOD
from llenergymeasure.errors import ConfigurationError, LlemError, ResultsError
from llenergymeasure.parquet import read_parquet
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.results.complete import Difference, damages
from llenergymeasure.results.energy import Energy, Footprint
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.record import Result, Tokens
from llenergymeasure.results.record_files import read_result, read_run_row
from llenergymeasure.results.table import run_row
from llenergymeasure.run.result.batch_requests import batch_tokens, batches_of
from llenergymeasure.run.result.run_energy import run_energy
from llenergymeasure.run.result.traffic_result import ServedRun
from llenergymeasure.sensors.behaviour import Characterised

RELATIVE = 1e-9
"""Two computations of one figure differ by less than this on any processor."""

_KNOWS_SENSORS = 2
"""Since this method a record holds what probes had found in the way it is read today."""

_SPLIT_AS_NOW = 7
"""Since this method prefill and decode are computed as now, but for a calibration then."""

_LATER_COUNTS = ("output_sd", "output_mean", "output_came", "requests_worked")
"""Counts that records of earlier versions lack; what follows from them has not changed."""

_COUNTED_BY_WORK = ("input", "input_cached", "thinking")
"""Tokens that earlier versions counted as they came under traffic, which is not computed here; of
the output that is ``output_came``."""

_POWER_CHANGED = 0.05
"""So far beyond both intervals an earlier method's energy of power readings may lie: method 6 moved
such energies by up to 3 %."""

_IN_PROPORTION = (
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
    found = []
    try:
        for each in damages(folder):
            found.append(each)
            yield each
    except OSError as error:
        yield Difference(folder.path, what=f"cannot be read: {error}")
        return
    try:
        result = read_result(folder.result)
    except ResultsError as error:
        if not found:
            yield Difference(folder.result, what=str(error).removeprefix(f"{folder.result}: "))
        return
    try:
        yield from _figures(folder, result)
        yield from _row(folder, result, swept)
    except (
        *(LlemError, OSError, pa.ArrowException),
        *(ValueError, LookupError, TypeError, AttributeError),
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Difference(folder.path, what=f"its figures cannot be recomputed: {reason}")


def _figures(folder: RunFolder, result: Result) -> Iterator[Difference]:
    """Yield what differs in the record's energy, tokens, latencies and codes."""
    requests = read_parquet(folder.requests)
    window = (result.window.start_monotonic_ns, result.window.end_monotonic_ns)
    details = result.provenance.get("validity_details") or {}
    method = result.provenance.get("energy_method") or 0
    sensors = result.provenance.get("known_sensors") if method >= _KNOWS_SENSORS else None
    known = [Characterised.from_dict(each) for each in sensors or []]
    served = _served(result, requests, window)
    prompt_hash = result.tokens.prompt_hash
    tokens = batch_tokens(requests, prompt_hash) if served is None else served.tokens(prompt_hash)
    later = [name for name in _LATER_COUNTS if getattr(result.tokens, name) is None]
    update: dict[str, Any] = dict.fromkeys(later)
    if served is not None and "output_came" in later:
        update |= {name: getattr(result.tokens, name) for name in _COUNTED_BY_WORK}
        update["output"] = tokens.output_came
    tokens = tokens.model_copy(update=update)
    counted = _as_counted(tokens, result)
    energy = run_energy(
        read_samples(folder.samples),
        window,
        [(each.name, each.start_monotonic_ns, each.end_monotonic_ns) for each in result.phases],
        batches_of(requests),
        counted,
        devices=_devices(result),
        asked=result.config.get("energy") or {},
        characterised={(each.sensor, each.device): each for each in known},
        carbon=_declared(result.energy.footprint),
        recorder_lost="recorder_lost" in details,
        own_server=not is_external(result.config),
        precision=result.protocol.get("precision"),
        calibration=_calibration(result),
    )
    record, recomputed = energy.record, {"tokens": tokens.model_dump()}
    recomputed["performance"] = (
        _latencies(requests) if served is None else served.performance(counted)
    )
    before, now = (_added_up(each) for each in (result.energy, record))
    if method == METHOD and before == now:
        recomputed["energy"] = record.model_dump(exclude=_decided_otherwise(result.energy))
    parts = result.model_dump(include={*recomputed})
    recorded = {key: {name: parts[key][name] for name in recomputed[key]} for key in recomputed}
    yield from differences(folder.result, recorded, recomputed)
    if before != now:
        what = (
            f"the headline is of {_named(before)}, and this version counts {_named(now)}; if an "
            "earlier version made the record, it may hold what was read in part: each device's "
            "own energy is in energy.readings"
        )
        yield Difference(folder.result, "energy.scopes", what=what)
    if method != METHOD:
        yield from _earlier_method(folder, result.energy, record)
        if method >= _SPLIT_AS_NOW and before == now:
            kept = {"split"} - _decided_otherwise(result.energy)
            was, again = (each.model_dump(include=kept) for each in (result.energy, record))
            yield from differences(folder.result, was, again, "energy")
        return
    if before != now:
        mine, others = (
            [each.model_dump(exclude={"headline"}) for each in energy.readings]
            for energy in (result.energy, record)
        )
        yield from differences(folder.result, mine, others, "energy.readings")
    for code in energy.account.validity:
        if code not in result.validity:
            yield Difference(folder.result, "validity", what=f"{code} is not among its codes")


def _calibration(result: Result) -> Calibration | None:
    """Return the gains that a record's energies were computed with; None where it names none.

    The file itself counts where it is there as it was: earlier versions noted those of cards alone.
    """
    used = result.provenance.get("calibration")
    if used is None:
        return None
    with suppress(ConfigurationError):
        file = calibration_of((result.config.get("energy") or {}).get("calibration"))
        if file.sha256 == used["sha256"]:
            return file
    return Calibration({name: Gain(**gain) for name, gain in used["gains"].items()})


def _as_counted(tokens: Tokens, result: Result) -> Tokens:
    """Return tokens whose requests are those that the record's figures are of.

    Earlier versions took a window in which no answer ended for one without requests.
    """
    if result.tokens.requests or result.performance.requests_per_s:
        return tokens
    return tokens.model_copy(update={"requests_worked": None})


def _decided_otherwise(energy: Energy) -> set[str]:
    """Return the parts of an energy that earlier versions gave, and this one does not.

    They could have negative energies for prefill or decode.
    """
    split = energy.split
    parts = split and (split.prefill_per_input_token_j, split.decode_per_output_token_j)
    below = any(each is not None and each <= 0 for each in parts or ())
    return {"split", "thinking"} if below else set()


def _added_up(energy: Energy) -> set[str]:
    """Return the devices whose energies are the headline."""
    return {each.device for each in energy.readings if each.headline}


def _named(devices: Collection[str]) -> str:
    return ", ".join(sorted(devices)) or "nothing"


def _earlier_method(folder: RunFolder, old: Energy, new: Energy) -> Iterator[Difference]:
    """Yield where an earlier method's energy is further off than both methods' intervals allow.

    Quotients of the headline energy have to follow from the recorded one.
    """
    powers = [each.channel == "power" for each in old.readings if each.headline]
    moved = _POWER_CHANGED if any(powers) else RELATIVE
    mine, others = (old.gross_j, old.u95_j), (new.gross_j, new.u95_j)
    if _added_up(old) == _added_up(new):
        yield from _apart(folder, "energy.gross_j", mine, others, moved)
    fresh = {(each.device, each.sensor, each.channel): each for each in new.readings}
    for number, reading in enumerate(old.readings):
        again = fresh.get((reading.device, reading.sensor, reading.channel))
        if again is not None and None not in (reading.gross_j, again.gross_j):
            place = f"energy.readings[{number}].gross_j"
            mine = (reading.gross_j, reading.gross_u95_j or reading.u95_j)
            moved = _POWER_CHANGED if reading.channel == "power" else RELATIVE
            yield from _apart(folder, place, mine, (again.gross_j, again.gross_u95_j), moved)
    if not old.gross_j or not new.gross_j:
        return
    scale = old.gross_j / new.gross_j
    yield from differences(folder.result, _derived(old), _derived(new, scale), "energy")


def _apart(
    folder: RunFolder,
    figure: str,
    old: tuple[float | None, float | None],
    new: tuple[float | None, float | None],
    moved: float,
) -> Iterator[Difference]:
    """Yield a difference if two energies are further apart than their half widths allow.

    Energies of a new method may differ by the share ``moved`` in addition.
    """
    (old_j, old_u95_j), (new_j, new_u95_j) = old, new
    if old_j is not None and new_j is not None:
        allowed_j = (old_u95_j or 0.0) + (new_u95_j or 0.0) + moved * abs(old_j)
        if abs(old_j - new_j) <= allowed_j:
            return
    elif old_j is new_j:
        return
    yield Difference(folder.result, figure, old_j, new_j)


def _derived(energy: Energy, scale: float = 1.0) -> dict[str, Any]:
    """Return the values proportional to the headline, for a headline multiplied by a factor."""
    plain = energy.model_dump()
    values = {name: value_at(plain, name) for name in _IN_PROPORTION}
    return {name: None if value is None else value * scale for name, value in values.items()}


def _served(result: Result, requests: pa.Table, window: tuple[int, int]) -> ServedRun | None:
    if result.serving is None:
        return None
    config = ExperimentConfig.model_validate(result.config)
    return ServedRun.of(requests, config, window, {})


def _devices(result: Result) -> list[str]:
    """Return the cards in use; records of before they were kept name them among the machine's."""
    kept = result.provenance.get("energy_devices")
    if isinstance(kept, list):
        return [str(each) for each in kept]
    cards = result.environment.get("gpus") or []
    return [str(each["uuid"]) for each in cards if "uuid" in each]


def _declared(footprint: Footprint | None) -> dict[str, Any] | None:
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


def _row(folder: RunFolder, result: Result, swept: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what differs between the record and its flat row.

    The row was written for the sweep of that time: another sweep may have the same run.
    """
    written = read_run_row(folder.row)
    keys = [name for name in written if "." in name or name in swept]
    fresh = run_row(result, {key: value_at(result.config, key) for key in keys})
    # An older version's row lacks later columns, which is no difference.
    names = [name for name in written if name in fresh]
    yield from differences(
        folder.row, {name: written[name] for name in names}, {name: fresh[name] for name in names}
    )


def differences(
    file: Path, recorded: Any, recomputed: Any, figure: str = ""
) -> Iterator[Difference]:
    """Yield every leaf in which two nested values differ; numbers by :data:`RELATIVE`."""
    if isinstance(recorded, Mapping) and isinstance(recomputed, Mapping):
        for key in dict.fromkeys([*recorded, *recomputed]):
            inner = f"{figure}.{key}" if figure else str(key)
            yield from differences(file, recorded.get(key), recomputed.get(key), inner)
    elif _list(recorded) and _list(recomputed) and len(recorded) == len(recomputed):
        for number, pair in enumerate(zip(recorded, recomputed, strict=True)):
            yield from differences(file, *pair, f"{figure}[{number}]")
    elif not _same(recorded, recomputed):
        yield Difference(file, figure, recorded, recomputed)


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12) or (
                math.isnan(one) and math.isnan(other)
            )
        except TypeError:
            return False
    return bool(one == other)
