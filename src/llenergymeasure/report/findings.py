"""What the study found, in sentences: the least and the most energy, and whether it drifted.

Only experiments of one comparable group are ranked, and only where their pairs show a difference.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from llenergymeasure.analysis.blocks import Drift, drift, make_blocks
from llenergymeasure.analysis.selection import Row, by_start, in_means, kind_rank, run_meter
from llenergymeasure.analysis.summary import records_window_ends
from llenergymeasure.report.charts import FLAGGED, IN_MEANS, LEFT_OUT
from llenergymeasure.report.formatting import (
    Scale,
    count_text,
    join_words,
    mean_text,
    plain,
    rounded,
    rounded_range,
    scale_for,
)
from llenergymeasure.report.relations import (
    Pairs,
    difference_sentence,
    inconclusive_sentence,
    label_text,
    labels_text,
    saturation_note,
)
from llenergymeasure.units import percent

UsedRuns: TypeAlias = Mapping[str, Sequence[Row]]
ENERGY_PER_TOKEN = "energy_per_output_token_j"  # noqa: S105 - of text
WIDE_REL = 0.1
"""If an interval reaches this far above the mean, the page says that there are too few runs."""
_COVERAGE_CODES = {"counter_unverified", "undersampled"}
CAVEAT_COLUMNS = frozenset(
    {
        *("status", "validity", "energy_gross_j", "energy_u95_j", "energy_bound_j"),
        *("offered_requests_per_s", "output_tokens_came", "requests_worked"),
        *("energy_method", "kind"),
    }
)
"""The columns of a run that :func:`interval_caveats` reads."""
_MIN_UNSEEN_REL = 0.02
"""A bound that is less beyond the interval is that of a sensor which another one watches, or of
the window's ends: two channels of one card may differ by as much."""
MIN_SHARED_REL = 0.001
"""Below this share of the energy, what repeats share apart from the gain is not mentioned."""
SHOWN_GROUPS = 3
LISTED_REASONS = 3


def ranked(summary: Sequence[Row]) -> list[Row]:
    """Return experiments by energy per output token, each comparable group by itself.

    Measured groups come first, experiments without a mean last.
    """
    return sorted(
        summary,
        key=lambda row: (
            row[f"{ENERGY_PER_TOKEN}_mean"] is None,
            kind_rank(row["kind"]),
            row["comparison_group"] or 0,
            row[f"{ENERGY_PER_TOKEN}_mean"] or 0.0,
        ),
    )


def comparable_groups(summary: Sequence[Row]) -> list[list[Row]]:
    """Return the ranked experiments that have a mean, group by group.

    Args:
        summary: the experiments, ranked.
    """
    rows = [row for row in summary if row[f"{ENERGY_PER_TOKEN}_mean"] is not None]
    return [list(members) for _, members in groupby(rows, itemgetter("comparison_group"))]


def comparable_experiments(summary: Sequence[Row]) -> list[Row]:
    """Return the experiments that may be on one axis: those of the first group."""
    groups = comparable_groups(summary)
    return groups[0] if groups else list(summary)


