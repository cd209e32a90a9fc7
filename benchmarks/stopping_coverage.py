"""Whether stopping at a precision target keeps its 95 %, and what it costs in cycles.

Simulated are experiments whose true coefficient of variation between cycles is log-normal around
1 % (0.3 to 5 %) and whose cycles are independent. Each is run by the package's own rule (a pilot,
then a number of cycles that is fixed), by looking at the interval after every cycle and stopping
when it is narrow enough, and with a fixed ten cycles. Printed are how often the interval holds
the truth, the cycles, and how often the interval is as narrow as asked, by the true CV. Ends with
1 where the package's rule covers less than 94 %.
"""

import itertools
import math
import sys
from typing import NamedTuple

import harness
import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.statistics import estimate, t_quantile
from llenergymeasure.analysis.stopping import decide, interval
from llenergymeasure.config.execution import DEFAULT_MAX_CYCLES, PILOT_CYCLES

Reals = NDArray[np.float64]

MEDIAN_CV, SIGMA = 0.01, 0.7
CV_EDGES = (0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
FIXED = 10
LEAST_COVERED = 0.94
STEIN, LOOKS, ALWAYS = "pilot of 5, then fixed", "a look after every cycle", f"always {FIXED}"


class Ended(NamedTuple):
    """How an experiment ended: its cycles, whether its interval holds the truth, and is narrow."""

    cycles: int
    holds: bool
    narrow: bool


def main() -> int:
    """Print the tables; return 1 if the rule covers less than it must."""
    parser = harness.parser(__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--target", type=float, default=0.02)
    parser.add_argument("--max-cycles", type=int, default=DEFAULT_MAX_CYCLES)
    parser.add_argument("--seed", type=int, default=20260301)
    options = harness.begin(parser)
    target, most = options.target, options.max_cycles
    rng = np.random.default_rng(options.seed)
    spreads = _spreads(options.studies, rng)
    runs = np.exp(rng.normal(0, 1, (options.studies, max(most, FIXED))) * spreads[:, None])
    # Columns are those of Ended, as numbers.
    found = {
        STEIN: np.array([_stein(row, target, most) for row in runs], float),
        LOOKS: np.array([_looks(row, target, most) for row in runs], float),
        ALWAYS: np.array([_fixed(row, target) for row in runs], float),
    }
    print(
        f"{options.studies} experiments, target {100 * target:g} %, at most "
        f"{most} cycles, seed {options.seed}"
    )
    for name, ended in found.items():
        cycles, holds, narrow = ended.mean(axis=0)
        print(
            f"{name:<26}interval holds {_percent(holds)}, narrow enough {_percent(narrow)}, "
            f"{cycles:.1f} cycles"
        )
    print(
        f"\n{'true CV':<14}{'experiments':>12}{'cycles':>8}{'against 10':>12}{'holds':>9}"
        f"{'narrow':>9}{f'narrow with {FIXED}':>16}"
    )
    for low, high in itertools.pairwise(CV_EDGES):
        inside = (spreads >= low) & (spreads < high)
        if not inside.any():
            continue
        cycles, holds, narrow = found[STEIN][inside].mean(axis=0)
        _, _, narrow_with_fixed = found[ALWAYS][inside].mean(axis=0)
        print(
            f"{100 * low:.1f} to {100 * high:.1f} %".ljust(14)
            + f"{inside.sum():>12}{cycles:>8.1f}{100 * (cycles / FIXED - 1):>+10.0f} %"
            + f"{_percent(holds):>9}{_percent(narrow):>9}{_percent(narrow_with_fixed):>16}"
        )
    _, covered, _ = found[STEIN].mean(axis=0)
    return int(covered < LEAST_COVERED)


def _spreads(count: int, rng: np.random.Generator) -> Reals:
    """Return true CVs, log-normal and cut to the range."""
    drawn: list[float] = []
    while len(drawn) < count:
        values = MEDIAN_CV * np.exp(rng.normal(0, SIGMA, count))
        drawn += values[(values >= CV_EDGES[0]) & (values <= CV_EDGES[-1])].tolist()
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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
