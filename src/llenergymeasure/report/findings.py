"""What the study found, in sentences: the least and the most energy, and whether it drifted.

Only experiments of one comparable group are ranked, and only where their pairs show a difference.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from llenergymeasure.analysis.blocks import Drift, blocks, drift
from llenergymeasure.analysis.selection import Row, by_start, in_means, kind_rank, meter_of
from llenergymeasure.analysis.summary import knows_ends
from llenergymeasure.report.charts import STATES
from llenergymeasure.report.formatting import (
    Scale,
    counted,
    listed,
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
    name_of,
    names_of,
    saturated,
)
from llenergymeasure.units import percent

Used: TypeAlias = Mapping[str, Sequence[Row]]
TOKEN = "energy_per_output_token_j"  # noqa: S105 - of text
WIDE_REL = 0.1
"""If an interval reaches this far above the mean, the page says that there are too few runs."""
_PARTLY_SEEN = {"counter_unverified", "undersampled"}
UNSEEN_COLUMNS = frozenset(
    {
        *("status", "validity", "energy_gross_j", "energy_u95_j", "energy_bound_j"),
        *("offered_requests_per_s", "output_tokens_came", "requests_worked"),
        *("energy_method", "kind"),
    }
)
"""The columns of a run that :func:`unseen` reads."""
_LEAST_UNSEEN = 0.02
"""A bound that is less beyond the interval is that of a sensor which another one watches, or of
the window's ends: two channels of one card may differ by as much."""
LEAST_SHARED = 0.001
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
            row[f"{TOKEN}_mean"] is None,
            kind_rank(row["kind"]),
            row["comparison_group"] or 0,
            row[f"{TOKEN}_mean"] or 0.0,
        ),
    )


def comparable_groups(summary: Sequence[Row]) -> list[list[Row]]:
    """Return the ranked experiments that have a mean, group by group.

    Args:
        summary: the experiments, ranked.
    """
    told = [row for row in summary if row[f"{TOKEN}_mean"] is not None]
    return [list(members) for _, members in groupby(told, lambda row: row["comparison_group"])]


def drawn_together(summary: Sequence[Row]) -> list[Row]:
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
    told = [row for group in groups for row in group]
    scale = scale_for((row[f"{TOKEN}_mean"] for row in told), "J")
    shown = groups[:SHOWN_GROUPS]
    sentences = [line for group in shown for line in finding(group, pairs, scale, with_rate)]
    sentences += not_ranked(row for group in groups[1:] for row in group)
    sentences += without_mean(summary)
    sentences += precision_missed(told)
    shared = max(row["energy_shared_u95_rel"] or 0.0 for row in told)
    if shared >= LEAST_SHARED:
        left_open = (
            "What a sensor does not see, smears over a window's ends or counts late, or two "
            "channels disagree about, may"
        )
        shrinks = "no cycles shrink it; longer windows shrink what is smeared or late"
        if not all(knows_ends(run) for run in runs if in_means(run)):
            left_open = (
                "Records of an earlier energy method do not say which part of their intervals "
                "repeats share: what a sensor leaves open may"
            )
            shrinks = "it is taken as if no cycles shrank it"
        sentences.append(
            f"{left_open} move each value by up to ±{percent(shared)}; it is in no interval of "
            f"a mean nor of a difference, and {shrinks}."
        )
    sentences += unseen(runs)
    bands = [row["energy_u_sys_rel"] for row in told if row["energy_u_sys_rel"]]
    if bands:
        cards = {(run["host"], run["gpu_uuid"]) for run in runs if in_means(run)}
        one = len(groups) == 1 and len(cards) < 2
        which = "all values" if one else "all values of one meter and card"
        sentences.append(
            f"The sensor's gain may shift {which} together by ±{percent(max(bands))}, which is in "
            "no interval."
        )
    return sentences


def unseen(runs: Sequence[Row]) -> list[str]:
    """Return which errors no interval includes, if there are any.

    Of sensors that may not see all of the time: readings that a load repeats in step with are
    even, and show nothing of what they miss. Of versions: what they compute or count otherwise.
    """
    used = [run for run in runs if in_means(run) and run["energy_gross_j"]]
    return [*_partly_seen(used), *_computed_otherwise(used), *_counted_otherwise(used)]


