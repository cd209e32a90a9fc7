"""What the page says of two experiments, and when it may.

A difference is stated only where the pair's p value is below :data:`LEVEL` after Holm's correction
for all pairs of the study. The page's best and worst are chosen after looking, and a pair so chosen
differs by chance far more often than one named before: only a correction for all pairs allows for
that. Its interval is therefore the one that holds for all pairs together (Bonferroni).
"""

import math
from collections.abc import Iterable, Sequence

from llenergymeasure.analysis.comparison import LEVEL
from llenergymeasure.analysis.relations import LENGTH, NOT_COMPARABLE
from llenergymeasure.analysis.selection import Row, used_runs
from llenergymeasure.analysis.statistics import t_upper
from llenergymeasure.report.wording import (
    change,
    changes,
    counted,
    listed,
    p_value,
    plain,
    rounded,
)
from llenergymeasure.units import NOTHING, percent


class Pairs:
    """The compared pairs of one quantity, from rows of ``comparisons.parquet``."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = {frozenset((row["experiment_a"], row["experiment_b"])): row for row in rows}
        self.tested = sum(row["p_holm"] is not None for row in self._rows.values())

    def of(self, one: Row, other: Row) -> Row | None:
        """Return the row of two experiments of the summary; None if there is none."""
        return self._rows.get(frozenset((one["experiment"], other["experiment"])))

    def less(self, one: Row, other: Row) -> bool:
        """Return whether ``one`` is shown to have less than ``other``."""
        row = self.of(one, other)
        if row is None or not shown(row):
            return False
        return bool((row["ratio"] < 1) == (row["experiment_b"] == one["experiment"]))

    def barred(self, one: Row, other: Row) -> str | None:
        """Return why two experiments may not be compared; None if they may."""
        reason = (self.of(one, other) or {}).get("unavailable") or ""
        return reason.removeprefix(NOT_COMPARABLE) if reason.startswith(NOT_COMPARABLE) else None

    def any_shown(self, experiments: Sequence[Row]) -> bool:
        """Return whether any two of the experiments are shown to differ."""
        among = {row["experiment"] for row in experiments}
        return any(shown(row) for pair, row in self._rows.items() if pair <= among)


def shown(row: Row) -> bool:
    """Return whether a pair's difference is shown, all pairs of the study allowed for."""
    return row["p_holm"] is not None and row["p_holm"] < LEVEL


def verdict(row: Row) -> str:
    """Return what a pair shows, in a word."""
    if row["ratio"] is None:
        return "not compared"
    return "differ" if shown(row) else "inconclusive"


def how(row: Row) -> str:
    """Return how a pair was compared, and over what."""
    if row["method"] == "paired":
        return f"paired over {row['n']} cycles"
    if row["method"] == "unpaired":
        return f"unpaired, {row['n_a']} and {row['n_b']} runs"
    return NOTHING


def within_sensor(row: Row, ratio: float) -> str | None:
    """Return that a difference, though shown, is less than its sensors leave open.

    Args:
        row: the pair's.
        ratio: its ratio, in the direction in which the difference is written.
    """
    left_open = row.get("shared_u95_rel") or 0.0
    if not shown(row) or abs(ratio - 1) >= left_open:
        return None
    return f"less than what the sensor leaves open, ±{percent(left_open)}"


def difference_sentence(pairs: Pairs, least: Row, most: Row) -> str | None:
    """Return how much less one experiment has than another; None where that is not shown.

    Args:
        pairs: on energy per output token.
        least: the experiment of the summary with the lower mean.
        most: the one with the higher.
    """
    row = pairs.of(least, most)
    if row is None or not pairs.less(least, most):
        return None
    low, high = _joint_interval(row, pairs.tested)
    ratio = row["ratio"]
    if row["experiment_a"] == least["experiment"]:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    counted = f" for all {pairs.tested} pairs" if pairs.tested > 1 else ""
    details = [how(row), f"p {_equal(row['p_holm'])}{' after Holm' if counted else ''}"]
    if high < 1:
        details.append(f"95 % interval{counted} {changes(low, high)}")
    details += filter(None, [within_sensor(row, ratio)])
    verb = "is estimated to use" if least["kind"] == "estimated" else "uses"
    sentence = (
        f"{name_of(least)} {verb} {change(ratio)} energy per output token than {name_of(most)} "
        f"({'; '.join(details)})."
    )
    if row["differs"]:
        names = [difference(name, least, most) for name in row["differs"]]
        sentence += f" Apart from settings they differ in {plain(listed(names), 120)}."
    if row["method"] == "unpaired":
        sentence += (
            " Their cycles were not blocks in time on one machine: a drift, or a difference of the "
            "machines, would look the same."
        )
    return sentence


def difference(name: str, one: Row, other: Row) -> str:
    """Return in what two experiments of the summary differ; of the answers' length, how far."""
    lengths = [row.get(f"{LENGTH}_mean") for row in (one, other)]
    if name != LENGTH or None in lengths:
        return name
    return f"the answers' length ({rounded(lengths[0])} and {rounded(lengths[1])} tokens)"


def inconclusive_sentence(pairs: Pairs, experiments: Sequence[Row]) -> str:
    """Return that the least and the most are not shown to differ, why, and what would decide it.

    Args:
        pairs: on energy per output token.
        experiments: of one comparable group, by their means.
    """
    least, most = experiments[0], experiments[-1]
    both = f"{name_of(least)} and {name_of(most)}"
    row = pairs.of(least, most)
    if row is None:
        return f"Inconclusive: {both} were not compared with each other."
    whole = len(experiments) > 2 and not pairs.any_shown(experiments)
    among = f"the {len(experiments)} experiments" if whole else both
    claim = f"Inconclusive: no difference between {among} is shown"
    if row["p_holm"] is None:
        return f"{claim} ({plain(row['unavailable'] or 'they were not tested', 300)})."
    if shown(row):
        return f"{claim}: the means and the {how(row)} point in opposite ways."
    cycles = row.get("cycles_to_decide")
    wanted = (
        "More cycles (execution.n_cycles) would show smaller differences."
        if cycles is None
        else f"About {cycles:,.0f} cycles (execution.n_cycles) would decide one of the size seen."
    )
    extremes = f"{both}: " if whole else ""
    return f"{claim} ({extremes}p {_equal(row['p_holm'])} after Holm; {how(row)}). {wanted}"


def _joint_interval(row: Row, tested: int) -> tuple[float, float]:
    """Return the interval of a pair's ratio that holds for all pairs tested together."""
    freedom = row["degrees_of_freedom"]
    wider = t_upper(0.025 / max(tested, 1), freedom) / t_upper(0.025, freedom)
    center = math.log(row["ratio"])
    half_width = wider * (math.log(row["ci95_high"]) - center)
    return math.exp(center - half_width), math.exp(center + half_width)


def name_of(row: Row) -> str:
    """Return an experiment's name in a sentence."""
    return plain(row["label"], 90)


def _equal(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def saturated(best: Row, runs: Sequence[Row]) -> list[str]:
    """Return in how many of its runs in the mean the best could not keep up with its load."""
    used = used_runs(runs).get(best["experiment"], ())
    late = sum("over_saturated" in (run["validity"] or ()) for run in used)
    if not late:
        return []
    return [
        f"With {name_of(best)} requests came faster than they were answered in {late} of "
        f"{counted(len(used), 'run')} (over_saturated): the longer that lasts, the longer they "
        "wait."
    ]
