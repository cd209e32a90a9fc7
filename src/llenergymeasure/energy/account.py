"""From samples to the energy of a run: every reading, its interval, and reasons to doubt it.

A pure function of the samples and the marks: windows can be cut again without measuring again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration
from llenergymeasure.energy import validity
from llenergymeasure.energy.device import Device
from llenergymeasure.energy.disturbance import CpuUse, cpu_doubts, cpu_use, stall_doubts
from llenergymeasure.energy.footprint import per_1000_requests_wh
from llenergymeasure.energy.idle_margins import MARGINS
from llenergymeasure.energy.idle_power import PhaseSpan
from llenergymeasure.energy.node_energy import SCOPE as NODE
from llenergymeasure.energy.node_energy import node_energy
from llenergymeasure.energy.readings import (
    CARD_SCOPES,
    Source,
    choose_headline,
    missing_reading,
    open_sources,
)
from llenergymeasure.energy.sums import EnergySum, total
from llenergymeasure.recording.samples import Samples
from llenergymeasure.results.energy import Energy, NodeEnergy, PhaseEnergy, Reading
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.known_behaviour import PRECISION, Behaviour, Behaviours
from llenergymeasure.units import NS_PER_S

METHOD = 9
"""Version of the method; a record says by which its energies were computed."""

_NO_CARD = "gpu"
"""The device of a sensor that found no card at all: its reason belongs into every record."""

UNNAMED = "a device that its engine does not name (a GPU or the CPU)"
"""Stands among a run's devices where nobody says on what it computed."""


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
        cards: each card's channels.
        headline_sources: what the headline is made from.
        cpu_use: who used the CPUs over the window.
        node: the whole machine's energy; None where no meter of it was recorded.
        sensors: what the readings are by.
    """

    window: tuple[int, int]
    readings: tuple[Reading, ...]
    phases: tuple[PhaseEnergy, ...]
    validity: Mapping[str, str]
    gpus: tuple[Mapping[str, Any], ...]
    unavailable: str | None = None
    cards: tuple[Device, ...] = field(default=(), repr=False)
    headline_sources: tuple[Source, ...] = field(default=(), repr=False)
    cpu_use: CpuUse = field(default_factory=CpuUse)
    node: NodeEnergy | None = None
    sensors: tuple[SensorInfo, ...] = field(default=(), repr=False)

    @property
    def calibratable(self) -> list[tuple[str, str]]:
        """Return device and name of all that a calibration may be of."""
        return [(info.device, info.name) for info in self.sensors if info.kind == "measured"]

    @property
    def headline(self) -> tuple[Reading, ...]:
        """Return the readings that add up to the run's energy."""
        return tuple(reading for reading in self.readings if reading.headline)

    @property
    def total(self) -> EnergySum | None:
        """Return the headline readings added up; None if one of them has no energy."""
        return total(self.headline)

    @property
    def resolution_s(self) -> float:
        """Return the usual time between two values of the headline's slowest channel."""
        spacings_s = [source.channel.knots.spacing_s for source in self.headline_sources]
        return max(spacings_s, default=0.0)

    def stretch(
        self, start_ns: int, end_ns: int, phases: Sequence[PhaseSpan] = ()
    ) -> EnergySum | None:
        """Return the headline energy of any stretch; None if the recording does not cover it."""
        return _headline_sum(self.headline_sources, start_ns, end_ns, phases)

    def energy(
        self,
        output_tokens: int | None = None,
        input_tokens: int | None = None,
        requests: float | None = None,
    ) -> Energy:
        """Return the record's part on energy, per token and request of the window."""
        energy_sum = self.total
        values = {item.name: getattr(energy_sum, item.name, None) for item in fields(EnergySum)}
        values["u95_j"] = values.pop("gross_u95_j")
        values["kind"] = self.headline[0].kind if self.headline else None
        gross_j = values["gross_j"]
        reasons = [reading.unavailable for reading in self.headline if reading.unavailable]
        return Energy(
            source=self.headline[0].sensor if self.headline else None,
            scopes=list(dict.fromkeys(reading.scope for reading in self.headline)),
            readings=list(self.readings),
            power_mean_w=_per(gross_j, (self.window[1] - self.window[0]) / NS_PER_S),
            per_output_token_j=_per(gross_j, output_tokens),
            per_input_token_j=_per(gross_j, input_tokens),
            per_request_j=_per(gross_j, requests),
            per_1000_requests_wh=per_1000_requests_wh(_per(gross_j, requests)),
            phases=list(self.phases),
            node=self.node,
            unavailable=self.unavailable or next(iter(reasons), None),
            **values,
        )


