"""``llem status`` and ``llem results``: what a study has so far."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from llenergymeasure.errors import ConfigurationError, PreflightError, Problem
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.cluster import left_jobs, waiting
from llenergymeasure.workflow.manifest import count, states, told_precision
from llenergymeasure.workflow.stopping import precision
from llenergymeasure.workload.studies import load_study


def study_folder(path: Path) -> StudyFolder:
    """Return the results folder that ``path`` is, or that the study file at ``path`` writes to.

    Raises:
        ConfigurationError: there is no plan yet.
    """
    folder = StudyFolder(path)
    if path.is_file():
        study = load_study(path)
        folder = StudyFolder(Path(study.results_root) / study.name)
    if not folder.plan.is_file():
        raise ConfigurationError(
            Problem(f"no results yet in {folder.path}; `llem run {path}` makes them", file=path)
        )
    return folder


def status_command(path: Path, *, as_json: bool, full: bool = False) -> None:
    """Print how many runs are in each state, and those that failed.

    Args:
        path: a study's file or results folder.
        as_json: for programs.
        full: read every run's files, also those that have not changed since they were last read.
    """
    folder = study_folder(path)
    plan = Plan.read(folder.plan)
    runs = states(plan, folder, full=full)
    if as_json:
        head = {"study": plan.study, "counts": count(runs), **told_precision(plan, folder, runs)}
        print(json.dumps({**head, "runs": runs}, indent=1))
        return
    counts = ", ".join(f"{number} {status}" for status, number in sorted(count(runs).items()))
    print(f"{plan.study}: {len(runs)} runs: {counts}")
    reached = precision(plan, folder, sum(run["status"] != "completed" for run in runs))
    if reached is not None:
        print(reached)
    for line in _queued(folder):
        print(line)
    for run in runs:
        if run["status"] in {"failed", "interrupted", "lost"}:
            where = folder.run(run["experiment"], run["cycle"]).path
            print(f"  {where}: {run['status']}: {run['error_class']}: {run['error_message']}")


def _queued(folder: StudyFolder) -> Iterator[str]:
    """Yield why jobs of a study wait on a cluster; nothing where there is none, or it is silent."""
    with suppress(PreflightError):
        yield from waiting(left_jobs(folder))


def results_command(
    paths: Sequence[Path],
    *,
    group_by: str | None = None,
    metric: str | None = None,
    pool: str | None = None,
    as_json: bool = False,
    as_csv: bool = False,
) -> None:
    """Print what has been measured: one study's summary, or means by any factor over all.

    Args:
        paths: studies' files or results folders.
        group_by: columns whose values make a group, comma-separated.
        metric: what is averaged.
        pool: what may differ within a group, comma-separated.
        as_json: for programs.
        as_csv: for spreadsheets.

    Raises:
        ConfigurationError: a name is not known, or runs differ in what would be averaged.
    """
    if as_json and as_csv:
        raise ConfigurationError("give --json or --csv, not both")
    folders = [study_folder(path).path for path in paths]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigurationError("a study is named twice: its runs would count twice")
    plain = not (group_by or metric or pool or as_json or as_csv)
    if plain and len(folders) == 1:
        from llenergymeasure.report.text import study_text

        print(study_text(folders[0]))
        return
    grouping = _split(group_by) or ["experiment"]
    averaged = metric or "energy_per_output_token_j"
    _print_groups(folders, grouping, averaged, _split(pool), as_json=as_json, as_csv=as_csv)


def _print_groups(
    folders: Sequence[Path],
    group_by: Sequence[str],
    metric: str,
    pool: Sequence[str],
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    from llenergymeasure.analysis.pooling import study_runs, summarise_by

    table = summarise_by(study_runs(folders), group_by, metric, pool)
    if as_json:
        head = {"metric": metric, "group_by": list(group_by), "pooled": list(pool)}
        print(json.dumps({**head, "groups": table.to_pylist()}, indent=1))
    elif as_csv:
        from pyarrow import csv

        from llenergymeasure.analysis.tables import harmless

        csv.write_csv(harmless(table), sys.stdout.buffer)
    else:
        from llenergymeasure.report.groups import groups_text

        print(groups_text(table, group_by, metric))


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]
