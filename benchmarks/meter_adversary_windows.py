"""Windows of known energy, measured by the project, by Zeus and by polling."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meter_adversary_loads as loads
import meter_recording as recording
import numpy as np
from meter_adversary_cards import RAPL_SCALE, DrawnCard, FakePowercap, model
from meter_adversary_loads import Scene, Trace
from meter_recording import CostlyClock, opened

from llenergymeasure.energy.account import account
from llenergymeasure.energy.characterise import characterise
from llenergymeasure.recording.samples import Samples
from llenergymeasure.sensors.known_behaviour import Behaviours

RAPL = "RAPL"
RAPL_TIMES = 3
"""Recordings of each scene by RAPL, which a probe and ticks do not make more windows of."""
TICKS, ASKED, BRACKETED, LOADED = "ticks", "asked", "bracketed", "loaded"
LOOK_S = 0.001
"""How often a program that waits for a tick reads the counter."""
READ_S = 0.00003

Keys = Callable[[Trace, float], Mapping[str, Any]]
"""Settings of the card from its true power, and from when something happens to it."""


def always(**keys: Any) -> Keys:
    """Return settings that nothing depends on."""
    return lambda *_: keys


NO_KEYS = always()


@dataclass(frozen=True)
class Energy:
    """What the project gives for a window: the headline, and its reasons to doubt it.

    Energies are None where there is no number.
    """

    codes: tuple[str, ...]
    gross_j: float | None = None
    gross_u95_j: float | None = None
    bound_j: float | None = None


@dataclass(frozen=True)
class Window:
    """One window by every method. Energies are in joules; None is no number.

    Attributes:
        load, sensor, kind: what was measured, with which card and counter.
        length_s: how long, as asked for.
        cut: ``ticks``, ``asked``, ``bracketed`` or ``loaded``.
        true_j: the truth.
        energy: what the project gives.
        probed: whether a probe's findings were given.
        zeus_j: the counter's difference between the window's ends, which is what Zeus gives.
        poll_j: power polled each 100 ms, by trapezoids.
        needs_code: whether even a right number is to carry a code.
    """

    load: str
    sensor: str
    kind: str
    length_s: float
    cut: str
    true_j: float
    energy: Energy
    probed: bool = False
    zeus_j: float | None = None
    poll_j: float | None = None
    needs_code: bool = False

    def off(self, energy_j: float | None) -> float | None:
        """Return how far an energy is off, in percent of the truth."""
        return None if energy_j is None else 100 * (energy_j / self.true_j - 1)

    @property
    def error(self) -> float | None:
        """Return the project's error in percent of the truth."""
        return self.off(self.energy.gross_j)

    @property
    def half_width(self) -> float | None:
        """Return u95 in percent of the truth."""
        u95_j = self.energy.gross_u95_j
        return None if u95_j is None else 100 * u95_j / self.true_j

    def within(self, half_width_j: float | None) -> bool:
        """Return whether the truth lies inside an interval; no number covers nothing."""
        gross_j = self.energy.gross_j
        if gross_j is None or half_width_j is None:
            return False
        return abs(gross_j - self.true_j) <= half_width_j

    @property
    def covered(self) -> bool:
        """Return whether the truth lies inside the interval."""
        return self.within(self.energy.gross_u95_j)

    @property
    def silent(self) -> bool:
        """Return whether there is a number that a code is missing from."""
        if self.energy.gross_j is None or self.energy.codes:
            return False
        return self.needs_code or not self.covered


@dataclass(frozen=True)
class Job:
    """One load, drawn once per length and way of cutting, for some kinds of cards."""

    load: str
    repetition: int
    seed: int
    lengths_s: tuple[float, ...]
    models: tuple[str, ...]
    known: Mapping[str, Behaviours]
    real_zeus: bool


def probe(
    names: Sequence[str],
    rng: np.random.Generator,
    sensor: Keys = NO_KEYS,
    latency_s: float = 0.0,
) -> dict[str, Behaviours]:
    """Record a probe on each kind of card; return what is found of each."""
    trace, edges_s = loads.probe_trace(rng)
    cards = [model(name).card(rng) for name in names]
    settings = sensor(trace, loads.PROBE_S / 2)
    devices = [card.device(trace, loads.LIMIT_W, settings) for card in cards]
    edges_ns = [recording.nanoseconds(edge_s) for edge_s in edges_s]
    known_cards: dict[str, Behaviours] = {}
    with opened(devices, rng, latency_s) as (inventory, clock):
        for index, card in enumerate(cards):
            samples = recording.record(inventory, [index], clock, loads.PROBE_S)
            behaviour = characterise(samples, card.uuid, edges_ns, "nvml")
            known_cards[card.model.name] = {("nvml", card.uuid): behaviour}
    return known_cards


def measure(job: Job) -> list[Window]:
    """Measure all windows of a job."""
    number = list(loads.LOADS).index(job.load)
    rng = np.random.default_rng((job.seed, 2, number, job.repetition))
    windows: list[Window] = []
    for length_s in job.lengths_s:
        for make in (loads.free_scene, loads.bracketed_scene):
            windows += _measure_scene(make(job.load, length_s, rng), length_s, job, rng)
    return windows


