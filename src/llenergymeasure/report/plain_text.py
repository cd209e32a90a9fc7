"""A study's results as plain text, for a terminal or a pipe."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from llenergymeasure.analysis.selection import Row
from llenergymeasure.analysis.tables import read_table
from llenergymeasure.report.experiments import (
    ENERGY_PER_REQUEST,
    FOOTPRINT,
    energy_scales,
    flag_rows,
    footprint_units,
)
from llenergymeasure.report.failed_runs import Failure, failures
from llenergymeasure.report.findings import (
    ENERGY_PER_TOKEN,
    interval_caveats,
    not_ranked_notes,
    ranked,
)
from llenergymeasure.report.formatting import (
    AS_IS,
    count_text,
    mean_text,
    plain,
    rounded_range,
    setting_texts,
)
from llenergymeasure.report.method import meters
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.screen import align_columns
from llenergymeasure.units import NO_VALUE
from llenergymeasure.validity_codes import DISQUALIFYING

LABEL_LIMIT = 44
GROUP_LIMIT = 40
LISTED_EXPERIMENTS = 60
LISTED_FAILURES = 12
LISTED_RUNS = 3
LISTED_DIFFERENCES = 3

TWO_SETTINGS_WIDTH = 20
"""Signs of most labels with two settings, such as `bf16 · batch_size=1`."""


def study_text(study_dir: Path) -> str:
    """Return counts, one line an experiment, and every failure with its reason and log.

    Args:
        study_dir: the study's folder, with its tables.

    Raises:
        ResultsError: the tables are not there or damaged.
    """
    rows = ranked(read_table(study_dir, SUMMARY_NAME).to_pylist())
    runs = read_table(study_dir, RUNS_NAME).to_pylist()
    blocks = [
        study_head(rows, runs),
        _experiments_table(rows, footprint_units(rows, runs)),
        "\n".join(not_ranked_notes(rows)),
        flags_line(runs),
        *interval_caveats(runs),
        _failures_text(failures(runs), StudyFolder(study_dir)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def study_head(rows: Sequence[Row], runs: Sequence[Row]) -> str:
    """Return one line on how many runs are done, and one on their energy."""
    study = next((run["study"] for run in runs if run["study"]), "study")
    n_completed = sum(run["status"] == "completed" for run in runs)
    lines = [f"{plain(study)}: {n_completed} of {count_text(len(runs), 'run')} completed"]
    left_out, exclusion_lines = _exclusions(rows)
    if left_out:
        lines[0] += f", {left_out} left out of the means"
        lines += exclusion_lines
    energies = [f"Energy: {meter}" for _, meter in meters(rows)]
    lines += energies
    if not n_completed:
        lines.append("No run completed: there is no energy to report.")
    elif not energies:
        reasons = [run["energy_unavailable"] for run in runs if run["energy_unavailable"]]
        lines.append(f"Energy: not observed ({plain(reasons[0]) if reasons else 'no sensor'})")
    return "\n".join(lines)


def _exclusions(rows: Sequence[Row]) -> tuple[int, list[str]]:
    """Return how many measured runs are not in a mean, and a line for each reason."""
    reasons = {
        "n_disqualified": "disqualified; Validity below names the codes",
        "n_other_meter": "with energy of another kind, sensor or scope than the mean's",
        "n_other_machine": "made on an unlike machine",
    }
    counts = {name: sum(row[name] for row in rows) for name in reasons}
    differs = dict.fromkeys(plain(text) for row in rows for text in row["differs"] or ())
    lines = [f"  {number} {reasons[name]}" for name, number in counts.items() if number]
    if counts["n_other_machine"] and differs:
        lines[-1] += f" ({'; '.join(list(differs)[:LISTED_DIFFERENCES])})"
    return sum(counts.values()), lines


def _experiments_table(rows: Sequence[Row], units: Mapping[str, str]) -> str:
    cells = experiment_cells(rows[:LISTED_EXPERIMENTS], units)
    text = align_columns(
        cells, left=(0, 1, 3), droppable=(0, 6, 7, 3), min_chars=TWO_SETTINGS_WIDTH
    )
    rest = len(rows) - LISTED_EXPERIMENTS
    return text if rest <= 0 else f"{text}\n... and {rest:,} more in summary.csv"


def experiment_cells(rows: Sequence[Row], units: Mapping[str, str]) -> list[list[str]]:
    """Return a header and a line of cells for each experiment, its id first.

    Args:
        rows: the experiments.
        units: the units of carbon and cost, where declared.
    """
    token, request = energy_scales(rows)
    header = [
        "experiment",
        "settings",
        "runs",
        "kind",
        f"{_ascii(token.unit)}/token",
        "95 % interval",
        f"{_ascii(request.unit)}/request",
        "W",
        "token/s",
    ]
    lines = [[*header, *(f"{unit}/1000 requests" for unit in units.values())]]
    metrics = ("power_mean_w", "output_tokens_per_s", *(FOOTPRINT[name] for name in units))
    for row in rows:
        mean, low, high = token.interval(row, ENERGY_PER_TOKEN)
        lines.append(
            [
                row["experiment"],
                plain(row["label"], LABEL_LIMIT),
                str(row["n"]),
                row["kind"] or NO_VALUE,
                mean_text(mean, low, high),
                rounded_range(low, high),
                mean_text(*request.interval(row, ENERGY_PER_REQUEST)),
                *(mean_text(*AS_IS.interval(row, name)) for name in metrics),
            ]
        )
    return lines


def flags_line(runs: Sequence[Row]) -> str:
    """Return each validity code with its number of runs; nothing where there is none."""
    parts = [
        f"{flag['code']} ({count_text(flag['runs'], 'run')}"
        f"{', left out' if flag['code'] in DISQUALIFYING else ''})"
        for flag in flag_rows(runs)
    ]
    return f"Validity: {', '.join(parts)}" if parts else ""


def _failures_text(groups: Sequence[Failure], folder: StudyFolder) -> str:
    if not groups:
        return ""
    total = sum(len(failure.runs) for failure in groups)
    lines = [f"Without a result: {count_text(total, 'run')}"]
    for failure in groups[:LISTED_FAILURES]:
        lines.append(f"  {count_text(len(failure.runs), 'run')} {plain(failure.reason, 240)}")
        lines.append(f"    what to do: {failure.advice}")
        # Tables of earlier versions call a run that never began lost.
        if failure.status == "missing" or failure.error_class == "NeverBegan":
            continue
        for experiment, cycle in failure.runs[:LISTED_RUNS]:
            lines.append(f"    log: {folder.run(experiment, cycle).log}")
        rest = len(failure.runs) - LISTED_RUNS
        if rest > 0:
            lines.append(f"    ... and {rest} more")
    rest = len(groups) - LISTED_FAILURES
    if rest > 0:
        lines.append(f"  ... and {rest} more reasons; see runs.parquet")
    return "\n".join(lines)


def groups_text(
    table: pa.Table, group_by: Sequence[str], metric: str, labels: Mapping[str, str] | None = None
) -> str:
    """Return one line for each group: its values, its mean with interval, and the runs left out.

    Args:
        table: what :func:`llenergymeasure.analysis.pooling.summarise_by` found.
        group_by: the columns that make a group.
        metric: the column averaged.
        labels: the settings of each experiment, where they are grouped by it.
    """
    settings = ["settings"] if labels is not None else []
    header = [*group_by, *settings, "experiments", "runs", "mean", "95 % interval", "left out"]
    lines = [header]
    rows = table.to_pylist()
    value_texts = {
        name: setting_texts((row[name] for row in rows), GROUP_LIMIT, NO_VALUE) for name in group_by
    }
    for row in rows:
        mean, low, high = AS_IS.interval(row, metric)
        exclusions = [
            f"{row[name]} {words}"
            for name, words in (
                ("n_disqualified", "disqualified"),
                ("n_not_observed", "not observed"),
                ("n_failed", "without a result"),
            )
            if row[name]
        ]
        cells = [value_texts[name][row[name]] for name in group_by]
        if labels is not None:
            cells.append(plain(labels.get(row["experiment"], NO_VALUE), GROUP_LIMIT))
        interval = row["interval_unavailable"]
        if low is not None:
            interval = f"{rounded_range(low, high)} over {row['interval_method']}"
        cells += [str(row["experiments"]), str(row["n"]), mean_text(mean, low, high), interval]
        lines.append([*cells, ", ".join(exclusions) or NO_VALUE])
    experiments = header.index("experiments")
    left = (*range(experiments), len(header) - 2, len(header) - 1)
    unique_labels = labels is not None and len(set(labels.values())) == len(labels)
    ids = (header.index("experiment"),) if unique_labels else ()
    return f"Means of {metric}\n\n{align_columns(lines, left, droppable=(experiments, *ids))}"


def _ascii(text: str) -> str:
    """Return a unit in ASCII, for terminals and pipes without UTF-8."""
    return text.replace("µ", "u")
