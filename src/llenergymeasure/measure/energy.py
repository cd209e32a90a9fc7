"""A run's energy for its record: of the window, the phases, each batch, prefill and decode."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from llenergymeasure.config.calibration import calibration_of
from llenergymeasure.meter.account import DEFAULT_PRECISION, Account, account
from llenergymeasure.meter.batches import Batch, BatchEnergy, batch_energies, split_energy
from llenergymeasure.meter.characters import Known, KnownCards, keep
from llenergymeasure.meter.cost import recorder_cost
from llenergymeasure.meter.footprint import Declared, footprint
from llenergymeasure.meter.idle import PhaseSpan
from llenergymeasure.meter.samples import Samples
from llenergymeasure.meter.split import NoSplit, TokenEnergy
from llenergymeasure.results.record import Energy, TokenSplit
from llenergymeasure.units import DISQUALIFYING

BATCH_FIELDS = [
    ("batch_energy_j", pa.float64()),
    ("batch_energy_u95_j", pa.float64()),
    ("batch_energy_unavailable", pa.string()),
]
"""What the table of requests says of the batch that each was in."""


@dataclass(frozen=True)
class RunEnergy:
    """The energy of one run.

    Attributes:
        account: every reading, and stretches to ask for.
        record: the record's part on energy.
        batches: headline energy of each batch, by its number.
        provenance: what the figures rest on: calibration, recorder.
    """

    account: Account
    record: Energy
    batches: tuple[BatchEnergy, ...]
    provenance: dict[str, Any]

    def with_batches(self, requests: pa.Table) -> pa.Table:
        """Return the table of requests with the energy of the batch each was in."""
        mine = [self.batches[number] for number in requests["batch"].to_pylist()]
        columns = (
            [each.energy_j for each in mine],
            [each.u95_j for each in mine],
            [each.unavailable for each in mine],
        )
        for (name, kind), values in zip(BATCH_FIELDS, columns, strict=True):
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
    known: KnownCards,
    carbon: Mapping[str, Any] | None = None,
    recorder_lost: bool = False,
    precision: float | None = None,
) -> RunEnergy:
    """Compute a run's energy.

    Args:
        samples: the whole recording.
        window: start and end in CLOCK_MONOTONIC ns.
        phases: name, start and end of each.
        requests: one row a request of the window.
        devices: UUIDs of the cards at work.
        asked: the study's ``energy`` section.
        known: what was known of the cards' sensors beforehand.
        carbon: what the study declares of the place; null where it declares nothing.
        recorder_lost: whether the recorder ended too early.
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
        known=known,
        recorder_lost=recorder_lost,
        precision=precision or DEFAULT_PRECISION,
    )
    batches = batches_of(requests)
    energies = batch_energies(made, batches)
    record = made.energy(
        output_tokens=_total(requests, "output_tokens"),
        input_tokens=_total(requests, "input_tokens"),
        requests=requests.num_rows,
    )
    return RunEnergy(
        made,
        record.model_copy(
            update={
                "split": _split(made, batches, energies),
                "footprint": footprint(record, Declared(**carbon)) if carbon else None,
            }
        ),
        tuple(energies),
        {
            "calibration": calibration.for_record(
                (card.info.device, card.info.name) for card in made.cards
            ),
            "recorder_cost": asdict(recorder_cost(samples)),
            "known_sensors": [each.as_dict() for each in known.values()],
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
    )


def _split(
    made: Account, batches: Sequence[Batch], energies: Sequence[BatchEnergy]
) -> TokenSplit | None:
    if made.total is None:
        return None
    found = split_energy(made, batches, energies)
    return split_record(found)


def split_record(found: TokenEnergy | NoSplit) -> TokenSplit:
    """Return prefill and decode as the record has them."""
    if isinstance(found, NoSplit):
        return TokenSplit(unavailable=found.reason)
    return TokenSplit(
        method="marks" if found.method == "marks" else "regression",
        prefill_per_input_token_j=found.prefill_j,
        prefill_u95_j=found.prefill_u95_j,
        decode_per_output_token_j=found.decode_j,
        decode_u95_j=found.decode_u95_j,
        correlation=found.correlation,
        unexplained_rel=found.unexplained,
    )


def learn(made: Account) -> None:
    """Keep what an undoubted recording has shown of the cards' sensors."""
    if DISQUALIFYING.intersection(made.validity):
        return
    for card in made.cards:
        reach = card.power_range
        powers_w = (reach.low_w, reach.high_w)
        keep(Known.now(card.info, card.character, "recording", powers_w))


def _total(requests: pa.Table, column: str) -> int:
    return sum(requests[column].to_pylist())
