"""``llem export``: a study's results in the forms that others read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from llenergymeasure.cli.output import StudyArgument, names_in, raw
from llenergymeasure.cli.studies import study_folder
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import write_text

Format = Literal["markdown", "latex", "citation", "energy-score", "ro-crate"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(
    study: StudyArgument = None,
    form: Annotated[
        str, typer.Option("--format", help="markdown, latex, citation, energy-score or ro-crate")
    ] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="the file to write; else standard output")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="quantities of a table, comma-separated, by their names in summary.csv"),
    ] = None,
) -> None:
    """Write a study's results in the forms that papers and other tools read."""
    from llenergymeasure.analysis.tables import RUNS_NAME, SUMMARY_NAME, read_plan, read_table

    if form not in FORMATS:
        raise ConfigurationError(
            Problem(f"is none of {', '.join(FORMATS)}", key="--format", found=form)
        )
    chosen = names_in(columns)
    if chosen and form not in ("markdown", "latex"):
        raise ConfigurationError("--columns is for --format latex and markdown")
    folder = study_folder(study)
    plan = read_plan(folder.plan)
    summary = read_table(folder.path, SUMMARY_NAME).to_pylist()
    runs = read_table(folder.path, RUNS_NAME).to_pylist()
    if form == "ro-crate":
        starts = [run["started_at"] for run in runs if run["started_at"]]
        _crate(folder.path, plan, out, max(starts, default=None))
        return
    text = _text(form, plan, summary, runs, chosen)
    if out is None:
        raw(text)
        return
    write_text(out, text)
    print(out)


def _crate(folder: Path, plan: dict[str, Any], out: Path | None, measured_at: str | None) -> None:
    from llenergymeasure.report.export.crate import write_crate

    if out is None:
        raise ConfigurationError("an RO-Crate is a ZIP: say where it goes with --out FILE.zip")
    count = write_crate(folder, plan, out, measured_at)
    print(f"{out}: {count} files, each with its SHA-256")


def _text(
    form: str,
    plan: dict[str, Any],
    summary: list[dict[str, Any]],
    runs: list[dict[str, Any]],
    columns: Sequence[str],
) -> str:
    from llenergymeasure.report.export.citation import citation
    from llenergymeasure.report.export.energy_score import energy_score
    from llenergymeasure.report.export.text_tables import latex, markdown, table

    if form == "citation":
        return citation(plan, runs)
    if form == "energy-score":
        return energy_score(summary)
    study = str(plan["study"])
    made = table(summary, runs, study, list(columns))
    return markdown(made) if form == "markdown" else latex(made, study)