def account(
    samples: Samples,
    window: tuple[int, int],
    phases: Sequence[PhaseSpan] = (),
    devices: Collection[str] | None = None,
    headline: str | None = None,
    *,
    calibration: Calibration = NO_CALIBRATION,
    behaviours: Behaviours | None = None,
    recorder_lost: bool = False,
    own_server: bool = True,
    precision: float = PRECISION,
) -> Account:
    """Compute the energy of a run.

    Args:
        samples: the whole recording.
        window: start and end of the window in CLOCK_MONOTONIC ns.
        phases: name, start and end of each phase; those at rest begin with ``idle``, and margins
            next to the window make its ends exact.
        devices: the GPUs the run used, as sensors name them, or :data:`UNNAMED`: others contribute
            nothing. None: all recorded.
        headline: the sensor whose readings add up to the run's energy; None: the best there is.
        calibration: gains found against an external meter.
        behaviours: how cards' channels behave, where a probe has found it.
        recorder_lost: whether whoever watched the recorder saw it end too early.
        own_server: whether all that works for the run is the run's own.
        precision: relative half width that the window is expected to reach.

    Returns:
        The account. A sensor that gave nothing has a reading with a reason, never a zero.
    """
    sources: list[Source] = []
    missing: list[Reading] = []
    opened_devices: list[Device] = []
    for info in samples.header.sensors:
        if info.scope in CARD_SCOPES and not _is_of_run(info, devices):
            continue
        if info.scope == NODE:
            continue  # never added to devices' energy, and never the headline
        device_sources, device = open_sources(
            samples, info, window, phases, calibration, _probed_behaviour(info, behaviours)
        )
        sources += device_sources
        if device is not None:
            opened_devices.append(device)
        if not device_sources:
            missing.append(missing_reading(samples, info))
    chosen, unavailable = choose_headline(sources, missing, window, headline)
    missing_card = _missing_card(samples, chosen, missing, devices, headline)
    if missing_card is not None:
        chosen, unavailable = [], missing_card
    readings = [source.reading(*window, phases, headline=source in chosen) for source in sources]
    node = None
    for info in [info for info in samples.header.sensors if info.scope == NODE]:
        node_readings, node = node_energy(samples, info, window, phases, sources, calibration)
        readings += node_readings
    cards = tuple(device for device in opened_devices if device.info.scope in CARD_SCOPES)
    usage = cpu_use(samples, window, own_server=own_server)
    read_devices = {reading.device for reading in readings}
    return Account(
        window,
        (*readings, *missing),
        tuple(_phase_energy(chosen, phase, phases) for phase in phases),
        _doubts(samples, chosen, window, phases, precision, usage, lost=recorder_lost),
        tuple(_describe(device, window, behaviours) for device in cards),
        unavailable,
        cards,
        tuple(chosen),
        usage,
        node,
        tuple(info for info in samples.header.sensors if info.device in read_devices),
    )


def _doubts(
    samples: Samples,
    sources: Sequence[Source],
    window: tuple[int, int],
    phases: Sequence[PhaseSpan],
    precision: float,
    usage: CpuUse,
    *,
    lost: bool,
) -> dict[str, str]:
    """Return the validity codes of the headline; an estimate carries none of the sensor's."""
    doubts = list(validity.recorder_doubts(samples, window, lost=lost))
    measured = [source for source in sources if source.device is not None]
    for source in measured:
        assert source.device is not None
        stretch = source.stretch(*window, phases)
        doubts += validity.device_doubts(
            samples, source.device, source.channel, stretch, window, precision
        )
    doubts += validity.idle_doubts(
        [(source.info.device, source.idle) for source in measured if source.idle is not None]
    )
    cards = {source.info.device for source in measured if source.info.scope in CARD_SCOPES}
    cards |= {device.removeprefix("module:") for device in cards}
    if cards:
        doubts += validity.surrounding_doubts(samples, cards, window)
    scopes = {source.info.scope for source in measured}
    doubts += cpu_doubts(usage, cpu_metered=bool(scopes & {"cpu", "host"}))
    doubts += stall_doubts(samples, window)
    reasons_by_code: dict[str, list[str]] = {}
    for code, reason in doubts:
        reasons_by_code.setdefault(code, []).append(reason)
    return {code: "; ".join(reasons) for code, reasons in reasons_by_code.items()}


