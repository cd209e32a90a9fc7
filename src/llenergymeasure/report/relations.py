"""What relates experiments to each other, as the page shows it: pairs, settings, fronts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.tables import read_table
from llenergymeasure.report.findings import TOKEN
from llenergymeasure.report.verdicts import Pairs, difference, how, verdict, within_sensor
from llenergymeasure.report.wording import (
    change,
    changes,
    listed,
    p_value,
    plain,
)
from llenergymeasure.units import NOTHING, percent

LISTED_PAIRS = 30
LISTED_LEVELS = 60

_OBJECTIVES = {
    "output_tokens_per_s": "throughput",
    "request_latency_p50_s": "median request latency",
    "request_latency_p95_s": "95th percentile of request latency",
    "time_to_first_token_p50_s": "median time to the first token",
    "peak_memory_bytes": "memory",
    "quality_score": "quality score",
    "perplexity": "perplexity",
}


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
    pairs = [row for row in tables["comparisons"] if row["metric"] == TOKEN]
    compared = [row for row in pairs if row["ratio"] is not None] or pairs
    first = compared[0]["experiment_a"] if compared else None
    baseline = [row for row in pairs if row["experiment_a"] == first]
    pairs.sort(key=lambda row: (row["p_holm"] is None, row["p_holm"] or 0.0, row["ratio"] or 0.0))
    levels = [row for row in tables["levels"] if row["metric"] == TOKEN]
    if all(row["ratio"] is None for row in levels):
        levels = []  # nothing to compare: the reasons stand with the runs that are left out
    of = {row["experiment"]: row for row in summary}
    return Relations(
        baseline=[_pair(row, of) for row in baseline[:LISTED_PAIRS]],
        pairs=[_pair(row, of) for row in pairs[:LISTED_PAIRS]],
        pairs_total=len(pairs),
        baseline_total=len(baseline),
        levels=[_level(row) for row in levels[:LISTED_LEVELS]],
        levels_total=len(levels),
        fronts=_fronts(tables["pareto"], summary),
        unpaired=any(row["method"] == "unpaired" for row in pairs),
        verdicts=Pairs(pairs),
    )


def _pair(row: Row, of: Mapping[str, Row]) -> dict[str, str]:
    pair = of[row["experiment_a"]], of[row["experiment_b"]]
    differs = listed([difference(name, *pair) for name in row["differs"] or []])
    reason = row["unavailable"] if row["method"] != "paired" or row["p_holm"] is None else None
    return {
        "a": plain(row["label_a"], 80),
        "b": plain(row["label_b"], 80),
        "change": NOTHING if row["ratio"] is None else change(row["ratio"]),
        "interval": _interval(row),
        "p": p_value(row["p_holm"]),
        "verdict": verdict(row),
        "how": how(row),
        "note": plain(
            "; ".join(filter(None, (within_sensor(row, row["ratio"]), differs, reason))), 240
        ),
    }


def _level(row: Row) -> dict[str, str]:
    return {
        "factor": plain(row["factor"], 60),
        "level": plain(row["level"], 60),
        "reference": plain(row["reference"], 60),
        "change": NOTHING if row["ratio"] is None else change(row["ratio"]),
        "interval": _interval(row),
        "p": p_value(row["p_holm"]),
        "note": plain(row["unavailable"] or "", 160),
    }


def _interval(row: Row) -> str:
    return NOTHING if row["ci95_low"] is None else changes(row["ci95_low"], row["ci95_high"])


def _fronts(pareto: Sequence[Row], summary: Sequence[Row] = ()) -> list[str]:
    found = []
    models = {row["model"] for row in summary}
    for objective, words in _OBJECTIVES.items():
        mine = [row for row in pareto if row["objective"] == objective]
        compared = [row for row in mine if row["on_front"] is not None]
        best = [row for row in compared if row["on_front"]]
        if not best or len(compared) < 2:
            continue
        names = [_on_front(row) for row in best[:8]]
        more = f" and {len(best) - 8} more" if len(best) > 8 else ""
        if objective == "perplexity" and len(models) > 1:
            words += " (of a token, which models of one tokenizer alone have in common)"
        found.append(f"Energy against {words}: {'; '.join(names)}{more}.")
    return found


def _on_front(row: Row) -> str:
    name, share = plain(row["label"], 60), row["front_share"]
    return name if share is None else f"{name} ({percent(share)})"
