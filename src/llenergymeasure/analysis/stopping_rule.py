"""How many cycles an experiment needs for a stated precision, by Stein's two stages.

A pilot of a few cycles gives the spread; the number of cycles is set from it once, before any
further cycle is run, and the interval takes its spread from the pilot. Its half width then
is at most the target and its coverage exactly 95 %, whatever the true spread, if cycles are
independent and their logarithms normal (Stein 1945, Ann. Math. Stat. 16, 243-258). If cycles turn
out to be correlated, more are required and the interval is wider, as it is if they scatter more
than the pilot's. Checking the interval after every
cycle and stopping when it is narrow would cover less, because it stops when the spread happens to
look small.

All of it is on the logarithm of the energy, where a relative target is a fixed width.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.analysis.statistics import autocorrelation, log_interval_around, t_quantile

METRIC = "energy_per_output_token_j"
"""The quantity that the precision target is for."""

MIN_PILOT = 3
"""The fewest usable runs of a pilot: two show hardly anything of the spread."""


@dataclass(frozen=True)
class Decision:
    """How many cycles an experiment is given, and why.

    Attributes:
        cycles: of the experiment in all, the pilot's included.
        needed: runs in the mean that the target asks for; None where the pilot does not show it.
        pilot_n: usable runs of the pilot.
        pilot_cv: their coefficient of variation; None where the pilot does not show it.
        reason: why there are not as many cycles as needed, if so.
    """

    cycles: int
    needed: int | None
    pilot_n: int
    pilot_cv: float | None
    reason: str | None = None


def decide(
    pilot: Sequence[float], pilot_cycles: int, precision_target: float, max_cycles: int
) -> Decision:
    """Return how many cycles an experiment needs.

    Args:
        pilot: energies of the pilot's usable runs, in any unit, in the order of time.
        pilot_cycles: cycles of the pilot, usable or not; unusable ones are replaced.
        precision_target: half width of the 95 % interval over the mean.
        max_cycles: the most it is given.
    """
    usable = [value for value in pilot if value > 0]
    if len(usable) < MIN_PILOT:
        too_few = f"only {len(usable)} of the pilot's runs can be used; {MIN_PILOT} would do"
        return Decision(pilot_cycles, None, len(usable), None, too_few)
    pilot_cv = _log_sd(usable)
    width_ratio = _one_run_half_width(usable, usable) / math.log1p(precision_target)
    needed = max(len(usable), math.ceil(width_ratio**2 - 1e-9))
    cycles = max(needed + pilot_cycles - len(usable), pilot_cycles)
    reason = None
    if cycles > max_cycles:
        reason = f"{needed} runs are needed, max_cycles allows {max_cycles} cycles"
    return Decision(min(cycles, max_cycles), needed, len(usable), pilot_cv, reason)


def interval(pilot: Sequence[float], values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval around the mean of ``values`` with the pilot's spread.

    Where the t interval of all values is wider, it is that: later cycles that scatter more than the
    pilot's show that its spread is not theirs. None where the pilot has fewer than
    :data:`MIN_PILOT` values.

    Args:
        pilot: energies of the pilot's usable runs.
        values: energies of all usable runs, the pilot's included, in the order of time.
    """
    if len(pilot) < MIN_PILOT or min(*pilot, *values) <= 0:
        return None
    of_pilot, of_all = (_one_run_half_width(runs, values) for runs in (pilot, values))
    half_width = max(of_pilot, of_all) / math.sqrt(len(values))
    return log_interval_around(statistics.fmean(values), half_width)


def _one_run_half_width(pilot: Sequence[float], values: Sequence[float]) -> float:
    """Return the half width of the logarithm's interval if a single run were made."""
    correlation = autocorrelation([math.log(value) for value in values])
    return t_quantile(len(pilot) - 1) * _log_sd(pilot) * correlation.widening


def _log_sd(values: Sequence[float]) -> float:
    return statistics.stdev([math.log(value) for value in values])
