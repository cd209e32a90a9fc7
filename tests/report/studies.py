"""Studies on disk whose sentences are known: null, unpaired, of two meters, of one cycle."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llenergymeasure.analysis.tables import read_table, write_tables
from results.synthetic import GPU, make_plan, write_runs

SWEPT = ["pytorch.batch_size"]
MakeRecord = Callable[[Mapping[str, Any], int], dict[str, Any]]
"""What a run's record holds, from the run and the place of its experiment."""


def config(size: int, **more: Any) -> dict[str, Any]:
    return {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}, **more}


def machine(host: str = "node-1", name: str = "NVIDIA H200", uuid: str = GPU) -> dict[str, Any]:
    card = {"uuid": uuid, "name": name, "driver": "570.1", "power_limit_w": 700.0}
    return {"environment": {"host": host, "gpus": [card]}}


def write_study(
    folder: Path,
    record: MakeRecord,
    *,
    configs: Sequence[Mapping[str, Any]] = (config(1), config(2)),
    cycles: int = 5,
    sequential: bool = False,
    shuffled: bool = False,
) -> None:
    """Write a study and its tables.

    Args:
        folder: of the study.
        record: gives each run's record.
        configs: one an experiment.
        cycles: of each.
        sequential: all cycles of an experiment before the next one's, else cycle by cycle.
        shuffled: each cycle in an order of its own.
    """
    plan = make_plan(configs, SWEPT, cycles=cycles)
    place = {run["experiment"]: number for number, run in enumerate(plan["runs"][: len(configs)])}
    if sequential:
        plan["runs"].sort(key=lambda run: place[run["experiment"]])
    if shuffled:
        draw = random.Random(1).random
        plan["runs"].sort(key=lambda run: (run["cycle"], draw()))
    if sequential or shuffled:
        plan["runs"] = [{**run, "order": order} for order, run in enumerate(plan["runs"], start=1)]
    write_runs(folder, plan, lambda run: record(run, place[run["experiment"]]))
    write_tables(folder, partial=False)


@contextlib.contextmanager
def without_drawing() -> Iterator[None]:
    """Leave figures empty: drawing them is most of a page's time."""
    with (
        patch("vl_convert.vegalite_to_svg", lambda *_, **__: "<svg></svg>"),
        patch("vl_convert.svg_to_pdf", lambda _: b"%PDF"),
    ):
        yield


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(folder, f"{name}.parquet").to_pylist()
    return rows
