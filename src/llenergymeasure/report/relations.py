"""What the page says about how experiments differ, and when it may: pairs, settings, fronts.

A difference is stated only where the pair's p value is below :data:`SIGNIFICANCE_LEVEL` after
Holm's correction for all pairs of the study. The page's best and worst are chosen after seeing the
results, and such a pair differs by chance far more often than one that was chosen before: only a
correction for all pairs allows for that. For the same reason its interval holds for all pairs
together (Bonferroni).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llenergymeasure.analysis.blocks import has_one_order, make_blocks
from llenergymeasure.analysis.comparison_tables import NOT_COMPARABLE, OUTPUT_LENGTH
from llenergymeasure.analysis.levels import MIN_CYCLES
from llenergymeasure.analysis.pairwise_comparison import SIGNIFICANCE_LEVEL
from llenergymeasure.analysis.pareto import ENERGY
from llenergymeasure.analysis.selection import Row, used_runs
from llenergymeasure.analysis.statistics import t_isf
from llenergymeasure.analysis.tables import read_table
from llenergymeasure.report.formatting import (
    change,
    change_range,
    count_text,
    join_words,
    p_value,
    plain,
    rounded,
)
from llenergymeasure.units import NO_VALUE, percent

LISTED_PAIRS = 30
LISTED_LEVELS = 60
LISTED_NAMES = 3

ONE_ORDER = (
    "Each cycle ran in the same order: what a run leaves for the next one (heat, clocks, caches) "
    "looks like a difference and is in no interval. A Latin square, or enough cycles "
    "in a shuffled order (execution.cycle_order), set the two apart."
)
_OBJECTIVES = {
    "output_tokens_per_s": "throughput",
    "request_latency_p50_s": "median request latency",
    "request_latency_p95_s": "95th percentile of request latency",
    "time_to_first_token_p50_s": "median time to the first token",
    "peak_memory_bytes": "memory",
    "quality_score": "quality score",
    "perplexity": "perplexity",
}


class Pairs:
    """The compared pairs of one quantity, from rows of ``comparisons.parquet``."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = {frozenset((row["experiment_a"], row["experiment_b"])): row for row in rows}
        self.any_paired = any(row["method"] == "paired" for row in self._rows.values())
        self.n_tested = sum(row["p_holm"] is not None for row in self._rows.values())

    def find(self, first: Row, second: Row) -> Row | None:
        """Return the row of two experiments of the summary; None if there is none."""
        return self._rows.get(frozenset((first["experiment"], second["experiment"])))

    def shows_less(self, first: Row, second: Row) -> bool:
        """Return whether ``first`` is shown to have less than ``second``."""
        row = self.find(first, second)
        if row is None or not is_significant(row):
            return False
        return bool((row["ratio"] < 1) == (row["experiment_b"] == first["experiment"]))

    def incomparable_reason(self, first: Row, second: Row) -> str | None:
        """Return why two experiments may not be compared; None if they may."""
        reason = (self.find(first, second) or {}).get("unavailable") or ""
        return reason.removeprefix(NOT_COMPARABLE) if reason.startswith(NOT_COMPARABLE) else None

    def any_significant(self, experiments: Sequence[Row]) -> bool:
        """Return whether any two of the experiments are shown to differ."""
        ids = {row["experiment"] for row in experiments}
        return any(is_significant(row) for pair, row in self._rows.items() if pair <= ids)


def is_significant(row: Row) -> bool:
    """Return whether a pair's difference is shown after the correction for all pairs."""
    return row["p_holm"] is not None and row["p_holm"] < SIGNIFICANCE_LEVEL


def verdict(row: Row) -> str:
    """Return a pair's verdict in a word."""
    if row["ratio"] is None:
        return "not compared"
    return "differ" if is_significant(row) else "inconclusive"


def comparison_method(row: Row) -> str:
    """Return how a pair was compared, and over what."""
    if row["method"] == "paired":
        return f"paired over {row['n']} cycles"
    if row["method"] == "unpaired":
        return f"unpaired, {row['n_a']} and {row['n_b']} runs"
    return NO_VALUE


def sensor_warning(row: Row, ratio: float) -> str | None:
    """Return a warning if a shown difference is smaller than the sensors' shared uncertainty.

    Args:
        row: the pair's.
        ratio: its ratio, in the direction in which the difference is written.
    """
    shared_u95_rel = row.get("shared_u95_rel") or 0.0
    if not is_significant(row) or abs(ratio - 1) >= shared_u95_rel:
        return None
    return f"less than what the sensor leaves open, ±{percent(shared_u95_rel)}"


