"""The experiments and the runs' flags as lines of the page's tables."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llenergymeasure.analysis.comparison_tables import MAX_LENGTH_RATIO, OUTPUT_LENGTH
from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.summary import NO_CORRECT_ANSWER, PER_CORRECT
from llenergymeasure.report.findings import ENERGY_PER_TOKEN
from llenergymeasure.report.formatting import (
    AS_IS,
    Scale,
    plain,
    rounded,
    rounded_range,
    scale_for,
    with_interval,
)
from llenergymeasure.report.relations import LISTED_NAMES, label_text
from llenergymeasure.units import NO_VALUE, percent
from llenergymeasure.validity_codes import DISQUALIFYING, VALIDITY

ENERGY_PER_REQUEST = "energy_per_request_j"
FOOTPRINT = {"carbon": "carbon_per_1000_requests_gco2e", "cost": "cost_per_1000_requests"}
"""Columns that depend on what a study declares."""
EXCLUSIONS = {
    "n_disqualified": "disqualified",
    "n_other_meter": "other meter",
    "n_other_machine": "other machine",
    "n_failed": "failed",
    "n_pending": "not run",
}
"""Columns that count an experiment's runs outside its mean, and their words."""
UNKNOWN_CODE = "A code of another version; see that version's documentation."


def footprint_units(summary: Sequence[Row], runs: Iterable[Row]) -> dict[str, str]:
    """Return the units of carbon and of cost, as far as any experiment has them."""
    currencies = dict.fromkeys(run["cost_currency"] for run in runs if run["cost_currency"])
    units = {"carbon": "gCO2e", "cost": plain("/".join(currencies), 20)}
    return {
        name: units[name]
        for name, column in FOOTPRINT.items()
        if any(row[f"{column}_mean"] is not None for row in summary)
    }


def energy_scales(rows: Sequence[Row]) -> tuple[Scale, Scale]:
    """Return the units in which experiments' energies per token and per request are read best."""
    token, request = (
        scale_for((row[f"{metric}_mean"] for row in rows), "J")
        for metric in (ENERGY_PER_TOKEN, ENERGY_PER_REQUEST)
    )
    return token, request


def table_rows(summary: Sequence[Row], token: Scale, request: Scale) -> list[dict[str, Any]]:
    """Return the page's table of experiments as texts, in the order given."""
    return [
        {"number": number, **_table_row(row, token, request)}
        for number, row in enumerate(summary, start=1)
    ]


def _table_row(row: Row, token: Scale, request: Scale) -> dict[str, str]:
    mean, sd = row[f"{ENERGY_PER_TOKEN}_mean"], row[f"{ENERGY_PER_TOKEN}_sd"]
    return {
        "experiment": row["experiment"],
        "label": plain(row["label"], 120),
        "kind": row["kind"] or NO_VALUE,
        "runs": _run_counts(row),
        "per_token": _with_interval(row, ENERGY_PER_TOKEN, token),
        "spread": NO_VALUE if sd is None or not mean else percent(sd / mean),
        "per_request": _with_interval(row, ENERGY_PER_REQUEST, request),
        "answer": _with_interval(row, OUTPUT_LENGTH),
        "power": _with_interval(row, "power_mean_w"),
        "speed": _with_interval(row, "output_tokens_per_s"),
        "latency": _with_interval(row, "request_latency_p50_s"),
        **{name: _with_interval(row, column) for name, column in FOOTPRINT.items()},
        "flags": plain(", ".join(row["validity"] or ())),
    }


def _run_counts(row: Row) -> str:
    exclusions = [f"{row[name]} {words}" for name, words in EXCLUSIONS.items() if row[name]]
    differs = f": {'; '.join(row['differs'])}" if row["differs"] else ""
    outside = f" ({', '.join(exclusions)}{differs})" if exclusions else ""
    return plain(f"{row['n']}{outside}", 240)


def _with_interval(row: Row, metric: str, scale: Scale = AS_IS) -> str:
    return with_interval(*scale.interval(row, metric))


def correct_answer_rows(summary: Iterable[Row]) -> list[dict[str, str]]:
    """Return the energy of a right answer of each experiment that was asked, as texts."""
    name = PER_CORRECT
    return [
        {
            "label": plain(row["label"], 120),
            "share": percent(row["quality_score_mean"]),
            "mean": rounded(row[f"{name}_mean"]),
            "interval": rounded_range(row[f"{name}_ci95_low"], row[f"{name}_ci95_high"])
            if row[f"{name}_ci95_low"] is not None
            else row[f"{name}_unavailable"] or "one run has none",
        }
        for row in summary
        if row[f"{name}_mean"] is not None or row[f"{name}_unavailable"] == NO_CORRECT_ANSWER
    ]


def length_note(summary: Iterable[Row]) -> str | None:
    """Return a note if the experiments' answers differ in length; None if they do not."""
    means = [
        row[f"{OUTPUT_LENGTH}_mean"] for row in summary if row[f"{OUTPUT_LENGTH}_mean"] is not None
    ]
    if not means or max(means) <= MAX_LENGTH_RATIO * min(means):
        return None
    return (
        f"Answers are {rounded(min(means))} to {rounded(max(means))} output tokens long in the "
        "mean: the energies per request are of unlike answers, and no ranking of the settings. "
        "Energy per output token compares them better. Where two settings had the same prompts, "
        "and each request an energy of its own, llem compare also compares those that both "
        "answered at one length."
    )


def thinking_note(summary: Iterable[Row], used: Mapping[str, Sequence[Row]]) -> str | None:
    """Return how much of the output of the runs in the means was thought; None if nothing was."""
    parts = []
    for row in summary:
        members = used.get(row["experiment"], ())
        thinking_tokens = sum(run["thinking_tokens"] or 0 for run in members)
        if thinking_tokens:
            share = percent(thinking_tokens / sum(run["output_tokens"] for run in members))
            parts.append(f"{share} with {label_text(row)}")
    if not parts:
        return None
    more = f" and in {len(parts) - LISTED_NAMES} more" if len(parts) > LISTED_NAMES else ""
    return (
        "Of the output tokens a model's thought before its answer is "
        f"{'; '.join(parts[:LISTED_NAMES])}{more}. Its energy, and that of the answers, is in the "
        "columns energy_thinking_j and energy_answer_j of runs.parquet."
    )


def flag_rows(runs: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the validity codes that occurred, each with its number of runs and its meaning."""
    counts = Counter(code for run in runs for code in run["validity"] or ())
    return [
        {
            "code": plain(code),
            "runs": number,
            "meaning": VALIDITY[code].meaning if code in VALIDITY else UNKNOWN_CODE,
            "consequence": consequence(code),
        }
        for code, number in sorted(counts.items())
    ]


def consequence(code: str) -> str:
    """Return the code's effect on the run: left out of means, or only shown."""
    return "left out of means" if code in DISQUALIFYING else "in means, shown"