def headline(
    summary: Sequence[Row], runs: Sequence[Row], pairs: Pairs, ramps: Collection[str] = ()
) -> list[str]:
    """Return the study's finding in a few sentences.

    Args:
        summary: the experiments, ranked.
        runs: every planned run.
        pairs: the compared pairs, on energy per output token.
        ramps: experiments whose rate rises within the window: they have no rate to keep up with.
    """
    with_rate = [run for run in runs if run["experiment"] not in ramps]
    groups = comparable_groups(summary)
    if not groups:
        return [_no_energy(runs)]
    rows = [row for group in groups for row in group]
    scale = scale_for((row[f"{ENERGY_PER_TOKEN}_mean"] for row in rows), "J")
    sentences = []
    for group in groups[:SHOWN_GROUPS]:
        sentences += group_notes(group, pairs, scale, with_rate)
    sentences += not_ranked_notes(row for group in groups[1:] for row in group)
    sentences += no_mean_notes(summary)
    sentences += missed_precision_note(rows)
    shared = max(row["energy_shared_u95_rel"] or 0.0 for row in rows)
    if shared >= MIN_SHARED_REL:
        claim = (
            "What a sensor does not see, smears over a window's ends or counts late, or two "
            "channels disagree about, may"
        )
        remedy = "no cycles shrink it; longer windows shrink what is smeared or late"
        if not all(records_window_ends(run) for run in runs if in_means(run)):
            claim = (
                "Records of an earlier energy method do not say which part of their intervals "
                "repeats share: what a sensor leaves open may"
            )
            remedy = "it is taken as if no cycles shrank it"
        sentences.append(
            f"{claim} move each value by up to ±{percent(shared)}; it is in no interval of "
            f"a mean nor of a difference, and {remedy}."
        )
    sentences += interval_caveats(runs)
    bands = [row["energy_u_sys_rel"] for row in rows if row["energy_u_sys_rel"]]
    if bands:
        cards = {(run["host"], run["gpu_uuid"]) for run in runs if in_means(run)}
        one_card = len(groups) == 1 and len(cards) < 2
        values = "all values" if one_card else "all values of one meter and card"
        sentences.append(
            f"The sensor's gain may shift {values} together by ±{percent(max(bands))}, which is in "
            "no interval."
        )
    return sentences


def interval_caveats(runs: Sequence[Row]) -> list[str]:
    """Return which errors no interval includes, if there are any.

    Of sensors that may not see all of the time: readings that a load repeats in step with are
    even, and show nothing of what they miss. Of versions: what they compute or count otherwise.
    """
    used = [run for run in runs if in_means(run) and run["energy_gross_j"]]
    return [*_coverage_caveat(used), *_method_caveat(used), *_counting_caveat(used)]


def _method_caveat(used: Sequence[Row]) -> list[str]:
    """Return the meter's methods that energies were computed with, if there are several."""
    methods = {run.get("energy_method") or 0 for run in used if run.get("kind") != "estimated"}
    if len(methods) < 2:
        return []
    names = [*map(str, sorted(methods - {0}))]
    if 0 in methods:
        names.append("one that records do not name")
    return [
        f"Energies were computed by unlike methods of the meter, {join_words(names)}: "
        "they may differ by more than an interval says."
    ]


def _counting_caveat(used: Sequence[Row]) -> list[str]:
    """Return that some runs under traffic count what ended or came, others what was worked."""
    counts = Counter(
        (run.get("output_tokens_came") is None, run.get("requests_worked") is None)
        for run in used
        if run.get("offered_requests_per_s") is not None
    )
    if len(counts) < 2:
        return []
    total, n_latest = counts.total(), counts[min(counts)]
    return [
        f"{total - n_latest} of {count_text(total, 'run')} under traffic are of an earlier "
        "version and count the tokens that came in the window, or the requests that ended in it, "
        "the others the work in it: energy, carbon and cost of a token or a request and "
        "tokens and requests per second may differ by that alone, which is in no interval and no "
        "verdict."
    ]


def _coverage_caveat(used: Sequence[Row]) -> list[str]:
    open_runs = [run for run in used if _may_miss_energy(run)]
    if not open_runs:
        return []
    bounds_j = [(run.get("energy_bound_j"), run["energy_gross_j"]) for run in open_runs]
    shares = [bound_j / gross_j for bound_j, gross_j in bounds_j if bound_j is not None]
    amount = f"up to ±{percent(max(shares))}" if shares else ""
    if len(shares) < len(open_runs):
        amount += f"{', or ' if shares else ''}an amount that some records do not hold"
    where = "the one run" if len(used) == 1 else f"{len(open_runs):,} of {len(used):,} runs"
    return [
        f"In {where} nothing shows that the sensor saw all "
        "of the time: of a load that repeats in step with its readings the energy may be off by "
        f"{amount}, which is in no interval and no verdict."
    ]


def _may_miss_energy(run: Row) -> bool:
    """Return whether an unwatched run's bound is clearly beyond its interval, or is not known."""
    if _COVERAGE_CODES.isdisjoint(run["validity"] or ()):
        return False
    bound_j, u95_j = run.get("energy_bound_j"), run.get("energy_u95_j") or 0.0
    return bound_j is None or bool(bound_j - u95_j > _MIN_UNSEEN_REL * run["energy_gross_j"])