def difference_sentence(pairs: Pairs, lower: Row, higher: Row) -> str | None:
    """Return how much less one experiment has than another; None if that is not shown.

    Args:
        pairs: on energy per output token.
        lower: the experiment of the summary with the lower mean.
        higher: the one with the higher.
    """
    row = pairs.find(lower, higher)
    if row is None or not pairs.shows_less(lower, higher):
        return None
    low, high = _joint_interval(row, pairs.n_tested)
    ratio = row["ratio"]
    if row["experiment_a"] == lower["experiment"]:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    for_pairs = f" for all {pairs.n_tested} pairs" if pairs.n_tested > 1 else ""
    details = [
        comparison_method(row),
        f"p {_p_relation(row['p_holm'])}{' after Holm' if for_pairs else ''}",
    ]
    if high < 1:
        details.append(f"95 % interval{for_pairs} {change_range(low, high)}")
    details += filter(None, [sensor_warning(row, ratio)])
    verb = "is estimated to use" if lower["kind"] == "estimated" else "uses"
    sentence = (
        f"{label_text(lower)} {verb} {change(ratio)} energy per output token than "
        f"{label_text(higher)} ({'; '.join(details)})."
    )
    if row["differs"]:
        names = [difference(name, lower, higher) for name in row["differs"]]
        sentence += f" Apart from settings they differ in {plain(join_words(names), 120)}."
    if row["method"] == "unpaired":
        sentence += (
            " Their cycles were not blocks in time on one machine: a drift, or a difference of the "
            "machines, would look the same."
        )
    return sentence


def difference(name: str, first: Row, second: Row) -> str:
    """Return in what two experiments of the summary differ; of the answers' length, how far."""
    lengths = [row.get(f"{OUTPUT_LENGTH}_mean") for row in (first, second)]
    if name != OUTPUT_LENGTH or None in lengths:
        return name
    return f"the answers' length ({rounded(lengths[0])} and {rounded(lengths[1])} tokens)"


def inconclusive_sentence(pairs: Pairs, experiments: Sequence[Row]) -> str:
    """Return a sentence for a least and a most that are not shown to differ: why, and the remedy.

    Args:
        pairs: on energy per output token.
        experiments: of one comparable group, by their means.
    """
    lowest, highest = experiments[0], experiments[-1]
    pair = f"{label_text(lowest)} and {label_text(highest)}"
    row = pairs.find(lowest, highest)
    if row is None:
        return f"Inconclusive: {pair} were not compared with each other."
    covers_all = len(experiments) > 2 and not pairs.any_significant(experiments)
    names = f"the {len(experiments)} experiments" if covers_all else pair
    claim = f"Inconclusive: no difference between {names} is shown"
    if row["p_holm"] is None:
        return f"{claim} ({plain(row['unavailable'] or 'they were not tested', 300)})."
    if is_significant(row):
        return f"{claim}: the means and the {comparison_method(row)} point in opposite ways."
    cycles = row.get("cycles_to_decide")
    remedy = (
        "More cycles (execution.n_cycles) would show smaller differences."
        if cycles is None
        else f"About {cycles:,.0f} cycles (execution.n_cycles) would decide one of the size seen."
    )
    extremes = f"{pair}: " if covers_all else ""
    details = f"p {_p_relation(row['p_holm'])} after Holm; {comparison_method(row)}"
    return f"{claim} ({extremes}{details}). {remedy}"


def _joint_interval(row: Row, n_tested: int) -> tuple[float, float]:
    """Return the interval of a pair's ratio that holds for all pairs tested together."""
    freedom = row["degrees_of_freedom"]
    widening = t_isf(0.025 / max(n_tested, 1), freedom) / t_isf(0.025, freedom)
    center = math.log(row["ratio"])
    half_width = widening * (math.log(row["ci95_high"]) - center)
    return math.exp(center - half_width), math.exp(center + half_width)


def one_order_note(
    runs: Iterable[Row], used: Mapping[str, Sequence[Row]], pairs: Pairs
) -> list[str]:
    """Return that all cycles ran in one order, if experiments were compared within cycles.

    Args:
        runs: every planned run of the study.
        used: the runs in the mean of each experiment.
        pairs: the compared pairs.
    """
    started_runs = [run for run in runs if run["status"] == "completed"]
    is_one_order = has_one_order(make_blocks(used, started_runs, lambda _: 1.0))
    return [ONE_ORDER] if is_one_order and pairs.any_paired else []


def label_text(row: Row) -> str:
    """Return an experiment's name in a sentence."""
    return plain(row["label"], 90)


def labels_text(experiments: Sequence[Row]) -> str:
    """Return experiments' names in a sentence: the first ones, and how many more there are."""
    rest = len(experiments) - LISTED_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return f"{'; '.join(map(label_text, experiments[:LISTED_NAMES]))}{more}"


