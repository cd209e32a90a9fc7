"""A run's energy for its record: the window's, each phase's and batch's, prefill's and decode's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from llenergymeasure.config.calibration import Calibration, load_calibration
from llenergymeasure.energy.account import METHOD, Account, account
from llenergymeasure.energy.batches import Batch, PartEnergy, batch_energies
from llenergymeasure.energy.footprint import SiteFactors, footprint
from llenergymeasure.energy.idle_power import PhaseSpan
from llenergymeasure.energy.prefill_decode import POOR_FIT, NoSplit, TokenEnergy, split_energy
from llenergymeasure.energy.request_energy import request_energies
from llenergymeasure.recording.samples import Samples, recorder_cost
from llenergymeasure.results.energy import Energy, ThinkingEnergy, TokenSplit
from llenergymeasure.results.record import Tokens
from llenergymeasure.run.result.batch_requests import ENERGY_FIELDS
from llenergymeasure.sensors.known_behaviour import PRECISION, Characterisation


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
        batch_numbers = requests["batch"].to_pylist()
        members_left = [iter(members) for members in self.requests]
        energies: Sequence[Sequence[PartEnergy]] = (
            [self.batches[number] for number in batch_numbers],
            [next(members_left[number]) for number in batch_numbers],
        )
        columns = [
            [getattr(energy, name) for energy in column]
            for column in energies
            for name in ("energy_j", "u95_j", "unavailable")
        ]
        for (name, kind), values in zip(ENERGY_FIELDS, columns, strict=True):
            position = requests.schema.get_field_index(name)
            requests = requests.set_column(position, pa.field(name, kind), pa.array(values, kind))
        return requests


def run_energy(
    samples: Samples,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan],
    batches: Sequence[Batch],
    tokens: Tokens,
    *,
    devices: Sequence[str],
    settings: Mapping[str, Any],
    characterised: Mapping[tuple[str, str], Characterisation],
    carbon: Mapping[str, Any] | None = None,
    recorder_lost: bool = False,
    own_server: bool = True,
    precision: float | None = None,
    calibration: Calibration | None = None,
) -> RunEnergy:
    """Compute a run's energy.

    Args:
        samples: the whole recording.
        window: start and end in CLOCK_MONOTONIC ns.
        phases: name, start and end of each.
        batches: the window's; none under traffic.
        tokens: what went in and came out within the window.
        devices: the cards in use, as sensors name them.
        settings: the study's ``energy`` section.
        characterised: the results of probing the cards' sensors.
        carbon: what the study declares of grid, price and hardware; None for nothing.
        recorder_lost: whether the recorder ended too early.
        own_server: whether no external server works for the run.
        precision: the relative precision that the window's length was chosen for.
        calibration: the sensors' gains; None: by the file that ``settings`` names.

    Raises:
        ConfigurationError: the calibration file cannot be used.
    """
    sensor = settings.get("backend")
    if calibration is None:
        calibration = load_calibration(settings.get("calibration"))
    run_account = account(
        samples,
        window,
        phases,
        devices=set(devices),
        headline=None if sensor in (None, "auto") else sensor,
        calibration=calibration,
        behaviours={key: result.behaviour for key, result in characterised.items()},
        recorder_lost=recorder_lost,
        own_server=own_server,
        precision=precision or PRECISION,
    )
    split = _split_energy(run_account, batches)
    token_energy = split if isinstance(split, TokenEnergy) else None
    steps: TokenEnergy | NoSplit | None = split
    if token_energy is not None and token_energy.unexplained > POOR_FIT:
        share = 100 * token_energy.unexplained
        reason = f"prefill and decode leave {share:.0f} % of the steps unexplained (rms)"
        validity = {**run_account.validity, "split_poor_fit": reason}
        run_account = replace(run_account, validity=validity)
        steps = NoSplit(reason)
    lag_s = steps.lag_s if isinstance(steps, TokenEnergy) else 0.0
    energies = batch_energies(run_account, batches, lag_s)
    record = run_account.energy(tokens.output, tokens.input, tokens.work)
    record = with_thinking(record, tokens, token_energy)
    return RunEnergy(
        run_account,
        record.model_copy(
            update={
                "split": None if split is None else split_record(split),
                "footprint": footprint(record, SiteFactors(**carbon)) if carbon else None,
            }
        ),
        tuple(energies),
        request_energies(record.gross_j, batches, energies, steps),
        {
            "calibration": calibration.for_record(run_account.calibratable),
            "recorder_cost": recorder_cost(samples),
            "cpu_use": asdict(run_account.cpu_use),
            "known_sensors": [asdict(result) for result in characterised.values()],
            "energy_devices": list(devices),
            "energy_method": METHOD,
        },
    )


def _split_energy(run_account: Account, batches: Sequence[Batch]) -> TokenEnergy | NoSplit | None:
    if run_account.total is None:
        return None
    return split_energy([source.true_channel for source in run_account.headline_sources], batches)


def split_record(split: TokenEnergy | NoSplit) -> TokenSplit:
    """Return prefill and decode as the record has them."""
    if isinstance(split, NoSplit):
        return TokenSplit(unavailable=split.reason)
    return TokenSplit(
        method="ticks",
        prefill_per_input_token_j=split.prefill_j,
        prefill_u95_j=split.prefill_u95_j,
        decode_per_output_token_j=split.decode_j,
        decode_u95_j=split.decode_u95_j,
        correlation=split.correlation,
        unexplained_rel=split.unexplained,
    )


def with_thinking(energy: Energy, tokens: Tokens, split: TokenEnergy | None = None) -> Energy:
    """Return the record's part on energy with that of thought and of answers."""
    if not tokens.thinking or energy.gross_j is None:
        return energy
    if split is not None:
        thinking = ThinkingEnergy(
            method="split",
            thinking_j=split.thinking_j,
            thinking_u95_j=split.thinking_u95_j,
            answer_j=split.answer_j,
            answer_u95_j=split.answer_u95_j,
        )
    else:
        share = tokens.thinking / tokens.output
        thinking = ThinkingEnergy(
            method="tokens",
            thinking_j=share * energy.gross_j,
            thinking_u95_j=None if energy.u95_j is None else share * energy.u95_j,
            answer_j=(1 - share) * energy.gross_j,
            answer_u95_j=None if energy.u95_j is None else (1 - share) * energy.u95_j,
        )
    return energy.model_copy(update={"thinking": thinking})
