"""The one place where the adversary touches the project's own metering code."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import meter_recording as recording
from meter_adversary_cards import FakePowercap
from meter_recording import SteppedClock

from llenergymeasure.energy.account import account
from llenergymeasure.energy.batches import Batch
from llenergymeasure.energy.characterise import characterise as find_behaviour
from llenergymeasure.energy.prefill_decode import NoSplit, split_energy
from llenergymeasure.machine.gpus.inventory import Inventory
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors import behaviour, rapl
from llenergymeasure.sensors.base import Channel, Value
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.nvml import NvmlSensor
from llenergymeasure.sensors.rapl import RaplSensor

PhaseSpan = tuple[str, int, int]
KnownCards = behaviour.KnownCards
SENSOR = "nvml"


class Energy(NamedTuple):
    """What the project gives for a window: the headline, and its reasons to doubt it.

    Energies are None where there is no number.
    """

    gross_j: float | None
    gross_u95_j: float | None
    net_j: float | None
    net_u95_j: float | None
    bound_j: float | None
    codes: tuple[str, ...]


class Split(NamedTuple):
    """Energy per token of prefill and of decode; None where there is no number."""

    prefill_j: float | None
    prefill_u95_j: float | None
    decode_j: float | None
    decode_u95_j: float | None
    said: str


class MarkedBatch(NamedTuple):
    """One batch: when it began, had all first tokens, and ended, in CLOCK_MONOTONIC ns."""

    start_ns: int
    first_token_ns: int
    end_ns: int
    input_tokens: int
    output_tokens: int
    requests: int


def energy_of(
    samples: Samples,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan] = (),
    known: KnownCards | None = None,
) -> Energy:
    """Return the headline energy of a window."""
    made = account(samples, window, phases, known=known)
    codes = tuple(made.validity)
    whole = made.total
    if whole is None:
        return Energy(None, None, None, None, None, codes)
    return Energy(
        whole.gross_j, whole.gross_u95_j, whole.net_j, whole.net_u95_j, whole.bound_j, codes
    )


def characterise(samples: Samples, device: str, edges_ns: Sequence[int]) -> KnownCards:
    """Return what a probe's recording shows of a card, as later recordings are given it."""
    return {(SENSOR, device): find_behaviour(samples, device, edges_ns, SENSOR)}


def record(
    inventory: Inventory,
    indices: Sequence[int],
    clock: SteppedClock,
    end_s: float,
    run_pid: int | None = None,
) -> Samples:
    """Record cards from time zero; with a run's process number, watch for other processes."""
    clock.set(recording.T0_NS)
    cards = [inventory.gpus[index] for index in indices]
    run = None if run_pid is None else RunProcesses(run_pid)
    sensor = NvmlSensor(inventory, cards, run)
    return recording.record_channels(sensor.channels(), sensor.describe(), clock, end_s)


def record_rapl(
    powercap: FakePowercap, clock: SteppedClock, begin_s: float, end_s: float
) -> Samples:
    """Record the CPU package with the project's own RAPL sensor."""
    clock.set(recording.nanoseconds(begin_s))
    vars(rapl)["time"] = clock
    powercap.renew()
    sensor = RaplSensor(powercap.root, look_s=0)

    def renewed(channel: Channel) -> Channel:
        def read() -> Sequence[Value]:
            powercap.renew()
            return channel.read()

        return replace(channel, read=read)

    channels = [renewed(channel) for channel in sensor.channels()]
    return recording.record_channels(channels, sensor.describe(), clock, end_s)


def split_of(samples: Samples, window: tuple[int, int], batches: Sequence[MarkedBatch]) -> Split:
    """Return the energy per token of prefill and decode of a window of batches."""
    made = account(samples, window)
    own = [
        Batch(
            batch.start_ns,
            batch.end_ns,
            (batch.first_token_ns, batch.first_token_ns),
            batch.input_tokens,
            batch.output_tokens,
            batch.requests,
        )
        for batch in batches
    ]
    found = split_energy([source.channel for source in made.headline_sources], own)
    if isinstance(found, NoSplit):
        return Split(None, None, None, None, found.reason)
    return Split(found.prefill_j, found.prefill_u95_j, found.decode_j, found.decode_u95_j, "ticks")
