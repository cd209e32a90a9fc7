"""The summary as a table for a paper: LaTeX or Markdown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

from llenergymeasure.analysis.selection import Row, used_runs
from llenergymeasure.analysis.study_runs import METRICS
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.report.charts import QUANTITIES
from llenergymeasure.report.experiments import FOOTPRINT, footprint_units
from llenergymeasure.report.findings import (
    MIN_SHARED_REL,
    interval_caveats,
    not_ranked_notes,
    ranked,
)
from llenergymeasure.report.formatting import (
    Scale,
    count_text,
    join_words,
    mean_text,
    plain,
    rounded_range,
    scale_for,
    scopes_text,
    setting_texts,
    shortened,
)
from llenergymeasure.report.method import distinct, exclusion_note, interval_method, meters
from llenergymeasure.report.sweep import varied_settings
from llenergymeasure.units import NO_VALUE, percent

DEFAULT_COLUMNS = ("energy_per_output_token_j", "energy_per_request_j", "output_tokens_per_s")
_TITLES = {
    **{metric: title for metric, (title, _) in QUANTITIES.items()},
    "carbon_per_1000_requests_gco2e": "Carbon of 1,000 requests",
    "cost_per_1000_requests": "Cost of 1,000 requests",
}
_UNITS = {"output_tokens_per_s": "tokens/s", "goodput_requests_per_s": "requests/s"}
_SUFFIX_UNITS = {"_j": "J", "_w": "W", "_s": "s"}

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
}


@dataclass(frozen=True)
class Table:
    """A table of the experiments, least energy first, as texts.

    Attributes:
        header: the columns' names.
        rows: one an experiment.
        texts: how many columns on the left are texts.
        caption: what it shows, and what is the same in all rows.
    """

    header: list[str]
    rows: list[list[str]]
    texts: int
    caption: str


def make_table(
    summary: Sequence[Row], runs: Sequence[Row], study: str, columns: Sequence[str] = ()
) -> Table:
    """Return the table: a column for each setting that varies, and one for each quantity.

    Kind, scope and device have columns if they differ; otherwise the caption has them.

    Args:
        summary: the experiments.
        runs: one row a run.
        study: its name.
        columns: the quantities, by their names in the summary; :data:`DEFAULT_COLUMNS` if empty.

    Raises:
        ConfigurationError: there is no such quantity.
    """
    for name in columns:
        if name not in METRICS:
            raise ConfigurationError(
                Problem(f"is none of {', '.join(METRICS)}", key="--columns", found=name)
            )
    rows = ranked(summary)
    used = used_runs(runs)
    facts = {
        "Kind": [row["kind"] or NO_VALUE for row in rows],
        "Scope": [scopes_text(row["energy_scopes"]) if row["kind"] else NO_VALUE for row in rows],
        "Device": [_devices(used.get(row["experiment"], ())) for row in rows],
    }
    # An experiment without a run in its mean has none of these; without a GPU it has no device.
    has_runs = [row["n"] > 0 for row in rows]
    common = {}
    for name, values in facts.items():
        distinct_values = set(compress(values, has_runs))
        if name != "Device":
            distinct_values.discard(NO_VALUE)
        if len(distinct_values) < 2:
            common[name] = next(iter(distinct_values), NO_VALUE)
    texts = {}
    for name in varied_settings(rows):
        value_texts = setting_texts((row[name] for row in rows), 60, NO_VALUE)
        texts[name] = [value_texts[row[name]] for row in rows]
    if not texts:
        texts = {"experiment": [plain(row["label"], 120) for row in rows]}
    texts |= {name: values for name, values in facts.items() if name not in common}
    units = _UNITS | {FOOTPRINT[key]: unit for key, unit in footprint_units(summary, runs).items()}
    numbers = [_column(rows, name, units) for name in columns or DEFAULT_COLUMNS]
    cells = [*texts.values(), [str(row["n"]) for row in rows], *(values for _, values in numbers)]
    return Table(
        header=[*(shortened(name, 60) for name in texts), "n", *(title for title, _ in numbers)],
        rows=[list(line) for line in zip(*cells, strict=True)],
        texts=len(texts),
        caption=" ".join(
            (
                _caption(study, rows, runs, common) + _outside_intervals(rows),
                *_missing_runs_notes(rows),
                *not_ranked_notes(rows),
                *interval_caveats(runs),
            )
        ),
    )


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    rule = ["---"] * table.texts + ["---:"] * (len(table.header) - table.texts)
    lines = [table.header, rule, *table.rows]
    escaped = [[_escape_markdown(cell) for cell in line] for line in lines]
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in escaped)
        + f"\n\n{_escape_markdown(table.caption)}\n"
    )


def _escape_markdown(cell: str) -> str:
    """Return text that cannot make a cell, a tag, a link or an image."""
    return re.sub(r"([|\\`\[\]])", r"\\\1", cell).replace("&", "&amp;").replace("<", "&lt;")


def latex(table: Table, study: str) -> str:
    """Return a table as LaTeX (package booktabs), with its caption and a label."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", study).strip("-") or "study"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_tex(table.caption)}}}",
            rf"\label{{tab:{slug}}}",
            rf"\begin{{tabular}}{{{'l' * table.texts}{'r' * (len(table.header) - table.texts)}}}",
            r"\toprule",
            _tex_line(table.header),
            r"\midrule",
            *map(_tex_line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _caption(study: str, rows: Sequence[Row], runs: Sequence[Row], facts: Mapping[str, str]) -> str:
    """Return what was measured and where, as far as it is not in the rows."""
    rows_with_energy = [row for row in rows if row["kind"] is not None and row["n"]]
    caption = f"{plain(study, 80)}: means over n runs."
    if rows_with_energy:
        meter = join_words([meter for _, meter in meters(rows_with_energy)])
        meter_note = f"Energy is {meter}. " if "Kind" in facts else ""
        caption += f" {interval_method(rows_with_energy)}. {meter_note}No idle draw is taken off."
    models = {plain(row["model"], 100) for row in rows if row["model"]}
    facts_by_name = {
        "Model": models.pop() if len(models) == 1 else "",
        "Engine": "; ".join(distinct(runs, "engine_version")),
        "Device": facts.get("Device", NO_VALUE),
    }
    details = [
        f" {name}: {value}." for name, value in facts_by_name.items() if value not in ("", NO_VALUE)
    ]
    return caption + "".join(details)


def _missing_runs_notes(rows: Sequence[Row]) -> list[str]:
    """Return how many runs have no result, and how many of the others are not in a mean."""
    missing = sum(row["n_failed"] + row["n_pending"] for row in rows)
    sentences = [f"{count_text(missing, 'run has', 'runs have')} no result"] if missing else []
    return [f"{sentence}." for sentence in (*sentences, *exclusion_note(rows))]


def _outside_intervals(rows: Sequence[Row]) -> str:
    """Return what may shift energies but is not in the intervals over cycles."""
    band = max((row["energy_u_sys_rel"] or 0.0 for row in rows), default=0.0)
    shared = max((row["energy_shared_u95_rel"] or 0.0 for row in rows), default=0.0)
    parts = [f"by the sensor's gain, ±{percent(band)}"] if band else []
    if shared >= MIN_SHARED_REL:
        what = "what else it leaves" if band else "what the sensor leaves"
        parts.append(f"by ±{percent(shared)} by {what} open of every run")
    return f" Energies may be off {', and '.join(parts)}." if parts else ""


def _column(rows: Sequence[Row], metric: str, units: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return a quantity's header and its cells: the mean, and its interval where there is one."""
    suffix = metric[-2:]
    unit = units.get(metric) or _SUFFIX_UNITS.get(suffix, "")
    scale = scale_for((row[f"{metric}_mean"] for row in rows), unit)
    name = metric.removesuffix(suffix) if suffix in _SUFFIX_UNITS else metric
    title = _TITLES.get(metric, name) + (f" ({scale.unit})" if unit else "")
    return title, [_cell(row, metric, scale) for row in rows]


def _cell(row: Row, metric: str, scale: Scale) -> str:
    mean, low, high = scale.interval(row, metric)
    text = mean_text(mean, low, high)
    return text if low is None else f"{text} ({rounded_range(low, high)})"


def _devices(runs: Sequence[Row]) -> str:
    return join_words(distinct(runs, "gpu_name")) or NO_VALUE


def _tex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_tex, cells)) + r" \\"


def escape_tex(text: str) -> str:
    """Return text that LaTeX prints unchanged."""
    return "".join(_LATEX.get(sign, sign) for sign in text)
