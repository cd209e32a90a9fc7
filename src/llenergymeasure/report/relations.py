"""What relates experiments to each other, as the page tells it: pairs, settings, fronts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llenergymeasure.analysis.tables import read_table
from llenergymeasure.report.findings import TOKEN
from llenergymeasure.report.wording import NOTHING, listed, percent, plain

Row: TypeAlias = Mapping[str, Any]

LISTED_PAIRS = 30
LISTED_LEVELS = 60
ENOUGH = 0.05
"""Adjusted p below which a difference is told as one."""

_SPEED = "output_tokens_per_s"
_OBJECTIVES = {
    _SPEED: "throughput",
    "request_latency_p50_s": "median request latency",
    "request_latency_p95_s": "95th percentile of request latency",
    "time_to_first_token_p50_s": "median time to the first token",
    "peak_memory_bytes": "memory",
}


@dataclass(frozen=True)
class Relations:
    """The page's part on how experiments differ.

    Attributes:
        pairs: the table of pairs, the surest first, as texts.
        pairs_total: how many there are.
        levels: the table of settings' values against their first.
        terms: what share of the variation each setting explains, as sentences.
        fronts: who is best for energy and one other objective, as sentences.
        front: experiments on the front of energy against throughput.
        apart: experiments that differ from the best in energy, their interval excluding none.
        headline: how much less the best uses than the one that uses most; null if not compared.
    """

    pairs: list[dict[str, str]]
    pairs_total: int
    levels: list[dict[str, str]]
    terms: list[str]
    fronts: list[str]
    front: frozenset[str]
    apart: frozenset[str]
    headline: str | None


def relations_content(study_dir: Path, summary: Sequence[Row]) -> Relations:
    """Return the page's part on how experiments differ.

    Args:
        study_dir: the study's folder.
        summary: the experiments, ranked.

    Raises:
        ResultsError: a table is absent or damaged.
    """
    names = ("comparisons", "effects", "levels", "pareto")
    tables = {name: read_table(study_dir, f"{name}.parquet").to_pylist() for name in names}
    pairs = [row for row in tables["comparisons"] if row["metric"] == TOKEN and row["ratio"]]
    pairs.sort(key=lambda row: (row["p_holm"] is None, row["p_holm"] or 0.0, row["ratio"]))
    levels = [row for row in tables["levels"] if row["metric"] == TOKEN]
    peers = _peers(summary)
    return Relations(
        pairs=[_pair(row) for row in pairs[:LISTED_PAIRS]],
        pairs_total=len(pairs),
        levels=[_level(row) for row in levels[:LISTED_LEVELS]],
        terms=_terms(row for row in tables["effects"] if row["metric"] == TOKEN),
        fronts=_fronts(tables["pareto"]),
        front=frozenset(
            row["experiment"]
            for row in tables["pareto"]
            if row["objective"] == _SPEED and row["on_front"]
        ),
        apart=_apart(pairs, peers[0]) if peers else frozenset(),
        headline=difference_sentence(pairs, peers[0], peers[-1]) if len(peers) > 1 else None,
    )


def _peers(summary: Sequence[Row]) -> list[str]:
    """Return the experiments that are ranked against the best, itself first."""
    told = [row for row in summary if row[f"{TOKEN}_mean"] is not None]
    return [row["experiment"] for row in told if row["kind"] == told[0]["kind"]]


def _apart(pairs: Iterable[Row], best: str) -> frozenset[str]:
    sure = [
        row
        for row in pairs
        if row["ci95_low"] is not None and (row["ci95_low"] > 1 or row["ci95_high"] < 1)
    ]
    both = [(row["experiment_a"], row["experiment_b"]) for row in sure]
    return frozenset(b if a == best else a for a, b in both if best in (a, b))


def difference_sentence(comparisons: Iterable[Row], best: str, other: str) -> str | None:
    """Return how much less the best experiment uses than another; null if they were not compared.

    Args:
        comparisons: rows of ``comparisons.parquet`` on energy per output token.
        best: id of the one with the least energy.
        other: id of the other.
    """
    for row in comparisons:
        if row["ci95_low"] is None:
            continue
        if (row["experiment_a"], row["experiment_b"]) == (other, best):
            ratio, low, high = row["ratio"], row["ci95_low"], row["ci95_high"]
        elif (row["experiment_a"], row["experiment_b"]) == (best, other):
            ratio, low, high = 1 / row["ratio"], 1 / row["ci95_high"], 1 / row["ci95_low"]
        else:
            continue
        return (
            f"{_label(row, best)} uses {_change(ratio)} energy per output token "
            f"{_than(ratio)} {_label(row, other)} (95 % interval {_span(low, high)}, "
            f"{row['method']} over {row['n']} cycles)."
        )
    return None


def _label(row: Row, experiment: str) -> str:
    side = "a" if row["experiment_a"] == experiment else "b"
    return plain(row[f"label_{side}"], 90)


def _change(ratio: float) -> str:
    return f"{percent(abs(ratio - 1))} {'less' if ratio < 1 else 'more'}"


def _than(ratio: float) -> str:
    return "than" if ratio != 1 else "as"


def _span(low: float, high: float) -> str:
    """Return an interval of ratios as what is saved: ``9 % to 15 % less``."""
    if high <= 1:
        return f"{percent(1 - high)} to {percent(1 - low)} less"
    if low >= 1:
        return f"{percent(low - 1)} to {percent(high - 1)} more"
    return f"{percent(1 - low)} less to {percent(high - 1)} more"


def _pair(row: Row) -> dict[str, str]:
    sure = row["p_holm"] is not None and row["p_holm"] < ENOUGH
    return {
        "a": plain(row["label_a"], 80),
        "b": plain(row["label_b"], 80),
        "change": _change(row["ratio"]),
        "interval": NOTHING
        if row["ci95_low"] is None
        else _span(row["ci95_low"], row["ci95_high"]),
        "p": _p(row["p_holm"]),
        "verdict": "differ" if sure else "open",
        "how": f"{row['method']}, n = {row['n']}" if row["method"] else NOTHING,
        "note": plain(listed(row["differs"] or []), 120),
    }


def _level(row: Row) -> dict[str, str]:
    known = row["ratio"] is not None
    return {
        "factor": plain(row["factor"], 60),
        "level": plain(row["level"], 60),
        "reference": plain(row["reference"], 60),
        "change": _change(row["ratio"]) if known else NOTHING,
        "interval": NOTHING
        if row["ci95_low"] is None
        else _span(row["ci95_low"], row["ci95_high"]),
        "p": _p(row["p_holm"]),
        "note": plain(row["unavailable"] or "", 160),
    }


def _terms(effects: Iterable[Row]) -> list[str]:
    found = []
    for row in sorted(effects, key=lambda row: -(row["share"] or 0.0)):
        if row["share"] is None or row["role"] not in ("main", "interaction"):
            continue
        what = "Together beyond each alone, " if row["role"] == "interaction" else ""
        found.append(
            f"{what}{plain(row['term'], 80)} explains {percent(row['share'])} of the variation "
            f"between runs (p {_equal(row['p_holm'])} after Holm)."
        )
    return found


def _fronts(pareto: Sequence[Row]) -> list[str]:
    found = []
    for objective, words in _OBJECTIVES.items():
        best = [row for row in pareto if row["objective"] == objective and row["on_front"]]
        if not best:
            continue
        names = [f"{plain(row['label'], 60)}{_share(row['front_share'])}" for row in best[:8]]
        more = f" and {len(best) - 8} more" if len(best) > 8 else ""
        found.append(f"Energy against {words}: {listed(names)}{more}.")
    return found


def _share(share: float | None) -> str:
    return "" if share is None else f" ({share:.0%})"


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _equal(p: float | None) -> str:
    told = _p(p)
    return told if told.startswith("<") else f"= {told}"
