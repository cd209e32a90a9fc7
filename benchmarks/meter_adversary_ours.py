"""What the project's own metering code gives for a recording."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import meter_recording as recording
from meter_adversary_cards import FakePowercap
from meter_recording import SteppedClock

from llenergymeasure.energy.account import account
from llenergymeasure.energy.characterise import characterise as find_behaviour
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors import rapl
from llenergymeasure.sensors.base import Channel, Value
from llenergymeasure.sensors.behaviour import KnownCards
from llenergymeasure.sensors.rapl import RaplSensor

PhaseSpan = tuple[str, int, int]
SENSOR = "nvml"


@dataclass(frozen=True)
class Energy:
    """What the project gives for a window: the headline, and its reasons to doubt it.

    Energies are None where there is no number.
    """

    codes: tuple[str, ...]
    gross_j: float | None = None
    gross_u95_j: float | None = None
    bound_j: float | None = None


def covers(given_j: float | None, half_width_j: float | None, true_j: float) -> bool:
    """Return whether the truth lies inside an interval; no number covers nothing."""
    if given_j is None or half_width_j is None:
        return False
    return abs(given_j - true_j) <= half_width_j


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
        return Energy(codes)
    return Energy(codes, whole.gross_j, whole.gross_u95_j, whole.bound_j)


def characterise(samples: Samples, device: str, edges_ns: Sequence[int]) -> KnownCards:
    """Return what a probe's recording shows of a card, as later recordings are given it."""
    return {(SENSOR, device): find_behaviour(samples, device, edges_ns, SENSOR)}


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