def _computed_otherwise(used: Sequence[Row]) -> list[str]:
    """Return the meter's methods that energies were computed with, if there are several."""
    methods = sorted(
        {run.get("energy_method") or 0 for run in used if run.get("kind") != "estimated"},
        key=lambda each: (not each, each),
    )
    if len(methods) < 2:
        return []
    named = [str(method) if method else "one that records do not name" for method in methods]
    return [
        f"Energies were computed by unlike methods of the meter, {listed(named)}: they may differ "
        "by more than an interval says."
    ]


def _counted_otherwise(used: Sequence[Row]) -> list[str]:
    """Return that some runs under traffic count what ended or came, others what was worked."""
    served = [run for run in used if run.get("offered_requests_per_s") is not None]
    ways = Counter(
        tuple(run.get(name) is None for name in ("output_tokens_came", "requests_worked"))
        for run in served
    )
    if len(ways) < 2:
        return []
    latest = ways[min(ways)]
    return [
        f"{len(served) - latest} of {counted(len(served), 'run')} under traffic are of an earlier "
        "version and count the tokens that came in the window, or the requests that ended in it, "
        "the others the work in it: energy, carbon and cost of a token or a request and "
        "tokens and requests per second may differ by that alone, which is in no interval and no "
        "verdict."
    ]


def _partly_seen(used: Sequence[Row]) -> list[str]:
    doubted = [run for run in used if _PARTLY_SEEN & set(run["validity"] or ()) and _open(run)]
    if not doubted:
        return []
    bounds_j = [(run.get("energy_bound_j"), run["energy_gross_j"]) for run in doubted]
    shares = [bound_j / gross_j for bound_j, gross_j in bounds_j if bound_j is not None]
    most = f"up to ±{percent(max(shares))}" if shares else ""
    if len(shares) < len(doubted):
        most += f"{', or ' if shares else ''}an amount that some records do not hold"
    where = "the one run" if len(used) == 1 else f"{len(doubted):,} of {len(used):,} runs"
    return [
        f"In {where} nothing shows that the sensor saw all "
        "of the time: of a load that repeats in step with its readings the energy may be off by "
        f"{most}, which is in no interval and no verdict."
    ]


def _open(run: Row) -> bool:
    """Return whether a run's bound is clearly beyond its interval, or is not known."""
    bound_j = run.get("energy_bound_j")
    beyond_j = None if bound_j is None else bound_j - (run.get("energy_u95_j") or 0.0)
    return beyond_j is None or beyond_j > _LEAST_UNSEEN * run["energy_gross_j"]


def finding(group: Sequence[Row], pairs: Pairs, scale: Scale, runs: Sequence[Row]) -> list[str]:
    """Return what the experiments of one comparable group show.

    Args:
        group: the experiments by their means, least first.
        pairs: the compared pairs, on energy per output token.
        scale: the unit of the energies, one for all groups.
        runs: those that had a rate to keep up with.
    """
    best = group[0]
    ranked = [row for row in group if pairs.barred(best, row) is None]
    return [
        *_ranking(ranked, pairs, scale),
        *saturated(best, runs),
        *other_work(group, pairs),
        *imprecise(best),
    ]


def _ranking(group: Sequence[Row], pairs: Pairs, scale: Scale) -> list[str]:
    best, worst = group[0], group[-1]
    verb = "is estimated to use" if best["kind"] == "estimated" else "used"
    if len(group) == 1:
        return [f"{name_of(best)} {verb} {_quantity(best, scale)} per output token."]
    difference = difference_sentence(pairs, best, worst)
    if difference is None:
        means = "Estimated means" if best["kind"] == "estimated" else "Means"
        return [
            f"{means} of energy per output token lie between {_quantity(best, scale)} with "
            f"{name_of(best)} and {_quantity(worst, scale)} with {name_of(worst)}.",
            inconclusive_sentence(pairs, group),
        ]
    return [
        f"Least energy: {name_of(best)} {verb} {_quantity(best, scale)} per output token.",
        f"Most: {name_of(worst)} with {_quantity(worst, scale)}.",
        difference,
        *undecided(group, pairs),
    ]


def other_work(group: Sequence[Row], pairs: Pairs) -> list[str]:
    """Return for how many experiments of other backends other work was planned than the best's."""
    reasons = [pairs.barred(group[0], row) for row in group]
    found = list(filter(None, reasons))
    if not found:
        return []
    number, verb = counted(len(found), "experiment"), "is" if len(found) == 1 else "are"
    return [f"{number} {verb} not compared with {name_of(group[0])}: {plain(found[0], 200)}."]