def group_notes(group: Sequence[Row], pairs: Pairs, scale: Scale, runs: Sequence[Row]) -> list[str]:
    """Return what the experiments of one comparable group show.

    Args:
        group: the experiments by their means, least first.
        pairs: the compared pairs, on energy per output token.
        scale: the unit of the energies, one for all groups.
        runs: those that had a rate to keep up with.
    """
    best = group[0]
    comparable_rows = [row for row in group if pairs.incomparable_reason(best, row) is None]
    return [
        *_ranking(comparable_rows, pairs, scale),
        *saturation_note(best, runs),
        *other_work_note(group, pairs),
        *wide_interval_note(best),
    ]


def _ranking(group: Sequence[Row], pairs: Pairs, scale: Scale) -> list[str]:
    best, worst = group[0], group[-1]
    verb = "is estimated to use" if best["kind"] == "estimated" else "used"
    if len(group) == 1:
        return [f"{label_text(best)} {verb} {_energy_text(best, scale)} per output token."]
    difference = difference_sentence(pairs, best, worst)
    if difference is None:
        means = "Estimated means" if best["kind"] == "estimated" else "Means"
        return [
            f"{means} of energy per output token lie between {_energy_text(best, scale)} with "
            f"{label_text(best)} and {_energy_text(worst, scale)} with {label_text(worst)}.",
            inconclusive_sentence(pairs, group),
        ]
    return [
        f"Least energy: {label_text(best)} {verb} {_energy_text(best, scale)} per output token.",
        f"Most: {label_text(worst)} with {_energy_text(worst, scale)}.",
        difference,
        *undecided_note(group, pairs),
    ]


def other_work_note(group: Sequence[Row], pairs: Pairs) -> list[str]:
    """Return for how many experiments of other backends other work was planned than the best's."""
    best = group[0]
    reasons = [reason for row in group if (reason := pairs.incomparable_reason(best, row))]
    if not reasons:
        return []
    number, verb = count_text(len(reasons), "experiment"), "is" if len(reasons) == 1 else "are"
    return [f"{number} {verb} not compared with {label_text(best)}: {plain(reasons[0], 200)}."]


def not_ranked_notes(summary: Iterable[Row]) -> list[str]:
    """Return which experiments are not ranked with the first group's, by reason."""
    rows_by_reason: dict[str, list[Row]] = {}
    for row in summary:
        if row["not_comparable"]:
            rows_by_reason.setdefault(row["not_comparable"], []).append(row)
    sentences = [
        f"{labels_text(rows)} {'is' if len(rows) == 1 else 'are'} not ranked with the rest: "
        f"{plain(reason, 200)}."
        for reason, rows in rows_by_reason.items()
    ]
    rest = len(sentences) - LISTED_REASONS
    more = [f"Nor are others; further reasons: {rest}."] if rest > 0 else []
    return sentences[:LISTED_REASONS] + more


def no_mean_notes(summary: Iterable[Row]) -> list[str]:
    """Return which experiments have no mean of energy per output token, and why."""
    missing = [row for row in summary if row[f"{ENERGY_PER_TOKEN}_mean"] is None]
    reasons = {
        "not every run of theirs has energy per output token": [row for row in missing if row["n"]],
        "no run of theirs counts": [row for row in missing if not row["n"]],
    }
    return [
        f"Not ranked, as {reason}: {labels_text(rows)}." for reason, rows in reasons.items() if rows
    ]


def missed_precision_note(summary: Iterable[Row]) -> list[str]:
    """Return which experiments did not reach the precision that the study asks for."""
    rows_with_target = [row for row in summary if row["precision_target"] is not None]
    missed = [row for row in rows_with_target if not row["precision_reached"]]
    if not missed:
        return []
    target = percent(rows_with_target[0]["precision_target"])
    return [
        f"The precision asked for, ±{target} of energy per output token, is not reached by "
        f"{len(missed)} of {count_text(len(rows_with_target), 'experiment')}."
    ]