def _p_relation(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def saturation_note(best: Row, runs: Sequence[Row]) -> list[str]:
    """Return in how many runs of its mean the best could not keep up with its load."""
    used = used_runs(runs).get(best["experiment"], ())
    n_late = sum("over_saturated" in (run["validity"] or ()) for run in used)
    if not n_late:
        return []
    return [
        f"With {label_text(best)} requests came faster than they were answered in {n_late} of "
        f"{count_text(len(used), 'run')} (over_saturated): the longer that lasts, the longer they "
        "wait."
    ]


@dataclass(frozen=True)
class Relations:
    """The page's part on how experiments differ.

    Attributes:
        baseline: the pairs with the plan's first experiment that can be compared, as texts.
        pairs: all pairs, the most significant first, as texts.
        pairs_total: how many there are.
        baseline_total: how many pairs there are with that experiment.
        levels: the table of settings' values against their first.
        levels_total: how many of them there are.
        fronts: who is best for energy and one other objective, as sentences.
        few_cycles: whether some experiment has fewer than settings are judged by alone.
        unpaired: whether cycles of some pair were not blocks in time.
        verdicts: what the pairs show.
    """

    baseline: list[dict[str, str]]
    pairs: list[dict[str, str]]
    pairs_total: int
    baseline_total: int
    levels: list[dict[str, str]]
    levels_total: int
    fronts: list[str]
    few_cycles: bool
    unpaired: bool
    verdicts: Pairs


def relations_content(study_dir: Path, summary: Sequence[Row]) -> Relations:
    """Return the page's part on how experiments differ.

    Args:
        study_dir: the study's results.
        summary: one row an experiment.

    Raises:
        ResultsError: a table is absent or damaged.
    """
    names = ("comparisons", "levels", "pareto")
    tables = {name: read_table(study_dir, f"{name}.parquet").to_pylist() for name in names}
    pairs = [row for row in tables["comparisons"] if row["metric"] == ENERGY]
    compared = [row for row in pairs if row["ratio"] is not None] or pairs
    first = compared[0]["experiment_a"] if compared else None
    baseline = [row for row in pairs if row["experiment_a"] == first]
    pairs.sort(key=lambda row: (row["p_holm"] is None, row["p_holm"] or 0.0, row["ratio"] or 0.0))
    levels = [row for row in tables["levels"] if row["metric"] == ENERGY]
    if all(row["ratio"] is None for row in levels):
        levels = []  # nothing to compare: the reasons are given with the runs that are left out
    rows_by_id = {row["experiment"]: row for row in summary}
    return Relations(
        baseline=[_pair_texts(row, rows_by_id) for row in baseline[:LISTED_PAIRS]],
        pairs=[_pair_texts(row, rows_by_id) for row in pairs[:LISTED_PAIRS]],
        pairs_total=len(pairs),
        baseline_total=len(baseline),
        levels=[_level_texts(row) for row in levels[:LISTED_LEVELS]],
        levels_total=len(levels),
        fronts=_fronts(tables["pareto"], summary),
        few_cycles=min((row["n"] for row in summary if row["n"]), default=0) < MIN_CYCLES,
        unpaired=any(row["method"] == "unpaired" for row in pairs),
        verdicts=Pairs(pairs),
    )


def _pair_texts(row: Row, rows_by_id: Mapping[str, Row]) -> dict[str, str]:
    pair = rows_by_id[row["experiment_b"]], rows_by_id[row["experiment_a"]]  # as in the table
    differs = join_words([difference(name, *pair) for name in row["differs"] or []])
    reason = row["unavailable"] if row["method"] != "paired" or row["p_holm"] is None else None
    return {
        "a": plain(row["label_a"], 80),
        "b": plain(row["label_b"], 80),
        "change": NO_VALUE if row["ratio"] is None else change(row["ratio"]),
        "interval": _interval_text(row),
        "p": p_value(row["p_holm"]),
        "verdict": verdict(row),
        "how": comparison_method(row),
        "note": plain(
            "; ".join(filter(None, (sensor_warning(row, row["ratio"]), differs, reason))), 240
        ),
    }


def _level_texts(row: Row) -> dict[str, str]:
    return {
        "factor": plain(row["factor"], 60),
        "level": plain(row["level"], 60),
        "reference": plain(row["reference"], 60),
        "change": NO_VALUE if row["ratio"] is None else change(row["ratio"]),
        "interval": _interval_text(row),
        "p": p_value(row["p_holm"]),
        "note": plain(row["unavailable"] or "", 160),
    }


def _interval_text(row: Row) -> str:
    return NO_VALUE if row["ci95_low"] is None else change_range(row["ci95_low"], row["ci95_high"])


def _fronts(pareto: Sequence[Row], summary: Sequence[Row]) -> list[str]:
    sentences = []
    models = {row["model"] for row in summary}
    for objective, words in _OBJECTIVES.items():
        rows = [row for row in pareto if row["objective"] == objective]
        compared = [row for row in rows if row["on_front"] is not None]
        best = [row for row in compared if row["on_front"]]
        if not best or len(compared) < 2:
            continue
        names = [_front_entry(row) for row in best[:8]]
        more = f" and {len(best) - 8} more" if len(best) > 8 else ""
        if objective == "perplexity" and len(models) > 1:
            words += " (of a token, which models of one tokenizer alone have in common)"
        sentences.append(f"Energy against {words}: {'; '.join(names)}{more}.")
    return sentences


def _front_entry(row: Row) -> str:
    name, share = plain(row["label"], 60), row["front_share"]
    return name if share is None else f"{name} ({percent(share)})"
