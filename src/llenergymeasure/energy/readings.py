"""From channels to readings: gain, rest, the other channel's word, and which are the headline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llenergymeasure.config.calibration import Calibration
from llenergymeasure.config.sensor_gain import Gain
from llenergymeasure.energy.channel import Channel
from llenergymeasure.energy.device import Device, model_channel, open_device
from llenergymeasure.energy.idle_margins import MARGINS
from llenergymeasure.energy.idle_power import IdlePower, PhaseSpan, idle_power, subtract_idle
from llenergymeasure.energy.sums import overlap
from llenergymeasure.energy.window import Margin, StretchEnergy
from llenergymeasure.recording.samples import Samples
from llenergymeasure.results.energy import Reading
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.known_behaviour import Behaviour
from llenergymeasure.units import NS_PER_S, Scope

_MAX_MARGIN_GAP_S = 0.02
"""A margin that ends so close to the work touches it: marks are made in between."""

CARD_SCOPES: tuple[Scope, ...] = ("gpu", "module")
_SENSOR_ORDER = ("nvml", "zeus", "rapl", "codecarbon")
_SCOPE_ORDER: tuple[Scope, ...] = ("gpu", "cpu", "dram", "module", "host", "node")


@dataclass(frozen=True)
class Source:
    """One channel of one device by one sensor, ready to give readings.

    Attributes:
        info: which device and sensor.
        channel: the energy.
        gain: how indicated stands to true energy; None for an estimate.
        idle: the rest to take off; None if none was measured.
        device: the device with its other channel; None for an estimate.
    """

    info: SensorInfo
    channel: Channel
    gain: Gain | None
    idle: IdlePower | None
    device: Device | None

    @property
    def true_channel(self) -> Channel:
        """Return the channel with its steps as a calibration makes them."""
        knots, gain = self.channel.knots, self.gain
        if gain is None:
            return self.channel
        true_j = (knots.energy_j - gain.offset_w * knots.t_s) / gain.gain
        return replace(self.channel, knots=replace(knots, energy_j=true_j))

    def stretch(
        self,
        start_ns: int,
        end_ns: int,
        phases: Sequence[PhaseSpan] = (),
    ) -> StretchEnergy | None:
        """Return the stretch's energy, its interval reaching to the device's other channel.

        Which of two channels that disagree is wrong is not known.
        """
        margins = _margins(self.channel, (start_ns, end_ns), phases)
        stretch = self.channel.stretch(start_ns, end_ns, margins)
        if stretch is None or self.device is None:
            return stretch
        disagreement = self.device.disagreement(start_ns, end_ns)
        if disagreement is None:
            return stretch
        apart_j = disagreement.largest * stretch.energy_j
        unseen_j, bound_j = stretch.unseen_j, stretch.bound_j
        if self.device.averages is not None:
            # What a channel fails to see is at most what one that sees all leaves room for.
            unseen_j = apart_j if disagreement.is_clear else min(unseen_j, apart_j)
            unseen_bound_j = self.channel.unseen_bound_j(
                stretch.energy_j, (end_ns - start_ns) / NS_PER_S
            )
            if unseen_bound_j > 0:
                bound_j = bound_j - unseen_bound_j + abs(apart_j)
        elif disagreement.is_clear:
            unseen_j = max(unseen_j, apart_j)
        wide = replace(stretch, unseen_j=unseen_j, bound_j=bound_j)
        return replace(wide, bound_j=max(bound_j, wide.u95_j))

    def reading(
        self, start_ns: int, end_ns: int, phases: Sequence[PhaseSpan] = (), *, headline: bool
    ) -> Reading:
        """Return the reading of a stretch."""
        blank = blank_reading(self.info, self.channel.name, headline=headline)
        stretch = self.stretch(start_ns, end_ns, phases)
        if stretch is None:
            return blank.model_copy(update={"unavailable": "the recording does not cover it"})
        span_s = (end_ns - start_ns) / NS_PER_S
        gain = self.gain or Gain(source="an estimate has no gain")
        gross_j = gain.true_energy_j(stretch.energy_j, span_s)
        energies = {"gross_j": gross_j, **subtract_idle(gross_j, self.idle, gain, span_s)}
        # A model's own output does not say how far off it is: no interval is given.
        if self.gain is not None:
            energies |= self._intervals(stretch, gain, span_s, gross_j)
        return blank.model_copy(update=energies)

    def _intervals(
        self, stretch: StretchEnergy, gain: Gain, span_s: float, gross_j: float
    ) -> dict[str, float | None]:
        u95_j = stretch.u95_j / gain.gain
        return {
            "u95_j": u95_j,
            "gross_u95_j": u95_j,
            "net_u95_j": None if self.idle is None else self.idle.net_u95_j(u95_j, gain, span_s),
            "shared_u95_j": stretch.shared_j / gain.gain,
            "bound_j": stretch.bound_j / gain.gain,
            "u_sys_j": gain.half_width_j(gross_j, span_s),
        }


def _margins(
    channel: Channel, window: tuple[int, int], phases: Sequence[PhaseSpan]
) -> tuple[Margin | None, Margin | None]:
    """Return the margins that touch a stretch's start and end."""
    margins: list[Margin | None] = [None, None]
    start_s, end_s = (channel.knots.seconds(edge_ns) for edge_ns in window)
    for name, from_ns, to_ns in phases:
        from_s, to_s = channel.knots.seconds(from_ns), channel.knots.seconds(to_ns)
        if name == MARGINS[0] and abs(to_s - start_s) < _MAX_MARGIN_GAP_S:
            margins[0] = Margin(from_s, start_s)
        if name == MARGINS[1] and abs(from_s - end_s) < _MAX_MARGIN_GAP_S:
            margins[1] = Margin(end_s, to_s)
    return margins[0], margins[1]


