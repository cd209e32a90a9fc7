"""Studies on disk whose sentences are known: null, unpaired, of two meters, of one cycle, and so on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.analysis.tables import read_table, write_tables
from results.synthetic import GPU, make_plan, make_result, write_plan, write_result

SWEPT = ["pytorch.batch_size"]
Made = Callable[[Mapping[str, Any], int], dict[str, Any]]
"""What a run's record holds, from the run and the place of its experiment."""


def config(size: int, **more: Any) -> dict[str, Any]:
    return {"model": "tiny-llama", "precision": "bf16", "pytorch": {"batch_size": size}, **more}


def on(host: str = "node-1", name: str = "NVIDIA H200", uuid: str = GPU) -> dict[str, Any]:
    card = {"uuid": uuid, "name": name, "driver": "570.1", "power_limit_w": 700.0}
    return {"environment": {"host": host, "gpus": [card]}}


def write_study(
    folder: Path, made: Made, *, sizes: tuple[int, ...] = (1, 2), cycles: int = 5, **plan_more: Any
) -> None:
    """Write a study and its tables; runs of a cycle follow each other."""
    plan = {**make_plan([config(size) for size in sizes], SWEPT, cycles=cycles), **plan_more}
    write_plan(folder, plan)
    for place, run in enumerate(plan["runs"]):
        write_result(folder, make_result(run, **made(run, place % len(sizes))))
    write_tables(folder, partial=False)


def tables(folder: Path, *names: str) -> list[list[dict[str, Any]]]:
    return [read_table(folder, f"{name}.parquet").to_pylist() for name in names]
