"""``llem export``: a study's results in the forms that others read."""

from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import StudyArgument, note, print_raw, split_names
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import write_text

_CRATE_FORM = "ro-crate"
_TABLE_FORMS = ("latex", "markdown")


def export(
    study: StudyArgument = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="markdown, latex, citation, energy-score, sci, spdx or ro-crate",
        ),
    ] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="the file to write; default: standard output")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="columns of summary.csv to include, comma-separated"),
    ] = None,
) -> None:
    """Write a study's results in formats for papers and other tools."""
    from llenergymeasure.analysis.tables import outdated_reason, read_plan, read_table
    from llenergymeasure.report.export.forms import FORMS
    from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME

    if form not in (*FORMS, _CRATE_FORM):
        names = ", ".join([*FORMS, _CRATE_FORM])
        raise ConfigurationError(Problem(f"is none of {names}", key="--format", found=form))
    column_names = split_names(columns)
    if column_names and form not in _TABLE_FORMS:
        raise ConfigurationError("--columns is for --format latex and markdown")
    folder = study_folder(study)
    plan = read_plan(folder.plan)
    if stale := outdated_reason(folder.path):
        note(stale)
    summary = read_table(folder.path, SUMMARY_NAME).to_pylist()
    runs = read_table(folder.path, RUNS_NAME).to_pylist()
    if form == _CRATE_FORM:
        from llenergymeasure.report.export.crate import write_crate

        if out is None:
            raise ConfigurationError("an RO-Crate is a ZIP: say where it goes with --out FILE.zip")
        starts = [run["started_at"] for run in runs if run["started_at"]]
        count = write_crate(folder.path, plan, out, max(starts, default=None))
        print(f"{out}: {count} files, each with its SHA-256")
        return
    text = FORMS[form](plan, summary, runs, column_names)
    if out is None:
        print_raw(text)
        return
    write_text(out, text)
    print(out)
