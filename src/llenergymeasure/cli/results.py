"""``llem results``: a study's means so far."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.cli.find_study import study_folder
from llenergymeasure.cli.output import JsonOption, note, print_json, split_names
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import Plan, left_out_lines
from llenergymeasure.results.layout import StudyFolder


def results(
    studies: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STUDY", help="studies' files or results folders; default: the last one run"
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="columns to group by, comma-separated")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="what to average: energy, power, throughput, or a column of runs.parquet; "
            "default energy_per_output_token_j"
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="columns that may differ within a mean: gpu_name, driver_version, …"),
    ] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Print the summary table of a study, or means by any factor over one study or several."""
    if as_json and as_csv:
        raise ConfigurationError("give --json or --csv, not both")
    folders = [study_folder(path).path for path in studies or (None,)]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigurationError("a study is named twice: its runs would count twice")
    if len(folders) == 1 and not (group_by or metric or pool or as_json or as_csv):
        from llenergymeasure.analysis.tables import outdated_reason
        from llenergymeasure.report.plain_text import study_text

        if stale := outdated_reason(folders[0]):
            note(stale)
        print(study_text(folders[0]), end="")
        for line in left_out_lines(Plan.read(StudyFolder(folders[0]).plan)):
            print(line)
        return
    from llenergymeasure.analysis.pooling import (
        ENERGY_PREFIXES,
        PLAIN_METRICS,
        study_runs,
        summarise_by,
    )
    from llenergymeasure.report.findings import CAVEAT_COLUMNS, interval_caveats

    groups, pooled = split_names(group_by) or ["experiment"], split_names(pool)
    column = PLAIN_METRICS.get(metric or "energy", metric)
    runs = study_runs(folders)
    table = summarise_by(runs, groups, str(column), pooled)
    groups = table.column_names[: len(groups)]
    if str(column).startswith(ENERGY_PREFIXES):
        for sentence in interval_caveats(runs.select([*CAVEAT_COLUMNS]).to_pylist()):
            note(sentence)
    if as_json:
        head = {"metric": column, "group_by": list(groups), "pooled": list(pooled)}
        print_json({**head, "groups": table.to_pylist()})
    elif as_csv:
        from pyarrow import csv

        from llenergymeasure.analysis.tables import harmless

        csv.write_csv(harmless(table), sys.stdout.buffer)
    else:
        from llenergymeasure.report.plain_text import groups_text

        labels: dict[str, str] | None = None
        if "experiment" in groups:
            labels = {}
            for folder in folders:
                labels |= Plan.read(StudyFolder(folder).plan).labels
        print(groups_text(table, groups, str(column), labels))