def _measure_scene(
    scene: Scene, length_s: float, job: Job, rng: np.random.Generator
) -> Iterator[Window]:
    cards = [model(name).card(rng) for name in job.models if name != RAPL]
    devices = [card.device(scene.trace, scene.limit_w) for card in cards]
    with opened(devices, rng) as (inventory, clock):
        if job.real_zeus:
            _check_zeus(scene, len(cards), clock)
        for index, card in enumerate(cards):
            samples = recording.record(inventory, [index], clock, scene.end_s)
            for cut, span_s in _cuts(scene, card, rng):
                counted_j = recording.counter_difference_j(index, clock, *span_s)
                polled_j = recording.polled_energy_j(index, clock, *span_s)
                for known_card in (None, job.known[card.model.name]):
                    yield Window(
                        job.load,
                        card.model.name,
                        card.model.kind,
                        length_s,
                        cut,
                        scene.trace.energy_j(*span_s),
                        energy_of(samples, span_s, phases(scene, cut), known_card),
                        known_card is not None,
                        counted_j,
                        polled_j,
                    )
        for _ in range(RAPL_TIMES if RAPL in job.models else 0):
            yield measure_rapl(
                loads.scaled(scene, RAPL_SCALE),
                length_s,
                clock,
                phase_s=float(rng.uniform(0, 0.001)),
                begin_s=float(rng.uniform(0, 0.2)),
            )


def measure_rapl(
    scene: Scene,
    length_s: float,
    clock: CostlyClock,
    phase_s: float = 0.0,
    begin_s: float = 0.0,
    fault: Callable[[FakePowercap], None] | None = None,
) -> Window:
    """Measure a scene by RAPL, whose counter may have a fault."""
    with tempfile.TemporaryDirectory() as folder:
        powercap = FakePowercap(Path(folder), scene.trace, clock, phase_s)
        if fault is not None:
            fault(powercap)
        samples = powercap.record(begin_s, scene.end_s - 0.01)
    start_s, end_s = scene.window_s
    cut = ASKED if scene.rests_s is None else BRACKETED
    return Window(
        scene.trace.name,
        RAPL,
        "rapl",
        length_s,
        cut,
        scene.trace.energy_j(start_s, end_s),
        energy_of(samples, scene.window_s, phases(scene, cut)),
        zeus_j=powercap.energy_j(end_s) - powercap.energy_j(start_s),
    )


def energy_of(
    samples: Samples,
    window_s: tuple[float, float],
    phases: Sequence[tuple[str, int, int]] = (),
    known: Behaviours | None = None,
) -> Energy:
    """Return the project's headline energy of a window."""
    accounted = account(samples, _ns(window_s), phases, behaviours=known)
    codes, total = tuple(accounted.validity), accounted.total
    if total is None:
        return Energy(codes)
    return Energy(codes, total.gross_j, total.gross_u95_j, total.bound_j)


def _cuts(
    scene: Scene, card: DrawnCard, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Return the windows of a scene: as asked, twice, and at ticks; or between two rests."""
    if scene.rests_s is not None:
        yield BRACKETED, scene.window_s
        return
    yield ASKED, scene.window_s
    yield LOADED, scene.window_s
    start_s, end_s = scene.window_s
    yield TICKS, (seen_tick_s(card, start_s, rng), seen_tick_s(card, end_s, rng))


def seen_tick_s(card: DrawnCard, moment_s: float, rng: np.random.Generator) -> float:
    """Return when a program that waits from a moment on has seen the next tick."""
    late_s = float(rng.uniform(0, LOOK_S)) + READ_S
    return round(card.next_tick_s(moment_s) + late_s, 9)


def phases(scene: Scene, cut: str) -> list[tuple[str, int, int]]:
    """Return the margins beside a window: at rest if bracketed, else only said to be."""
    start_s, end_s = scene.window_s
    margins_s = ((start_s - loads.REST_S, start_s), (end_s, end_s + loads.REST_S))
    if cut == BRACKETED and scene.rests_s is not None:
        margins_s = scene.rests_s
    elif cut != LOADED:
        return []
    names = ("margin_before", "margin_after")
    return [(name, *_ns(rest_s)) for name, rest_s in zip(names, margins_s, strict=True)]


def _ns(span_s: tuple[float, float]) -> tuple[int, int]:
    return recording.nanoseconds(span_s[0]), recording.nanoseconds(span_s[1])


def _check_zeus(scene: Scene, count: int, clock: CostlyClock) -> None:
    """Raise RuntimeError if the real Zeus gives anything but the counters' differences."""
    zeus_j = recording.zeus_energies_j(count, clock, *scene.window_s)
    for index in range(count):
        counted_j = recording.counter_difference_j(index, clock, *scene.window_s)
        if abs(zeus_j[index] - counted_j) > 1e-6:
            raise RuntimeError("Zeus gives another energy than its counter's difference")
