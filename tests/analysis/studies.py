"""Studies in memory: the rows of their runs, and their runs as blocks of logarithms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from llenergymeasure.analysis.blocks import Blocks
from llenergymeasure.analysis.comparison_tables import experiment_labels, relate
from llenergymeasure.analysis.study_runs import StudyRuns
from llenergymeasure.analysis.summary import summarise
from llenergymeasure.config.dotted import value_at
from llenergymeasure.results.table import rows_table, run_row
from results.synthetic import make_plan, make_result

SWEPT = ["pytorch.batch_size"]


def configs(*sizes: int) -> list[dict[str, Any]]:
    """Return experiments of these batch sizes."""
    return [
        {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}}
        for size in sizes
    ]


def row(run: Mapping[str, Any], swept: Sequence[str] = SWEPT, **settings: Any) -> dict[str, Any]:
    """Return the row of a run whose result has these settings."""
    values = {key: value_at(run["config"], key) for key in swept}
    return run_row(make_result(run, **settings), values)


def study_rows(
    energies_j: Sequence[float],
    sizes: Sequence[int] = (8,),
    by_cycle: Mapping[int, Mapping[str, Any]] | None = None,
    made: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda _: {},
) -> list[dict[str, Any]]:
    """Return the rows of a study of some batch sizes.

    Args:
        energies_j: of each cycle's runs.
        sizes: the batch sizes.
        by_cycle: what the results of a cycle have besides.
        made: gives the columns that a row has in place of its own.
    """
    rows = [
        row(run, energy_j=energies_j[run["cycle"] - 1], **(by_cycle or {}).get(run["cycle"], {}))
        for run in make_plan(configs(*sizes), SWEPT, cycles=len(energies_j))["runs"]
    ]
    return [{**each, **made(each)} for each in rows]


def summaries(
    rows: Iterable[Mapping[str, Any]], plan: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the summary of each experiment."""
    found: list[dict[str, Any]] = summarise(StudyRuns(rows_table([*rows]), plan)).to_pylist()
    return found


def related(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return what relates the experiments to each other, by table."""
    study = StudyRuns(rows_table([*rows]))
    tables = relate(study, experiment_labels(summarise(study).to_pylist()))
    return {name: table.to_pylist() for name, table in tables.items()}


def blocks(logs: Any, order: Any = None, hosts: Any = None) -> Blocks:
    """Return a study of these logarithms, in interleaved order unless another is given."""
    logs = np.array(logs, float)
    cycles, count = logs.shape
    if order is None:
        order = np.arange(1.0, cycles * count + 1).reshape(cycles, count)
    return Blocks(
        experiments=tuple("abcdefgh"[:count]) if count <= 8 else tuple(map(str, range(count))),
        cycles=tuple(range(1, cycles + 1)),
        logs=logs,
        host_order=np.array(order, float),
        hosts=np.zeros(logs.shape) if hosts is None else np.array(hosts, float),
        order=np.array(order, float),
    )
