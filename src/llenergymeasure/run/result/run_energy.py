"""A run's energy for its record: of the window, the phases, each batch, prefill and decode."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from llenergymeasure.config.calibration import calibration_of
from llenergymeasure.energy.account import METHOD, Account, account
from llenergymeasure.energy.batches import Batch, PartEnergy, batch_energies
from llenergymeasure.energy.footprint import Declared, footprint
from llenergymeasure.energy.requests import request_energies
from llenergymeasure.energy.rest import PhaseSpan
from llenergymeasure.energy.split import POOR_FIT, NoSplit, TokenEnergy, split_energy
from llenergymeasure.recording.cost import recorder_cost
from llenergymeasure.recording.samples import Samples
from llenergymeasure.results.record import Energy, TokenSplit
from llenergymeasure.run.result.thinking_energy import thinking_total, with_thinking
from llenergymeasure.sensors.behaviour import PRECISION, Characterised

REQUEST_ENERGY_FIELDS = [
    ("request_energy_j", pa.float64()),
    ("request_energy_u95_j", pa.float64()),
    ("request_energy_unavailable", pa.string()),
]
ENERGY_FIELDS = [
    ("batch_energy_j", pa.float64()),
    ("batch_energy_u95_j", pa.float64()),
    ("batch_energy_unavailable", pa.string()),
    *REQUEST_ENERGY_FIELDS,
]
"""What the table of requests says of the batch that each was in, and of each by itself."""


@dataclass(frozen=True)
class RunEnergy:
    """The energy of one run.

    Attributes:
        account: every reading, and stretches to ask for.
        record: the record's part on energy.
        batches: headline energy of each batch, by its number.
        requests: of each batch's requests, in the table's order.
        provenance: what the figures rest on: calibration, recorder.
    """

    account: Account
    record: Energy
    batches: tuple[PartEnergy, ...]
    requests: tuple[tuple[PartEnergy, ...], ...]
    provenance: dict[str, Any]

    def with_batches(self, requests: pa.Table) -> pa.Table:
        """Return the table of requests with each one's energy, and that of its batch."""
        numbers = requests["batch"].to_pylist()
        places = [iter(members) for members in self.requests]
        energies: Sequence[Sequence[PartEnergy]] = (
            [self.batches[number] for number in numbers],
            [next(places[number]) for number in numbers],
        )
        columns = [
            [getattr(each, name) for each in mine]
            for mine in energies
            for name in ("energy_j", "u95_j", "unavailable")
        ]
        for (name, kind), values in zip(ENERGY_FIELDS, columns, strict=True):
            place = requests.schema.get_field_index(name)
            requests = requests.set_column(place, pa.field(name, kind), pa.array(values, kind))
        return requests


def run_energy(
    samples: Samples,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan],
    requests: pa.Table,
    *,
    devices: Sequence[str],
    asked: Mapping[str, Any],
    characterised: Mapping[tuple[str, str], Characterised],
    carbon: Mapping[str, Any] | None = None,
    recorder_lost: bool = False,
    own_server: bool = True,
    precision: float | None = None,
) -> RunEnergy:
    """Compute a run's energy.

    Args:
        samples: the whole recording.
        window: start and end in CLOCK_MONOTONIC ns.
        phases: name, start and end of each.
        requests: one row a request of the window.
        devices: UUIDs of the cards in use.
        asked: the study's ``energy`` section.
        characterised: what probes have found of the cards' sensors.
        carbon: what the study declares of the place; None where it declares nothing.
        recorder_lost: whether the recorder ended too early.
        own_server: whether all that works for the run is the run's own.
        precision: what the window was to reach.

    Raises:
        ConfigurationError: the calibration file cannot be used.
    """
    sensor = asked.get("backend")
    calibration = calibration_of(asked.get("calibration"))
    made = account(
        samples,
        window,
        phases,
        devices=set(devices),
        headline=None if sensor in (None, "auto") else sensor,
        calibration=calibration,
        known={key: each.behaviour for key, each in characterised.items()},
        recorder_lost=recorder_lost,
        own_server=own_server,
        precision=precision or PRECISION,
    )
    batches = batches_of(requests)
    split = _split(made, batches)
    told = split if isinstance(split, TokenEnergy) else None
    steps: TokenEnergy | NoSplit | None = split
    if told is not None and told.unexplained > POOR_FIT:
        reason = f"prefill and decode leave {told.unexplained:.0%} of the steps unexplained (rms)"
        made = replace(made, validity={**made.validity, "split_poor_fit": reason})
        steps = NoSplit(reason)
    late_s = steps.lag_s if isinstance(steps, TokenEnergy) else 0.0
    energies = batch_energies(made, batches, late_s)
    record = made.energy(
        output_tokens=_total(requests, "output_tokens"),
        input_tokens=_total(requests, "input_tokens"),
        requests=requests.num_rows,
    )
    record = with_thinking(
        record,
        _total(requests, "output_tokens"),
        thinking_total(requests),
        told,
    )
    return RunEnergy(
        made,
        record.model_copy(
            update={
                "split": None if split is None else split_record(split),
                "footprint": footprint(record, Declared(**carbon)) if carbon else None,
            }
        ),
        tuple(energies),
        request_energies(record.gross_j, batches, energies, steps),
        {
            "calibration": calibration.for_record(
                (card.info.device, card.info.name) for card in made.cards
            ),
            "recorder_cost": asdict(recorder_cost(samples)),
            "cpu_use": asdict(made.cpu_use),
            "known_sensors": [each.as_dict() for each in characterised.values()],
            "energy_method": METHOD,
        },
    )


def batches_of(requests: pa.Table) -> list[Batch]:
    """Return the window's batches by number from its requests."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in requests.to_pylist():
        rows.setdefault(row["batch"], []).append(row)
    return [_batch(rows[number]) for number in sorted(rows)]


def _batch(rows: Sequence[Mapping[str, Any]]) -> Batch:
    firsts_ns = [row["first_token_monotonic_ns"] for row in rows]
    known_ns = [first_ns for first_ns in firsts_ns if first_ns is not None]
    return Batch(
        start_ns=min(row["start_monotonic_ns"] for row in rows),
        end_ns=max(row["end_monotonic_ns"] for row in rows),
        first_token_ns=(min(known_ns), max(known_ns)) if len(known_ns) == len(rows) else None,
        input_tokens=sum(row["input_tokens"] for row in rows),
        output_tokens=sum(row["output_tokens"] for row in rows),
        requests=len(rows),
        thinking_tokens=sum(row.get("thinking_tokens") or 0 for row in rows),
        lengths=tuple((row["input_tokens"], row["output_tokens"]) for row in rows),
        steps_ns=tuple(rows[0].get("step_monotonic_ns") or ()),
    )


def _split(made: Account, batches: Sequence[Batch]) -> TokenEnergy | NoSplit | None:
    if made.total is None:
        return None
    return split_energy([source.channel for source in made.headline_sources], batches)


def split_record(found: TokenEnergy | NoSplit) -> TokenSplit:
    """Return prefill and decode as the record has them."""
    if isinstance(found, NoSplit):
        return TokenSplit(unavailable=found.reason)
    return TokenSplit(
        method="ticks",
        prefill_per_input_token_j=found.prefill_j,
        prefill_u95_j=found.prefill_u95_j,
        decode_per_output_token_j=found.decode_j,
        decode_u95_j=found.decode_u95_j,
        correlation=found.correlation,
        unexplained_rel=found.unexplained,
    )


def _total(requests: pa.Table, column: str) -> int:
    return sum(requests[column].to_pylist())
