"""What the study found, in sentences: the least and the most energy, and whether it drifted."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from llenergymeasure.analysis.blocks import blocks
from llenergymeasure.analysis.drift import Drift, drift
from llenergymeasure.analysis.selection import in_means, meter_of, used_runs
from llenergymeasure.report.charts import STATES, OrderPoint
from llenergymeasure.report.wording import (
    Scale,
    counted,
    listed,
    percent,
    plain,
    rounded,
    rounded_range,
    scale_for,
)

Row: TypeAlias = Mapping[str, Any]
TOKEN = "energy_per_output_token_j"
WIDE_REL = 0.1
"""From this half width on, relative to the mean, the page says that runs are too few."""
KIND_RANK = {"measured": 0, "estimated": 1}


def ranked(summary: Sequence[Row]) -> list[Row]:
    """Return experiments by energy per output token, measured ones first, unknown ones last."""
    return sorted(
        summary,
        key=lambda row: (
            row[f"{TOKEN}_mean"] is None,
            KIND_RANK.get(row["kind"] or "", 2),
            row[f"{TOKEN}_mean"] or 0.0,
        ),
    )


def runs_in_means(summary: Sequence[Row], runs: Iterable[Row]) -> list[Row]:
    """Return the runs that the means of ``summary`` are over."""
    known = {row["experiment"] for row in summary}
    used = used_runs(run for run in runs if run["experiment"] in known)
    return [run for members in used.values() for run in members]


def headline(summary: Sequence[Row], runs: Sequence[Row], apart: Collection[str] = ()) -> list[str]:
    """Return the study's finding in a few sentences, each with its interval.

    Args:
        summary: the experiments, ranked.
        runs: every planned run.
        apart: experiments that a paired comparison tells from the best.
    """
    told = [row for row in summary if row[f"{TOKEN}_mean"] is not None]
    if not told:
        return [_no_energy(runs)]
    kind = told[0]["kind"]
    peers = [row for row in told if row["kind"] == kind]
    scale = scale_for((row[f"{TOKEN}_mean"] for row in peers), "J")
    verb = "is estimated to use" if kind == "estimated" else "used"
    best, worst = peers[0], peers[-1]
    if len(peers) == 1:
        sentences = [f"{_name(best)} {verb} {_quantity(best, scale)} per output token."]
    else:
        ratio = worst[f"{TOKEN}_mean"] / best[f"{TOKEN}_mean"]
        sentences = [
            f"Least energy: {_name(best)} {verb} {_quantity(best, scale)} per output token.",
            f"Most: {_name(worst)} with {_quantity(worst, scale)}, {ratio:.2g} times as much.",
            *_undecided(peers, apart),
        ]
    sentences += _imprecise(best)
    bands = [row["energy_u_sys_rel"] for row in peers if row["energy_u_sys_rel"]]
    if bands:
        sentences.append(
            f"Beside these intervals, the sensor's gain may shift all values together by "
            f"±{percent(max(bands))}."
        )
    others = len(told) - len(peers)
    if others:
        sentences.append(
            f"{counted(others, 'experiment')} with estimated energy "
            f"{'is' if others == 1 else 'are'} not ranked against measured ones."
        )
    return sentences


def _no_energy(runs: Sequence[Row]) -> str:
    completed = [run for run in runs if run["status"] == "completed"]
    if not completed:
        return "No run completed: there is no energy to report."
    reasons = [
        plain(run["energy_unavailable"], 200) for run in completed if run["energy_unavailable"]
    ]
    if reasons:
        return f"No energy was observed: {reasons[0]}. Speeds are in the table."
    if not any(in_means(run) for run in completed):
        return "Every completed run was disqualified: there is no mean to report."
    return "No energy was observed. Speeds are in the table."


def _name(row: Row) -> str:
    return plain(row["label"], 90)


def _quantity(row: Row, scale: Scale) -> str:
    mean = row[f"{TOKEN}_mean"]
    low, high = row[f"{TOKEN}_ci95_low"], row[f"{TOKEN}_ci95_high"]
    if low is None or high is None:
        own = row["energy_u95_rel"]
        doubt = "" if own is None else f"; the meter alone ±{percent(own)}"
        return f"{rounded(scale(mean))} {scale.unit} (one run, no interval{doubt})"
    shown = rounded(scale(mean), scale((high - low) / 2))
    reach = rounded_range(scale(low), scale(high))
    return f"{shown} {scale.unit} (95 % interval {reach}, n = {row['n']})"


def _imprecise(best: Row) -> list[str]:
    """Return a sentence where the interval is too wide to build on."""
    mean, high = best[f"{TOKEN}_mean"], best[f"{TOKEN}_ci95_high"]
    if high is None or high - mean <= WIDE_REL * mean:
        return []
    share = percent((high - mean) / mean)
    return [f"At ±{share} the interval is wide: more cycles (execution.n_cycles) would narrow it."]


def _undecided(peers: Sequence[Row], apart: Collection[str]) -> list[str]:
    """Return a sentence where neither intervals nor pairs part the best from the next."""
    best_high = peers[0][f"{TOKEN}_ci95_high"]
    if best_high is None or any(row[f"{TOKEN}_ci95_low"] is None for row in peers):
        return ["With single runs among them, the ranking may be chance."]
    close = [
        row
        for row in peers[1:]
        if row[f"{TOKEN}_ci95_low"] <= best_high and row["experiment"] not in apart
    ]
    if not close:
        return []
    names = listed([_name(row) for row in close[:3]])
    more = f" and {len(close) - 3} more" if len(close) > 3 else ""
    return [f"Its interval overlaps that of {names}{more}: which of them is least is open."]


def order_points(summary: Sequence[Row], runs: Sequence[Row]) -> list[OrderPoint]:
    """Return each run against its experiment's mean, by the order in which runs began."""
    means = {row["experiment"]: row for row in summary}
    points = []
    for position, run in enumerate(_by_start(runs), start=1):
        row = means[run["experiment"]]
        mean = row[f"{TOKEN}_mean"]
        if row["n"] < 2 or not mean or run[TOKEN] is None or meter_of(run) != meter_of(row):
            continue
        state = STATES[2] if not in_means(run) else STATES[1] if run["validity"] else STATES[0]
        points.append(OrderPoint(position, run[TOKEN] / mean - 1, state))
    return points


def order_trend(summary: Sequence[Row], runs: Sequence[Row]) -> Drift | None:
    """Return the trend of energy along the order, over the runs in the means."""
    known = {row["experiment"] for row in summary}
    used = used_runs(run for run in runs if run["experiment"] in known)
    return drift(blocks(used, _by_start(runs), TOKEN))


def _by_start(runs: Sequence[Row]) -> list[Row]:
    completed = [run for run in runs if run["status"] == "completed"]
    return sorted(completed, key=lambda run: (run["started_at"] or "", run["order"]))


def trend_sentence(trend: Drift | None) -> str:
    """Return what the trend along the order says."""
    if trend is None:
        return (
            "Whether energy drifted over the study cannot be told: that takes repeats whose order "
            "differs from cycle to cycle."
        )
    low, high = percent(trend.ci95_low), percent(trend.ci95_high)
    size = f"{percent(trend.per_run)} a run (95 % interval {low} to {high}, {trend.runs} runs)"
    if trend.detected:
        return (
            f"Energy drifted with the order: {size}. Compare experiments only as far as their "
            "runs were mixed in time."
        )
    return f"No drift with the order shows: {size}."
