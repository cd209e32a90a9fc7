"""From samples to the energy of a run: every reading, its interval, and reasons to doubt it.

A pure function of the samples and the marks: windows can be cut anew without measuring again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration
from llenergymeasure.meter import validity
from llenergymeasure.meter.characters import KnownCards
from llenergymeasure.meter.device import DeviceChannels
from llenergymeasure.meter.footprint import per_1000_requests_wh
from llenergymeasure.meter.idle import PhaseSpan
from llenergymeasure.meter.readings import EnergySum, overlap, total
from llenergymeasure.meter.samples import Samples
from llenergymeasure.meter.shortest import expected_resolution, short_window
from llenergymeasure.meter.sources import Source, blank_reading, failure, open_sources
from llenergymeasure.results.record import Energy, PhaseEnergy, Reading
from llenergymeasure.units import NS_PER_S, Scope

DEFAULT_PRECISION = 0.02
"""Relative half width that a window is expected to reach."""

_SENSOR_ORDER = ("nvml", "zeus", "rapl", "codecarbon")
_SCOPE_ORDER: tuple[Scope, ...] = ("gpu", "cpu", "dram", "module", "host")
_CARD_SCOPES: tuple[Scope, ...] = ("gpu", "module")
_NO_CARD = "gpu"
"""The device of a sensor that found no card at all: its reason belongs into every record."""


@dataclass(frozen=True)
class Account:
    """The energy of a run.

    Attributes:
        window: start and end in CLOCK_MONOTONIC ns.
        readings: one a device and channel, those that could not be read included.
        phases: headline energy of each phase.
        validity: reasons to doubt the run: code to explanation.
        gpus: what each card of the run is and how its sensor behaves.
        unavailable: why there is no headline, if there is none.
        cards: the channels of each card.
    """

    window: tuple[int, int]
    readings: tuple[Reading, ...]
    phases: tuple[PhaseEnergy, ...]
    validity: Mapping[str, str]
    gpus: tuple[Mapping[str, Any], ...]
    unavailable: str | None = None
    cards: tuple[DeviceChannels, ...] = field(default=(), repr=False)
    _headline: tuple[Source, ...] = field(default=(), repr=False)

    @property
    def headline(self) -> tuple[Reading, ...]:
        """Return the readings that add up to the run's energy."""
        return tuple(reading for reading in self.readings if reading.headline)

    @property
    def total(self) -> EnergySum | None:
        """Return the headline readings added up; null if one of them has no energy."""
        if not self.headline or any(reading.gross_j is None for reading in self.headline):
            return None
        return total(self.headline)

    @property
    def resolution_s(self) -> float:
        """Return the usual time between two values of the headline's slowest channel."""
        return max((source.channel.curve.spacing_s for source in self._headline), default=0.0)

    def stretch(self, start_ns: int, end_ns: int) -> EnergySum | None:
        """Return the headline energy of any stretch; null if the recording does not cover it."""
        return _stretch(self._headline, start_ns, end_ns)

    def energy(
        self,
        output_tokens: int | None = None,
        input_tokens: int | None = None,
        requests: int | None = None,
    ) -> Energy:
        """Return the record's part on energy, per token and request of the window."""
        whole = self.total
        gross_j = None if whole is None else whole.gross_j
        duration_s = (self.window[1] - self.window[0]) / NS_PER_S
        return Energy(
            kind=self.headline[0].kind if self.headline else None,
            source=self.headline[0].sensor if self.headline else None,
            scopes=list(dict.fromkeys(reading.scope for reading in self.headline)),
            readings=list(self.readings),
            gross_j=gross_j,
            net_j=None if whole is None else whole.net_j,
            u95_j=None if whole is None else whole.u95_j,
            u_sys_j=None if whole is None else whole.u_sys_j,
            power_mean_w=None if gross_j is None else gross_j / duration_s,
            per_output_token_j=_per(gross_j, output_tokens),
            per_input_token_j=_per(gross_j, input_tokens),
            per_request_j=_per(gross_j, requests),
            per_1000_requests_wh=per_1000_requests_wh(_per(gross_j, requests)),
            phases=list(self.phases),
            unavailable=self.unavailable or self._why_no_energy(),
        )

    def _why_no_energy(self) -> str | None:
        reasons = [part.unavailable for part in self.headline if part.unavailable is not None]
        return reasons[0] if reasons else None