def open_sources(
    samples: Samples,
    info: SensorInfo,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan],
    calibration: Calibration,
    probed: Behaviour | None,
) -> tuple[list[Source], Device | None]:
    """Open a sensor's view of a device: its channels, the better first, none if it gave nothing."""
    if info.unavailable is not None:
        return [], None
    if info.kind == "estimated":
        model = model_channel(samples, info)
        if model is None:
            return [], None
        return [Source(info, model, None, idle_power(model.knots, phases, window), None)], None
    device = open_device(samples, info, probed)
    gain = calibration.gain_for(info.device, info.name)
    return [
        Source(info, channel, gain, idle_power(channel.knots, phases, window), device)
        for channel in device.channels(*window)
    ], device


def blank_reading(info: SensorInfo, channel: str, *, headline: bool) -> Reading:
    """Return a reading without an energy."""
    return Reading(
        device=info.device,
        sensor=info.sensor,
        kind=info.kind,
        scope=info.scope,
        channel=channel,
        headline=headline,
        gross_j=None,
    )


def missing_reading(samples: Samples, info: SensorInfo) -> Reading:
    """Return the reading of a sensor that gave nothing, with its reason."""
    rows = samples.rows(device=info.device, sensor=info.sensor, quantity="unavailable")
    reasons = ["it gave no energy"]
    for name in info.quantities:
        values = samples.series(info.device, info.sensor, name).value
        reasons += [f"{name} was {values[0]:g} all along"] if len(set(values)) == 1 else []
    # Why it stopped answering, as the recorder noted it last.
    failures = rows["note"].to_pylist()
    reason = info.unavailable or (failures and failures[-1]) or ", ".join(reasons)
    channel = "model" if info.kind == "estimated" else "counter"
    blank = blank_reading(info, channel, headline=False)
    return blank.model_copy(update={"unavailable": reason})


def choose_headline(
    sources: Sequence[Source],
    missing: Sequence[Reading],
    window: tuple[int, int],
    sensor: str | None,
) -> tuple[list[Source], str | None]:
    """Choose the headline: one sensor, of each device one channel, nothing that overlaps.

    Where a card was measured its energy is the headline; the host's is shown next to it. A card of
    the run that could not be read leaves no headline, nor does a CPU of several where no platform
    was read whole: the others' energy is not that of the run. Memory that was read in part alone
    is left out.

    Args:
        sources: what could be read, of each device the better channel first.
        missing: what could not.
        window: in CLOCK_MONOTONIC ns; of a device's channels the first that covers it counts.
        sensor: the sensor that is to be the headline; None for the best there is.

    Returns:
        The sources that add up to the headline, and why there is none.
    """
    candidates = [source for source in sources if sensor in (None, source.info.sensor)]
    if not candidates:
        reasons = [reading for reading in missing if sensor in (None, reading.sensor)]
        reason = "; ".join(f"{reading.sensor}: {reading.unavailable}" for reading in reasons)
        none_recorded = "no sensor was recorded" if sensor is None else f"{sensor}: not recorded"
        return [], reason or none_recorded
    best = min(
        candidates,
        key=lambda source: (
            source.info.kind != "measured",
            source.info.scope not in CARD_SCOPES,
            (*_SENSOR_ORDER, source.info.sensor).index(source.info.sensor),
        ),
    )
    has_cards = best.info.scope in CARD_SCOPES
    of_sensor = [
        source
        for source in candidates
        if source.info.sensor == best.info.sensor
        and (sensor is not None or (source.info.scope in CARD_SCOPES) == has_cards)
    ]
    read = {source.info.device for source in of_sensor}
    unread = [reading for reading in missing if reading.sensor == best.info.sensor]
    unread = [reading for reading in unread if reading.device not in read]
    unread_scopes = {reading.scope for reading in unread}
    readable = [source for source in of_sensor if source.info.scope not in unread_scopes]
    needed_scopes = set(CARD_SCOPES if has_cards else ("cpu",))
    # A chip's module holds its GPU.
    if unread_scopes & needed_scopes and read != {"module"}:
        # The platform's energy holds that of every CPU.
        readable = [source for source in readable if source.info.scope == "host" and not has_cards]
    if not readable:
        causes = [reading for reading in unread if reading.scope in needed_scopes] or unread
        reasons_text = "; ".join(f"{reading.device}: {reading.unavailable}" for reading in causes)
        what = "a GPU of the run" if has_cards else "a part of the machine"
        return [], f"{what} could not be read: {reasons_text}"
    return disjoint(readable, window), None


def disjoint(candidates: Sequence[Source], window: tuple[int, int]) -> list[Source]:
    """Return the sources whose energies add up: of each device one, and none of them twice.

    Of a device, the first candidate that covers the window is taken.
    """
    chosen: list[Source] = []
    for source in sorted(candidates, key=lambda source: _SCOPE_ORDER.index(source.info.scope)):
        first = next(
            (
                candidate
                for candidate in candidates
                if candidate.info == source.info and candidate.channel.stretch(*window) is not None
            ),
            source,
        )
        if not any(
            overlap(first.info.device, first.info.scope, other.info.device, other.info.scope)
            for other in chosen
        ):
            chosen.append(first)
    return chosen
