"""Whether stopping at a precision target keeps its 95 %, and what it costs in cycles.

Simulated are experiments whose true coefficient of variation between cycles is log-normal around
1 % (0.3 to 5 %) and whose cycles are independent. Each is run by the package's own rule (a pilot,
then a number of cycles that is fixed), by looking at the interval after every cycle and stopping
when it is narrow enough, and with a fixed ten cycles. Printed are how often the interval holds
the truth, the cycles, and how often the interval is as narrow as asked, by the true CV.
"""

import math
import sys
from dataclasses import dataclass

import harness
import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.statistics import estimate, t_quantile
from llenergymeasure.analysis.stopping import decide, interval
from llenergymeasure.config.execution import DEFAULT_MAX_CYCLES, PILOT_CYCLES

Reals = NDArray[np.float64]

MEDIAN_CV, SIGMA, LEAST_CV, MOST_CV = 0.01, 0.7, 0.003, 0.05
FIXED = 10
BANDS = (
    (LEAST_CV, 0.005),
    (0.005, 0.01),
    (0.01, 0.015),
    (0.015, 0.02),
    (0.02, 0.03),
    (0.03, MOST_CV),
)


@dataclass(frozen=True)
class Ended:
    """How one experiment ended: its cycles, its interval and whether that is narrow enough."""

    cycles: int
    holds: bool
    narrow: bool


def main() -> int:
    """Print the tables; return 1 if the rule covers less than 94 %."""
    parser = harness.parser(__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--target", type=float, default=0.02)
    parser.add_argument("--max-cycles", type=int, default=DEFAULT_MAX_CYCLES)
    parser.add_argument("--seed", type=int, default=20260301)
    arguments = harness.begin(parser)
    rng = np.random.default_rng(arguments.seed)
    spreads = _spreads(arguments.studies, rng)
    most = max(arguments.max_cycles, FIXED)
    runs = np.exp(rng.normal(0, 1, (arguments.studies, most)) * spreads[:, None])
    target = arguments.target
    found = {
        "pilot of 5, then fixed": [_stein(row, target, arguments.max_cycles) for row in runs],
        "a look after every cycle": [_looks(row, target, arguments.max_cycles) for row in runs],
        f"always {FIXED}": [_fixed(row, target) for row in runs],
    }
    print(
        f"{arguments.studies} experiments, target {100 * target:g} %, at most "
        f"{arguments.max_cycles} cycles, seed {arguments.seed}"
    )
    for name, ended in found.items():
        print(
            f"{name:<26}interval holds {_share([e.holds for e in ended])}, narrow enough "
            f"{_share([e.narrow for e in ended])}, {np.mean([e.cycles for e in ended]):.1f} cycles"
        )
    _by_spread(spreads, found)
    stein = found["pilot of 5, then fixed"]
    return int(float(np.mean([e.holds for e in stein])) < 0.94)


def _spreads(count: int, rng: np.random.Generator) -> Reals:
    """Return true CVs, log-normal and cut to the range."""
    drawn: list[float] = []
    while len(drawn) < count:
        values = MEDIAN_CV * np.exp(rng.normal(0, SIGMA, count))
        drawn += values[(values >= LEAST_CV) & (values <= MOST_CV)].tolist()
    return np.array(drawn[:count])


def _stein(row: Reals, target: float, max_cycles: int) -> Ended:
    """Run as the workflow does, by its own functions; the true geometric mean is 1."""
    pilot = row[:PILOT_CYCLES].tolist()
    decision = decide(pilot, PILOT_CYCLES, target, max_cycles)
    ends = interval(pilot, row[: decision.cycles].tolist())
    assert ends is not None
    assert decision.needed is not None
    return Ended(decision.cycles, ends[0] <= 1 <= ends[1], decision.cycles >= decision.needed)


def _looks(row: Reals, target: float, max_cycles: int) -> Ended:
    """Compute the interval after each cycle from the pilot on, and stop when it is narrow."""
    for n in range(PILOT_CYCLES, max_cycles + 1):
        logs = np.log(row[:n])
        half_width = t_quantile(n - 1) * float(np.std(logs, ddof=1)) / math.sqrt(n)
        narrow = half_width <= math.log1p(target)
        if narrow or n == max_cycles:
            return Ended(n, abs(float(logs.mean())) <= half_width, narrow)
    raise AssertionError("max_cycles is less than the pilot")


def _fixed(row: Reals, target: float) -> Ended:
    result = estimate(row[:FIXED].tolist())
    assert result.mean is not None
    assert result.ci95_low is not None
    assert result.ci95_high is not None
    narrow = result.ci95_high - result.mean <= target * result.mean
    return Ended(FIXED, result.ci95_low <= 1 <= result.ci95_high, narrow)


def _by_spread(spreads: Reals, found: dict[str, list[Ended]]) -> None:
    stein, fixed = found["pilot of 5, then fixed"], found[f"always {FIXED}"]
    print(
        f"\n{'true CV':<14}{'experiments':>12}{'cycles':>8}{'against 10':>12}{'holds':>9}"
        f"{'narrow':>9}{f'narrow with {FIXED}':>16}"
    )
    for low, high in BANDS:
        at = np.flatnonzero((spreads >= low) & (spreads < high))
        if not len(at):
            continue
        cycles = float(np.mean([stein[place].cycles for place in at]))
        print(
            f"{100 * low:.1f} to {100 * high:.1f} %".ljust(14)
            + f"{len(at):>12}{cycles:>8.1f}{100 * (cycles / FIXED - 1):>+10.0f} %"
            + f"{_share([stein[place].holds for place in at]):>9}"
            + f"{_share([stein[place].narrow for place in at]):>9}"
            + f"{_share([fixed[place].narrow for place in at]):>16}"
        )


def _share(values: list[bool]) -> str:
    return f"{100 * float(np.mean(values)):.1f} %"


if __name__ == "__main__":
    sys.exit(main())