def not_ranked(summary: Iterable[Row]) -> list[str]:
    """Return which experiments are not ranked with the first group's, by reason."""
    apart: dict[str, list[Row]] = {}
    for row in (row for row in summary if row["not_comparable"]):
        apart.setdefault(row["not_comparable"], []).append(row)
    said = [
        f"{names_of(rows)} {'is' if len(rows) == 1 else 'are'} not ranked with the rest: "
        f"{plain(reason, 200)}."
        for reason, rows in apart.items()
    ]
    rest = len(said) - LISTED_REASONS
    more = [f"Nor are others; further reasons: {rest}."] if rest > 0 else []
    return said[:LISTED_REASONS] + more


def without_mean(summary: Iterable[Row]) -> list[str]:
    """Return which experiments have no mean of energy per output token, and why."""
    missing = [row for row in summary if row[f"{TOKEN}_mean"] is None]
    reasons = {
        "not every run of theirs has energy per output token": [row for row in missing if row["n"]],
        "no run of theirs counts": [row for row in missing if not row["n"]],
    }
    return [
        f"Not ranked, as {reason}: {names_of(rows)}." for reason, rows in reasons.items() if rows
    ]


def precision_missed(summary: Iterable[Row]) -> list[str]:
    """Return which experiments did not reach the precision that the study asks for."""
    asked = [row for row in summary if row["precision_target"] is not None]
    missed = [row for row in asked if not row["precision_reached"]]
    if not missed:
        return []
    target = percent(asked[0]["precision_target"])
    return [
        f"The precision asked for, ±{target} of energy per output token, is not reached by "
        f"{len(missed)} of {counted(len(asked), 'experiment')}."
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
    reasons = [
        plain(run["energy_unavailable"], 200) for run in completed if run["energy_unavailable"]
    ]
    if reasons:
        return f"No energy was observed: {reasons[0]}. Speeds are in the table."
    if not any(in_means(run) for run in completed):
        return "Every completed run was disqualified: there is no mean to report."
    return "No energy was observed. Speeds are in the table."


def _completed(runs: Sequence[Row]) -> list[Row]:
    return [run for run in runs if run["status"] == "completed"]


def _quantity(row: Row, scale: Scale) -> str:
    mean, low, high = scale.of(row, TOKEN)
    if low is None or high is None:
        own = row["energy_u95_rel"]
        doubt = "" if own is None else f"; the meter alone ±{percent(own)}"
        return f"{rounded(mean)} {scale.unit} (one run, no interval{doubt})"
    reach = rounded_range(low, high)
    return f"{mean_text(mean, low, high)} {scale.unit} (95 % interval {reach}, n = {row['n']})"


def imprecise(best: Row) -> list[str]:
    """Return a sentence if the interval is too wide to be of use; its upper side is the wider."""
    mean, high = best[f"{TOKEN}_mean"], best[f"{TOKEN}_ci95_high"]
    if high is None or high - mean <= WIDE_REL * mean:
        return []
    share = percent((high - mean) / mean)
    return [
        f"The interval is wide, it reaches {share} above the mean: more cycles "
        "(execution.n_cycles) would narrow it."
    ]


def undecided(group: Sequence[Row], pairs: Pairs) -> list[str]:
    """Return the experiments that are not shown to use more than the best."""
    close = [row for row in group[1:] if not pairs.less(group[0], row)]
    if not close:
        return []
    which = "Which uses the least is inconclusive."
    return [f"Not shown to use more than it: {names_of(close)}. {which}"]


def order_points(summary: Sequence[Row], runs: Sequence[Row], used: Used) -> list[Row]:
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
        mean = row[f"{TOKEN}_mean"]
        if row["n"] < 2 or not mean or run[TOKEN] is None or meter_of(run) != meter_of(row):
            continue
        is_used = any(run is each for each in used[run["experiment"]])
        state = STATES[2] if not is_used else STATES[1] if run["validity"] else STATES[0]
        deviation = 100 * (run[TOKEN] / mean - 1)
        points.append({"position": position, "deviation": deviation, "state": state})
    return points


def order_trend(runs: Sequence[Row], used: Used) -> Drift | None:
    """Return the trend of energy along the order, over the runs in the means."""
    return drift(blocks(used, _completed(runs), itemgetter(TOKEN)))


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