def account(
    samples: Samples,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan] = (),
    devices: Collection[str] | None = None,
    headline: str | None = None,
    *,
    calibration: Calibration = NO_CALIBRATION,
    known: KnownCards | None = None,
    recorder_lost: bool = False,
    precision: float = DEFAULT_PRECISION,
) -> Account:
    """Compute the energy of a run.

    Args:
        samples: the whole recording.
        window: start and end of the window in CLOCK_MONOTONIC ns.
        phases: name, start and end of each phase; those at rest begin with ``idle``.
        devices: UUIDs of the GPUs the run used: others contribute nothing. Null: all recorded.
        headline: the sensor whose readings add up to the run's energy; null: the best there is.
        calibration: gains found against an external meter.
        known: how cards' channels behave, where that was found before.
        recorder_lost: whether whoever watched the recorder saw it end too early.
        precision: relative half width that the window is expected to reach.

    Returns:
        The account. A sensor that gave nothing has a reading with a reason, never a zero.
    """
    sources: list[Source] = []
    missing: list[Reading] = []
    opened: dict[tuple[str, str], DeviceChannels] = {}
    for info in samples.header.sensors:
        if info.scope in _CARD_SCOPES and not _used(info.device, devices):
            continue
        found, channels = open_sources(samples, info, window, phases, calibration, known)
        if channels is not None:
            opened[info.sensor, info.device] = channels
        sources += found
        if not found:
            reason = info.unavailable or failure(samples, info) or "it gave no energy"
            blank = blank_reading(
                info, "model" if info.kind == "estimated" else "counter", headline=False
            )
            missing.append(blank.model_copy(update={"unavailable": reason}))
    chosen, unavailable = _choose(sources, missing, headline)
    readings = [source.reading(*window, headline=source in chosen) for source in sources]
    codes = _codes(samples, chosen, opened, window, precision, lost=recorder_lost)
    cards = tuple(channels for channels in opened.values() if channels.info.scope in _CARD_SCOPES)
    return Account(
        window,
        (*readings, *missing),
        tuple(_phase(chosen, phase) for phase in phases),
        codes,
        tuple(_card(channels, window, precision, known) for channels in cards),
        unavailable,
        cards,
        tuple(chosen),
    )


def _choose(
    sources: Sequence[Source], missing: Sequence[Reading], headline: str | None
) -> tuple[list[Source], str | None]:
    """Choose the headline: one sensor, of each device one channel, nothing that overlaps."""
    if headline is not None:
        candidates = [source for source in sources if source.info.sensor == headline]
        if not candidates:
            reasons = [part.unavailable for part in missing if part.sensor == headline]
            return [], f"{headline}: {reasons[0] if reasons else 'it was not recorded'}"
        return _disjoint(candidates), None
    if not sources:
        why = "; ".join(f"{part.sensor}: {part.unavailable}" for part in missing)
        return [], why or "no sensor was recorded"
    best = min(
        sources,
        key=lambda source: (
            source.info.kind != "measured",
            source.info.scope not in _CARD_SCOPES,
            _rank(source.info.sensor, _SENSOR_ORDER),
        ),
    )
    # Where a card was measured its energy is the headline; the host's stands beside it.
    cards = best.info.scope in _CARD_SCOPES
    return _disjoint(
        source
        for source in sources
        if source.info.sensor == best.info.sensor and (source.info.scope in _CARD_SCOPES) == cards
    ), None


def _disjoint(candidates: Iterable[Source]) -> list[Source]:
    ordered = sorted(
        candidates,
        key=lambda source: (
            _SCOPE_ORDER.index(source.info.scope),
            source.channel.undersampled,
            source.channel.name != "counter",
        ),
    )
    chosen: list[Source] = []
    for source in ordered:
        if not any(
            overlap(source.info.device, source.info.scope, other.info.device, other.info.scope)
            for other in chosen
        ):
            chosen.append(source)
    return chosen


