"""How the numbers were made and where: what a reader needs to trust, cite and repeat them."""

from collections.abc import Iterable, Mapping, Sequence

from llenergymeasure.analysis.selection import Row
from llenergymeasure.report.formatting import count_text, join_words, plain, rounded, scopes_text
from llenergymeasure.units import percent


def paragraph(
    summary: Sequence[Row], runs: Sequence[Row], used: Mapping[str, Sequence[Row]]
) -> str:
    """Return a paragraph on how the numbers were made, for quoting.

    Args:
        summary: the experiments.
        runs: every planned run of the study.
        used: the runs in the mean of each experiment.
    """
    rows = [row for row in summary if row["kind"] is not None and row["n"]]
    if not rows:
        return "No run gave energy."
    meters_text = join_words([meter for _, meter in meters(rows)])
    windows = [
        run["window_s"]
        for members in used.values()
        for run in members
        if run["window_s"] is not None
    ]
    bands = [row["energy_u_sys_rel"] for row in rows if row["energy_u_sys_rel"] is not None]
    text = (
        f"Energy was {meters_text} over windows of {_span(windows)} s, with {run_counts(rows)} in "
        "each mean; model loading and warm-up are outside the window, and no idle draw is taken "
        f"off. {interval_method(rows)}"
    )
    if bands:
        text += (
            f"; the sensor's gain band of ±{percent(max(bands))} is common to all runs, is not "
            "shrunk by repeats and is not part of the intervals"
        )
    notes = (*precision_note(rows), *independence_notes(rows), *exclusion_note(summary))
    text += "".join(f". {sentence}" for sentence in notes)
    hashes: dict[int, set[str]] = {}
    for run in runs:
        if run["prompt_hash"]:
            hashes.setdefault(run["cycle"], set()).add(run["prompt_hash"])
    n_sets = max(map(len, hashes.values()), default=0)
    if n_sets > 1:
        text += (
            f". The experiments answered {n_sets} different sets of prompts or asked lengths: "
            "energy per token is not like for like between them"
        )
    return f"{text}."


def run_counts(rows: Sequence[Row]) -> str:
    """Return the number of runs in a mean, such as ``3 to 5 runs``."""
    numbers = [row["n"] for row in rows]
    low, high = min(numbers), max(numbers)
    return count_text(low, "run") if low == high else f"{low} to {high} runs"


def interval_method(rows: Sequence[Row]) -> str:
    """Return which intervals are used; with a precision target, Stein's for energy per token.

    Args:
        rows: experiments with energy.
    """
    if not any(row["interval_method"] for row in rows):
        return "One run has no interval"
    text = "Intervals are two-sided 95 % Student t intervals over runs, on the logarithm"
    if any(row["interval_method"] == "stein" for row in rows):
        text += (
            "; that of energy per output token takes its spread from the pilot's cycles, on the "
            "logarithm (two-stage procedure, Stein 1945), or from all where that is wider"
        )
    return text


def independence_notes(rows: Sequence[Row]) -> list[str]:
    """Return whether successive cycles are independent, as a t interval assumes."""
    repeated = [row for row in rows if row["n"] > 1]
    total = count_text(len(repeated), "experiment")
    n_correlated = sum(row["cycles_correlated"] is True for row in repeated)
    n_unknown = sum(row["cycles_correlated"] is None for row in repeated)
    notes = []
    if n_correlated:
        notes.append(
            f"In {n_correlated} of {total} successive cycles look alike, as those of one in twenty "
            "do by chance, and the intervals are widened for it"
        )
    if n_unknown:
        notes.append(
            f"In {n_unknown} of {total} the cycles are too few to show whether they are "
            "independent, which the intervals take for granted"
        )
    return notes