def _phase_energy(
    sources: Sequence[Source], phase: PhaseSpan, phases: Sequence[PhaseSpan]
) -> PhaseEnergy:
    name, start_ns, end_ns = phase
    # Something else begins at its ends, of which the margins show more.
    changes = ((MARGINS[0], start_ns, start_ns), (MARGINS[1], end_ns, end_ns))
    energy_sum = _headline_sum(sources, start_ns, end_ns, (*changes, *phases))
    return PhaseEnergy(
        phase=name,
        duration_s=(end_ns - start_ns) / NS_PER_S,
        energy_j=None if energy_sum is None else energy_sum.gross_j,
        u95_j=None if energy_sum is None else energy_sum.gross_u95_j,
    )


def _headline_sum(
    sources: Sequence[Source], start_ns: int, end_ns: int, phases: Sequence[PhaseSpan]
) -> EnergySum | None:
    gross = [replace(source, idle=None) for source in sources]
    return total([source.reading(start_ns, end_ns, phases, headline=True) for source in gross])


def _probed_behaviour(info: SensorInfo, known: Behaviours | None) -> Behaviour | None:
    """Return what a probe has found of a card, by whichever sensor its counter is read."""
    cards = known or {}
    return cards.get((info.sensor, info.device)) or cards.get(("nvml", info.device))


def _describe(device: Device, window: tuple[int, int], known: Behaviours | None) -> dict[str, Any]:
    """Return what a card is and how its sensor behaves, for the record."""
    info, behaviour = device.info, device.behaviour
    disagreement = device.disagreement(*window)
    return {
        "uuid": info.device,
        "name": info.name,
        "sensor": info.sensor,
        "driver": info.driver,
        "power_limits_w": None if info.power_limit_w is None else dict(info.power_limit_w),
        "counter": behaviour.counter,
        "counter_period_s": behaviour.counter_period_s,
        "counter_lag_s": behaviour.counter_lag_s,
        "power_channels": [asdict(channel) for channel in behaviour.power],
        "probed": _probed_behaviour(info, known) is not None,
        "channel_disagreement_rel": None if disagreement is None else disagreement.relative,
        "channel_disagreement_u95_rel": None if disagreement is None else disagreement.u95,
        "notes": list(device.notes),
    }


def _missing_card(
    samples: Samples,
    sources: Sequence[Source],
    missing: Sequence[Reading],
    devices: Collection[str] | None,
    headline: str | None,
) -> str | None:
    """Return why these sources are no headline: which card of the run is missing, if one is.

    The others' energy is not that of the run, unless a sensor without cards was asked for.
    """
    infos = samples.header.sensors
    absent = sorted(set(devices or ()) - {info.device.removeprefix("module:") for info in infos})
    card_sensors = {info.sensor for info in infos if info.scope in CARD_SCOPES}
    if headline is not None and headline not in card_sensors:
        return None
    if absent and (cards := zeus_cards(samples)):
        names = ", ".join(card.device for card in cards)
        return (
            f"the run used {', '.join(absent)}, and whether that is {names} is not known; "
            "energy.backend: rapl takes the CPU's energy instead"
        )
    if absent:
        return f"the run used {', '.join(absent)}, which was not recorded"
    unread = [card for card in missing if card.device.removeprefix("module:") in (devices or ())]
    if unread and sources and not any(source.info.scope in CARD_SCOPES for source in sources):
        reasons = "; ".join(f"{card.device}: {card.unavailable}" for card in unread)
        return f"a GPU of the run could not be read: {reasons}"
    return None


def zeus_cards(samples: Samples) -> list[SensorInfo]:
    """Return the cards of a machine without NVIDIA's, which have names of Zeus' and no UUIDs.

    Of a chip that is read as a whole its GPU is a part.
    """
    cards = [
        info
        for info in samples.header.sensors
        if info.scope in CARD_SCOPES and not _found_no_card(info)
    ]
    if any(info.sensor == "nvml" for info in cards):
        return []
    modules = [info for info in cards if info.device == "module"]
    return modules or cards


def _found_no_card(info: SensorInfo) -> bool:
    return info.device == _NO_CARD and info.unavailable is not None


def _is_of_run(info: SensorInfo, devices: Collection[str] | None) -> bool:
    return devices is None or info.device.removeprefix("module:") in devices or _found_no_card(info)


def _per(energy_j: float | None, count: float | None) -> float | None:
    return energy_j / count if energy_j is not None and count else None