def _codes(
    samples: Samples,
    chosen: Sequence[Source],
    opened: Mapping[tuple[str, str], DeviceChannels],
    window: tuple[int, int],
    precision: float,
    *,
    lost: bool,
) -> dict[str, str]:
    """Return the validity codes of the headline; an estimate carries none of the sensor's."""
    found: dict[str, list[str]] = {}

    def doubt(code: str, reason: str | None) -> None:
        if reason is not None:
            found.setdefault(code, []).append(reason)

    doubt("recorder_lost", _recorder_lost(samples, window, lost=lost))
    measured = [source for source in chosen if source.info.kind == "measured"]
    for source in measured:
        info = source.info
        channels = opened[info.sensor, info.device]
        stretch = source.stretch(*window)
        doubt(
            "sample_gap",
            validity.sample_gap(samples, source.channel, window, info.device, info.sensor),
        )
        if stretch is None:
            continue
        doubt("channel_mismatch", _mismatch(channels, window))
        doubt("short_window", short_window(stretch, channels, window, precision))
        if source.channel.undersampled:
            doubt("undersampled", _undersampled(source))
    cards = {source.info.device for source in measured if source.info.scope in _CARD_SCOPES}
    cards |= {device.removeprefix("module:") for device in cards}
    if cards:
        sensor = measured[0].info.sensor
        doubt("other_process", validity.other_process(samples, cards, window))
        doubt("throttled", validity.throttled(samples, sensor, cards, window))
        doubt("temperature_drift", validity.temperature_drift(samples, sensor, cards, window))
    return {code: "; ".join(reasons) for code, reasons in found.items()}


def _recorder_lost(samples: Samples, window: tuple[int, int], *, lost: bool) -> str | None:
    last_ns = int(samples.table["t_ns"][-1].as_py()) if len(samples.table) else 0
    if last_ns < window[1]:
        early_s = (window[1] - last_ns) / NS_PER_S
        return f"the recording ends {early_s:.2f} s before the window does"
    return "the recorder ended before it was told to" if lost else None


def _mismatch(channels: DeviceChannels, window: tuple[int, int]) -> str | None:
    if channels.counter is None or channels.power is None:
        return None
    counter, power = channels.counter.stretch(*window), channels.power.stretch(*window)
    if counter is None or power is None:
        return None
    return validity.channel_mismatch(counter, power, channels.power, window)


def _undersampled(source: Source) -> str:
    seen = source.channel.share_seen
    notes = "".join(f"; {note}" for note in source.channel.notes)
    return f"{source.info.device}: the sensor sees {seen:.0%} of the time{notes}"


def _phase(chosen: Sequence[Source], phase: PhaseSpan) -> PhaseEnergy:
    name, start_ns, end_ns = phase
    whole = _stretch(chosen, start_ns, end_ns)
    return PhaseEnergy(
        phase=name,
        duration_s=(end_ns - start_ns) / NS_PER_S,
        energy_j=None if whole is None else whole.gross_j,
        u95_j=None if whole is None else whole.u95_j,
    )


def _stretch(chosen: Sequence[Source], start_ns: int, end_ns: int) -> EnergySum | None:
    readings = [
        replace(source, idle=None).reading(start_ns, end_ns, headline=True) for source in chosen
    ]
    if not readings or any(reading.gross_j is None for reading in readings):
        return None
    return total(readings)


def _card(
    channels: DeviceChannels,
    window: tuple[int, int],
    precision: float,
    known: KnownCards | None,
) -> dict[str, Any]:
    """Return what a card is and how its sensor behaves, for the record."""
    info, character, reach = channels.info, channels.character, channels.power_range
    before = (known or {}).get((info.sensor, info.device))
    resolution = expected_resolution(info, character, (reach.low_w, reach.high_w))
    counter = channels.counter.stretch(*window) if channels.counter is not None else None
    power = channels.power.stretch(*window) if channels.power is not None else None
    apart = None
    if counter is not None and power is not None and counter.energy_j > 0:
        apart = abs(counter.energy_j - power.energy_j) / counter.energy_j
    notes = [part.notes for part in (channels.counter, channels.power) if part is not None]
    return {
        "uuid": info.device,
        "name": info.name,
        "sensor": info.sensor,
        "driver": info.driver,
        "power_limits_w": None if info.power_limit_w is None else dict(info.power_limit_w),
        "counter_period_s": character.counter_period_s,
        "counter_independent": character.counter_independent,
        "power_channels": [
            {
                "quantity": part.quantity,
                "update_period_s": part.update_period_s,
                "window_s": part.window_s,
                "source": part.source,
            }
            for part in character.power
        ],
        "characterised": None if before is None else before.told,
        "shortest_window_s": None if resolution is None else resolution.window_s(precision),
        "channel_disagreement_rel": apart,
        "notes": list(dict.fromkeys(note for some in (channels.notes, *notes) for note in some)),
    }


def _used(device: str, devices: Collection[str] | None) -> bool:
    return devices is None or device == _NO_CARD or device.removeprefix("module:") in devices


def _rank(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _per(energy_j: float | None, count: int | None) -> float | None:
    return energy_j / count if energy_j is not None and count else None