def precision_note(rows: Sequence[Row]) -> list[str]:
    """Return whether the precision that the study asks for was reached; nothing without one."""
    rows_with_target = [row for row in rows if row["precision_target"] is not None]
    if not rows_with_target:
        return []
    reached = sum(bool(row["precision_reached"]) for row in rows_with_target)
    text = (
        f"The spread of the pilot's cycles set their number, for an interval over runs of ±"
        f"{percent(rows_with_target[0]['precision_target'])} of energy per output token, which "
        f"{reached} of {count_text(len(rows_with_target), 'experiment')} reached"
    )
    missed = [row for row in rows_with_target if not row["precision_reached"]]
    needed = [row["cycles_needed"] for row in missed if (row["cycles_needed"] or 0) > row["n"]]
    return [f"{text}; {max(needed)} cycles would be needed" if needed else text]


def exclusion_note(summary: Sequence[Row]) -> list[str]:
    """Return how many completed runs are not in a mean, and why."""
    reasons = {
        "n_disqualified": "disqualified",
        "n_other_meter": "of another meter",
        "n_other_machine": "of another machine",
    }
    counts = {words: sum(row[name] for row in summary) for name, words in reasons.items()}
    parts = [f"{number} {words}" for words, number in counts.items() if number]
    if not parts:
        return []
    total = sum(counts.values())
    stand = "run stands" if total == 1 else "runs stand"
    return [f"{total} {stand} outside the means: {', '.join(parts)}"]


def meters(summary: Sequence[Row]) -> list[tuple[str, str]]:
    """Return every kind of energy that occurs, and its meter in words."""
    rows = [row for row in summary if row["kind"] is not None]
    return list(dict.fromkeys((row["kind"], _meter_text(row)) for row in rows))


def _meter_text(row: Row) -> str:
    kind = "estimated, not measured," if row["kind"] == "estimated" else row["kind"]
    return f"{kind} by {plain(row['energy_source'])} ({scopes_text(row['energy_scopes'])})"


def _span(values: Sequence[float]) -> str:
    low, high = rounded(min(values)), rounded(max(values))
    return low if low == high else f"{low} to {high}"


def provenance(plan: Row, runs: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """Return where the numbers come from: a name and all values that occurred."""
    completed = [run for run in runs if run["status"] == "completed"]
    started = sorted(run["started_at"] for run in completed if run["started_at"])
    dates = " to ".join(dict.fromkeys(map(_minute, started[:1] + started[-1:])))
    order = (plan.get("execution") or {}).get("cycle_order")
    facts = [
        ("Study", [plain(plan["study"])]),
        ("Design hash", [plain(plan["study_design_hash"])]),
        ("Runs began", [dates] if dates else []),
        ("Model", distinct(runs, "model")),
        ("Backend", distinct(runs, "backend")),
        ("Runner", distinct(runs, "runner")),
        ("Order of runs", [plain(order, 60)] if order else []),
        ("Engine", distinct(completed, "engine_version")),
        ("LLenergyMeasure", distinct(completed, "llenergymeasure_version")),
        ("GPU", distinct(completed, "gpu_name")),
        ("Driver", distinct(completed, "driver_version")),
        ("Host", distinct(completed, "host")),
        ("Energy source", distinct(completed, "energy_source")),
    ]
    return [(name, values) for name, values in facts if values]


def _minute(moment: str) -> str:
    """Return an ISO 8601 time in UTC to the minute; anything else as it is."""
    if not moment.endswith(("+00:00", "Z")):
        return plain(moment, 60)
    return f"{plain(moment[:16]).replace('T', ' ')} UTC"


def distinct(runs: Iterable[Row], column: str) -> list[str]:
    """Return the values that a column of the runs holds, once each, as texts."""
    return list(dict.fromkeys(plain(run[column], 300) for run in runs if run[column]))


def differing_facts(runs: Sequence[Row]) -> list[str]:
    """Return what differed between the completed runs although a comparison takes it as equal."""
    completed = [run for run in runs if run["status"] == "completed"]
    columns = (
        ("GPU", "gpu_name"),
        ("driver", "driver_version"),
        ("host", "host"),
        ("version of LLenergyMeasure", "llenergymeasure_version"),
    )
    return [name for name, column in columns if len(distinct(completed, column)) > 1]
