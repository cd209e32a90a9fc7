"""The energies of prefill and of decode, from batches whose own are known."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import meter_recording as recording
import numpy as np
from harness import Criterion, counted
from meter_adversary_cards import recorded
from meter_adversary_judge import LEAST_COVERED
from meter_adversary_loads import TAIL_S, Trace

from llenergymeasure.energy.account import account
from llenergymeasure.energy.batches import Batch
from llenergymeasure.energy.prefill_decode import NoSplit, split_energy

CARD = "H200 true"
BATCH = 8
STUDIES = 8
PHASES = ("prefill", "decode")


@dataclass(frozen=True)
class Load:
    """How long and how heavy prefill and decode are."""

    name: str
    floor_s: float = 0.0
    gap_s: float = 0.0
    context: bool = False


LOADS = (
    Load("ideal"),
    Load("6 ms prefill floor", 0.006),
    Load("+ 5 ms gap", 0.006, 0.005),
    Load("+ decode grows", 0.006, 0.005, context=True),
)


@dataclass(frozen=True)
class Parted:
    """Prefill and decode of one study.

    Attributes:
        load, batches: its name, and how many.
        true_j: energy per token of each phase.
        given: energy per token and half width of each phase; none where there are no numbers.
        said: how it was found, or why not.
    """

    load: str
    batches: int
    true_j: dict[str, float]
    given: dict[str, tuple[float, float]]
    said: str

    def of(self, phase: str) -> tuple[float, float] | None:
        """Return a phase's error and half width in percent of the truth; None: no number."""
        if phase not in self.given:
            return None
        (given_j, u95_j), true_j = self.given[phase], self.true_j[phase]
        return 100 * (given_j / true_j - 1), 100 * u95_j / true_j


def run(seed: int, *, quick: bool) -> tuple[list[object], list[Criterion]]:
    """Part prefill and decode; print the table, return what was found and what must hold."""
    studies, counts = (2, (10,)) if quick else (STUDIES, (10, 40))
    rows = [
        [
            _part(each, count, np.random.default_rng((seed, 6, number, count, study)))
            for study in range(studies)
        ]
        for number, each in enumerate(LOADS)
        for count in counts
    ]
    print(
        f"{'load':22}{'batches':>8}{'phase':>9}{'n':>3}{'none':>5}{'med |e|':>9}{'max |e|':>9}"
        f"{'med u95':>9}{'cover':>7}  said"
    )
    for row in rows:
        for phase in PHASES:
            _print(row, phase)
    every = [parted for row in rows for parted in row]
    return [asdict(parted) for parted in every], list(_criteria(every))


def _part(each: Load, count: int, rng: np.random.Generator) -> Parted:
    edges_s, watts = [1.5], [(150.0, 150.0)]
    batches: list[Batch] = []
    true_j, tokens = np.zeros(2), np.zeros(2)
    ns = recording.nanoseconds
    for _ in range(count):
        inputs, outputs = int(rng.integers(64, 1025)), int(rng.integers(16, 257))
        start_s = edges_s[-1]
        first_s = start_s + each.floor_s + 25e-6 * BATCH * inputs
        steps = np.arange(outputs - 1)
        grown = 1 + each.context * (inputs + steps) / 2048
        end_s = first_s + float(np.sum(0.018 * grown))
        from_w, to_w = (380.0, 380.0)
        if each.context:
            from_w, to_w = 360 + 40 * inputs / 1280, 360 + 40 * (inputs + outputs) / 1280
        true_j += ((first_s - start_s) * 620.0, (end_s - first_s) * (from_w + to_w) / 2)
        tokens += (BATCH * inputs, BATCH * (outputs - 1))
        first_ns = ns(first_s), ns(first_s)
        counts = BATCH * inputs, BATCH * outputs, BATCH
        batches.append(Batch(ns(start_s), ns(end_s), first_ns, *counts))
        edges_s += [first_s, end_s]
        watts += [(620.0, 620.0), (from_w, to_w)]
        if each.gap_s:
            edges_s.append(end_s + each.gap_s)
            watts.append((150.0, 150.0))
    whole_s = edges_s[-1] + TAIL_S
    t_s = np.concatenate(([0.0], np.repeat(edges_s, 2), [whole_s]))
    power_w = np.array([*watts, (150.0, 150.0)]).ravel()
    samples = recorded(CARD, Trace(each.name, t_s, power_w, np.zeros(0)), whole_s, rng)
    made = account(samples, (batches[0].start_ns, batches[-1].end_ns))
    found = split_energy([source.channel for source in made.headline_sources], batches)
    true = dict(zip(PHASES, (true_j / tokens).tolist(), strict=True))
    if isinstance(found, NoSplit):
        return Parted(each.name, count, true, {}, found.reason)
    given = {
        "prefill": (found.prefill_j, found.prefill_u95_j),
        "decode": (found.decode_j, found.decode_u95_j),
    }
    return Parted(each.name, count, true, given, "ticks")


def _covered(found: Sequence[tuple[float, float] | None]) -> float:
    return sum(pair is not None and abs(pair[0]) <= pair[1] for pair in found) / len(found)


def _print(row: Sequence[Parted], phase: str) -> None:
    found = [parted.of(phase) for parted in row]
    given = [pair for pair in found if pair is not None]
    errors = [abs(error) for error, _ in given] or [np.nan]
    widths = [width for _, width in given] or [np.nan]
    print(
        f"{row[0].load:22}{row[0].batches:8}{phase:>9}{len(row):3}{len(row) - len(given):5}"
        f"{np.median(errors):9.3f}{max(errors):9.3f}{np.median(widths):9.3f}{_covered(found):7.1%}"
        f"  {counted(parted.said[:60] for parted in row)}"
    )


def _criteria(every: Sequence[Parted]) -> Iterator[Criterion]:
    for phase in PHASES:
        found = [parted.of(phase) for parted in every]
        share = _covered(found)
        yield share >= LEAST_COVERED, f"{phase}: {share:.1%} of {len(found)} studies covered"
        none = sum(pair is None for pair in found)
        yield none == 0, f"{phase}: studies without a number: {none}"