def _no_energy(runs: Sequence[Row]) -> str:
    completed = _completed(runs)
    if not completed:
        return "No run completed: there is no energy to report."
    if any(run["kind"] is not None for run in completed if in_means(run)):
        return (
            "Energy was observed, but no experiment has it per output token in every run. What "
            "there is stands in the table."
        )
    reasons = [run["energy_unavailable"] for run in completed if run["energy_unavailable"]]
    if reasons:
        return f"No energy was observed: {plain(reasons[0], 200)}. Speeds are in the table."
    if not any(in_means(run) for run in completed):
        return "Every completed run was disqualified: there is no mean to report."
    return "No energy was observed. Speeds are in the table."


def _completed(runs: Sequence[Row]) -> list[Row]:
    return [run for run in runs if run["status"] == "completed"]


def _energy_text(row: Row, scale: Scale) -> str:
    mean, low, high = scale.interval(row, ENERGY_PER_TOKEN)
    if low is None or high is None:
        meter_u95_rel = row["energy_u95_rel"]
        doubt = "" if meter_u95_rel is None else f"; the meter alone ±{percent(meter_u95_rel)}"
        return f"{rounded(mean)} {scale.unit} (one run, no interval{doubt})"
    interval = rounded_range(low, high)
    return f"{mean_text(mean, low, high)} {scale.unit} (95 % interval {interval}, n = {row['n']})"


def wide_interval_note(best: Row) -> list[str]:
    """Return a sentence if the interval is too wide to be of use; its upper side is the wider."""
    mean, high = best[f"{ENERGY_PER_TOKEN}_mean"], best[f"{ENERGY_PER_TOKEN}_ci95_high"]
    if high is None or high - mean <= WIDE_REL * mean:
        return []
    share = percent((high - mean) / mean)
    return [
        f"The interval is wide, it reaches {share} above the mean: more cycles "
        "(execution.n_cycles) would narrow it."
    ]


def undecided_note(group: Sequence[Row], pairs: Pairs) -> list[str]:
    """Return the experiments that are not shown to use more than the best."""
    close = [row for row in group[1:] if not pairs.shows_less(group[0], row)]
    if not close:
        return []
    which = "Which uses the least is inconclusive."
    return [f"Not shown to use more than it: {labels_text(close)}. {which}"]


def order_points(summary: Sequence[Row], runs: Sequence[Row], used: UsedRuns) -> list[Row]:
    """Return each run relative to its experiment's mean, in the order in which runs began.

    Args:
        summary: the experiments.
        runs: every planned run.
        used: the runs in the mean of each experiment.
    """
    means = {row["experiment"]: row for row in summary}
    points: list[Row] = []
    for position, run in enumerate(by_start(_completed(runs)), start=1):
        row = means[run["experiment"]]
        mean, energy_j = row[f"{ENERGY_PER_TOKEN}_mean"], run[ENERGY_PER_TOKEN]
        if row["n"] < 2 or not mean or energy_j is None or run_meter(run) != run_meter(row):
            continue
        is_used = any(run is used_run for used_run in used[run["experiment"]])
        state = LEFT_OUT if not is_used else FLAGGED if run["validity"] else IN_MEANS
        deviation = 100 * (energy_j / mean - 1)
        points.append({"position": position, "deviation": deviation, "state": state})
    return points


def order_trend(runs: Sequence[Row], used: UsedRuns) -> Drift | None:
    """Return the trend of energy along the order, over the runs in the means."""
    return drift(make_blocks(used, _completed(runs), itemgetter(ENERGY_PER_TOKEN)))


def trend_sentence(trend: Drift | None) -> str:
    """Return a sentence on the trend along the order."""
    if trend is None:
        return (
            "Whether energy drifted over the study is not known: that takes repeats whose order "
            "differs from cycle to cycle."
        )
    low, high = percent(trend.ci95_low), percent(trend.ci95_high)
    size = f"{percent(trend.per_run)} a run (95 % interval {low} to {high}, {trend.runs} runs)"
    if trend.detected and not trend.by_cycle:
        return (
            f"Energy drifted with the order: {size}; or cycles are merely like the ones before "
            "them, which looks the same where each holds one run."
        )
    if trend.detected:
        return (
            f"Energy drifted with the order: {size}. Compare experiments only as far as their "
            "runs were mixed in time."
        )
    return f"No drift with the order shows: {size}."
