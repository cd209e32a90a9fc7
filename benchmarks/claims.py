"""How often a study claims what is not so, on simulated studies whose truth is known.

All experiments are equal. The logarithm of a run's energy is what the machine does to all runs of
the moment (a thermal drift, cycles that differ, cycles that follow each other), plus noise of 1 %.
The package's own functions analyse it. Printed is in how many of 100 studies each claim is made:

- ``best``: the least experiment differs from the one with the most energy (paired, Holm);
- ``pair``: any two differ (paired, Holm);
- ``drift``: energy followed the order of the runs (true, and in brackets, where there is a drift;
  of the studies that can tell);
- ``level``: any value of a setting differs from the first (Holm);
- ``front``: another experiment beats one in energy and, being equal, in quality (Holm);
- ``power``: with one experiment 1 % below the others, the first of these claims, made of the right
  experiment. Holm is strict: of many experiments few cycles show nothing so small.

Below that is how often the 95 % intervals of means, ratios and levels hold the truth. Of cycles
with an autocorrelation of 0.6, an interval counts as sound where it holds the truth or the study
does not say that its cycles are independent. Ends with 1 where a claim of nominally 5 % is made in
more than 7 % of studies or a nominal 95 % interval holds in less than 93 %, beyond three standard
errors of the simulation. ``wander`` is held to nothing: experiments that each wander slowly by
themselves cannot be told from experiments that differ.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import harness
import numpy as np
from numpy.typing import NDArray

from llenergymeasure.analysis.blocks import Blocks, drift
from llenergymeasure.analysis.levels import levels
from llenergymeasure.analysis.pairwise_comparison import (
    SIGNIFICANCE_LEVEL,
    Comparison,
    compare,
    with_holm,
)
from llenergymeasure.analysis.pareto import pareto
from llenergymeasure.analysis.statistics import autocorrelation, estimate
from llenergymeasure.analysis.stopping_rule import METRIC, decide, interval

Reals = NDArray[np.float64]

CV = 0.01
JUMP = 0.03
DRIFT = 0.08
"""Rise of energy from cold to warm: leakage of a chip that warms by some 40 degrees."""

DRIFT_RUNS = 6.0
"""Runs after which 63 % of it is there."""

LAG1 = 0.6
TRUE_DIFFERENCE = 0.01
MOST_CLAIMS, LEAST_HELD, ERRORS = 0.07, 0.93, 3.0
MANY = 20
"""From so many experiments on a third of the studies is simulated: each takes longer."""

CLAIMS = ("best", "pair", "drift", "level", "front")


@dataclass(frozen=True)
class Scenario:
    """What a machine does to the runs of a study.

    Attributes:
        name: in the table.
        drift: rise of energy from the first run to a warm machine.
        jump: standard deviation of what a cycle has in common.
        lag1: correlation of that from one cycle to the next.
        wander: standard deviation of what an experiment has in common from cycle to cycle.
    """

    name: str
    drift: float = 0.0
    jump: float = 0.0
    lag1: float = 0.0
    wander: float = 0.0


SCENARIOS = (
    Scenario("noise alone"),
    Scenario("cycles differ", jump=JUMP),
    Scenario("cycles follow", jump=JUMP, lag1=LAG1),
    Scenario("thermal drift", drift=DRIFT),
    Scenario("drift, cycles", drift=DRIFT, jump=JUMP, lag1=LAG1),
    Scenario("wander", wander=CV),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; return 1 where a promise is not kept."""
    parser = harness.parser(__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--seed", type=int, default=20260301)
    parser.add_argument("--quick", action="store_true", help="few studies, to see that it works")
    options = harness.begin(parser, arguments)
    studies = 30 if options.quick else options.studies
    sizes = (
        ((2, 5), (6, 3)) if options.quick else [(e, c) for e in (2, 4, 12, 40) for c in (3, 5, 10)]
    )
    start_s = time.perf_counter()
    print(f"{studies} studies a line; claims in % of the studies\n")
    print(f"{'scenario':<15}{'size':>8}" + "".join(f"{name:>8}" for name in (*CLAIMS, "power")))
    holds = True
    for number, scenario in enumerate(SCENARIOS):
        for experiments, cycles in sizes:
            rng = np.random.default_rng([options.seed, number, experiments, cycles])
            study_count = studies // 3 if experiments >= MANY else studies
            holds &= print_claims(scenario, experiments, cycles, study_count, rng)
    print(f"\n95 % intervals, {4 * studies} a line; % that hold the truth\n")
    for cycles in (3, 5, 10):
        for name, held_truth in intervals(
            cycles, 4 * studies, np.random.default_rng([options.seed, cycles])
        ):
            holds &= _within(held_truth, LEAST_HELD, above=True)
            print(f"{name:<58}n = {cycles:<4}{100 * np.mean(held_truth):6.1f}")
    print(f"\n{time.perf_counter() - start_s:.0f} s")
    return int(not holds)


def simulated(
    scenario: Scenario, experiments: int, cycles: int, rng: np.random.Generator, least: float = 0.0
) -> Blocks:
    """Return a study in shuffled cycles; its last experiment takes ``least`` less than others."""
    shape = (cycles, experiments)
    order = np.array([rng.permutation(experiments) + 1.0 + c * experiments for c in range(cycles)])
    logs = rng.normal(0, CV, shape) + scenario.drift * (1 - np.exp(-order / DRIFT_RUNS))
    logs += scenario.jump * following(rng, (cycles, 1), scenario.lag1)
    logs += scenario.wander * following(rng, shape, LAG1)
    logs[:, -1] += np.log1p(-least)
    names = tuple(f"{number:012x}" for number in range(experiments))
    return Blocks(names, tuple(range(1, cycles + 1)), logs, order, np.zeros(shape), order)


def following(rng: np.random.Generator, shape: tuple[int, int], lag1: float) -> Reals:
    """Return standard normal columns, each value correlated with the one before it."""
    values: Reals = rng.normal(0, 1, shape)
    for row in range(1, len(values)):
        values[row] = lag1 * values[row - 1] + np.sqrt(1 - lag1**2) * values[row]
    return values


def print_claims(
    scenario: Scenario, experiments: int, cycles: int, studies: int, rng: np.random.Generator
) -> bool:
    """Print one line; return whether no claim is made too often."""
    claimed = np.array(
        [claims(simulated(scenario, experiments, cycles, rng)) for _ in range(studies)], float
    )
    different = (
        simulated(scenario, experiments, cycles, rng, TRUE_DIFFERENCE) for _ in range(studies)
    )
    right = [best_claimed(data, with_holm(compare(data))) == experiments - 1 for data in different]
    cells, holds = [], True
    for index, name in enumerate(CLAIMS):
        decided = claimed[np.isfinite(claimed[:, index]), index]
        is_true = name == "drift" and scenario.drift > 0
        share = f"{100 * decided.mean():.1f}" if len(decided) else "-"
        cells.append(f"({share})" if is_true else share)
        holds &= is_true or scenario.wander > 0 or _within(decided, MOST_CLAIMS, above=False)
    line = "".join(f"{cell:>8}" for cell in (*cells, f"{100 * np.mean(right):.0f}"))
    print(f"{scenario.name:<15}{f'{experiments} x {cycles}':>8}{line}", flush=True)
    return holds


def claims(data: Blocks) -> tuple[float, ...]:
    """Return which of :data:`CLAIMS` are made; NaN where a study says that it cannot tell."""
    pairs = with_holm(compare(data))
    trend = drift(data)
    count = len(data.experiments)
    factors = {"one": [index // 2 for index in range(count)], "other": [0, 1] * (count // 2)}
    settings = levels(data, factors)
    quality = {
        name: [
            {"cycle": cycle, METRIC: energy, "quality_score": 0.3}
            for cycle, energy in zip(data.cycles, np.exp(column), strict=True)
        ]
        for name, column in zip(data.experiments, data.logs.T, strict=True)
    }
    return (
        best_claimed(data, pairs) is not None,
        any(_is_significant(comparison.p_holm) for comparison in pairs),
        np.nan if trend is None else trend.detected,
        any(_is_significant(comparison.p_holm) for comparison in settings),
        any(_is_significant(point.beaten_p_holm) for point in pareto(quality, [1])),
    )


def best_claimed(data: Blocks, pairs: list[Comparison]) -> int | None:
    """Return the experiment with the least mean, if it is told from the one with the most."""
    means = np.exp(data.logs).mean(axis=0)
    best, worst = int(means.argmin()), int(means.argmax())
    names = {data.experiments[best], data.experiments[worst]}
    for pair in pairs:
        if {pair.experiment_a, pair.experiment_b} == names:
            return best if _is_significant(pair.p_holm) else None
    return None


def _is_significant(p: float | None) -> bool:
    return p is not None and p < SIGNIFICANCE_LEVEL


def intervals(n: int, count: int, rng: np.random.Generator) -> list[tuple[str, list[bool]]]:
    """Return kinds of 95 % intervals, and of each whether the simulated ones hold the truth."""
    sigma = np.sqrt(np.log1p(0.25**2))
    drifting = DRIFT * (1 - np.exp(-np.arange(4.0 * n) / DRIFT_RUNS))
    means: dict[str, tuple[float, Callable[[], Reals]]] = {
        "mean, normal, CV 25 %": (1.0, lambda: np.abs(rng.normal(1, 0.25, n))),
        "mean, log-normal, CV 25 %": (
            float(np.exp(sigma**2 / 2)),
            lambda: np.exp(rng.normal(0, sigma, n)),
        ),
        "mean, thermal drift in shuffled cycles of four": (
            float(np.exp(drifting).mean() * np.exp(CV**2 / 2)),
            lambda: np.exp(
                drifting[rng.integers(4, size=n) + 4 * np.arange(n)] + rng.normal(0, CV, n)
            ),
        ),
    }
    kinds = []
    for name, (truth, draw) in means.items():
        estimates = [estimate(draw().tolist()) for _ in range(count)]
        kinds.append(
            (
                name,
                [_holds(estimated.ci95_low, estimated.ci95_high, truth) for estimated in estimates],
            )
        )
    correlated = [np.exp(CV * following(rng, (n, 1), LAG1)[:, 0]).tolist() for _ in range(count)]
    sound = [
        _holds(estimated.ci95_low, estimated.ci95_high, float(np.exp(CV**2 / 2)))
        or estimated.correlated is not False
        for estimated in map(estimate, correlated)
    ]
    kinds.append((f"mean, cycles follow each other ({LAG1}), sound", sound))
    kinds.append(("ratio, experiments spread unlike", [_ratio_holds(n, rng) for _ in range(count)]))
    kinds.append(("level, of two settings", [_level_holds(n, rng) for _ in range(count)]))
    if n >= 5:
        kinds.append(("stopping, CV 2 %", [_stopping_holds(n, 0.0, rng) for _ in range(count)]))
        kinds.append(
            (
                f"stopping, cycles follow each other ({LAG1}), sound",
                [_stopping_holds(n, LAG1, rng) for _ in range(count)],
            )
        )
    return kinds


def _ratio_holds(n: int, rng: np.random.Generator) -> bool:
    data = simulated(SCENARIOS[1], 2, n, rng)
    data.logs[:, 1] += 0.1 + rng.normal(0, 3 * CV, n)
    pair = compare(data)[0]
    return _holds(pair.ci95_low, pair.ci95_high, float(np.exp(0.1)))


def _level_holds(n: int, rng: np.random.Generator) -> bool:
    data = simulated(SCENARIOS[1], 4, n, rng)
    data.logs[:, 2:] += 0.1
    level = levels(data, {"one": [0, 0, 1, 1], "other": [0, 1, 0, 1]})[0]
    return _holds(level.ci95_low, level.ci95_high, float(np.exp(0.1)))


def _stopping_holds(pilot_cycles: int, lag1: float, rng: np.random.Generator) -> bool:
    """Run a study to ±2 % by the package's rule, at most 20 cycles; return whether it is sound."""
    runs = np.exp(2 * CV * following(rng, (20, 1), lag1)[:, 0]).tolist()
    pilot = runs[:pilot_cycles]
    used = runs[: decide(pilot, pilot_cycles, 0.02, 20).cycles]
    ends = interval(pilot, used)
    assert ends is not None
    holds_truth = _holds(*ends, float(np.exp((2 * CV) ** 2 / 2)))
    independent = autocorrelation(np.log(used).tolist()).correlated is False
    return holds_truth or (lag1 > 0 and not independent)


def _holds(low: float | None, high: float | None, truth: float) -> bool:
    return low is not None and high is not None and low <= truth <= high


def _within(outcomes: Reals | list[bool], limit: float, *, above: bool) -> bool:
    """Return whether a share keeps its limit, but for what the simulation itself is unsure of."""
    error = ERRORS * np.sqrt(limit * (1 - limit) / max(len(outcomes), 1))
    share = float(np.mean(outcomes)) if len(outcomes) else limit
    return bool(share >= limit - error if above else share <= limit + error)


if __name__ == "__main__":
    sys.exit(main())
