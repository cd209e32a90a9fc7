"""Merging a study's runs: ours beside pandas' read-and-concatenate, on the same files.

Writes ``--runs`` synthetic ``run.parquet`` files with their records, then merges them in one
process each, and prints wall time, peak memory and the ratios. The files have just been written:
they are in the page cache for both.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CYCLES = 5
MIB = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="keep the files here; a temporary one if not")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="merge_runs-"))
    try:
        plan = write_study(folder, arguments.runs)
        print(f"{len(plan['runs']):,} runs, one run.parquet each", flush=True)
        ours = measured(merge_ours, folder)
        print(line("merge_runs", ours), flush=True)
        pandas = measured(merge_pandas, folder)
        print(line("pandas", pandas), flush=True)
        if ours["sum"] != pandas["sum"]:
            raise SystemExit(f"the tables differ: {ours['sum']} against {pandas['sum']}")
        print(
            f"pandas takes {pandas['wall_s'] / ours['wall_s']:.2f} times the time, "
            f"{pandas['cpu_s'] / ours['cpu_s']:.2f} times the processor's time and "
            f"{pandas['peak_mib'] / ours['peak_mib']:.2f} times the memory"
        )
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def line(name: str, found: dict[str, float]) -> str:
    """Return one side's figures as a line."""
    wall_s, cpu_s, peak_mib = found["wall_s"], found["cpu_s"], found["peak_mib"]
    return f"{name:<11} {wall_s:8.2f} s  {cpu_s:8.2f} s of CPU  {peak_mib:8.0f} MiB"


def write_study(folder: Path, count: int) -> dict[str, Any]:
    """Write a plan and its runs' files, or take those of the same size that are there."""
    import numpy as np

    from llenergymeasure.files import write_text
    from llenergymeasure.ids import experiment_id
    from llenergymeasure.results.layout import StudyFolder
    from llenergymeasure.results.table import RUN_SCHEMA

    study = StudyFolder(folder)
    if study.plan.is_file():
        plan: dict[str, Any] = json.loads(study.plan.read_bytes())
        if len(plan["runs"]) == count:
            return plan
    runs = []
    for place in range(count):
        config = {"model": "tiny-llama", "pytorch": {"batch_size": 1 + place // CYCLES}}
        runs.append(
            {
                "experiment": experiment_id(config),
                "cycle": 1 + place % CYCLES,
                "order": place + 1,
                "backend": "pytorch",
                "runner": "local",
                "config": config,
            }
        )
    rng = np.random.default_rng(1)
    for run in runs:
        _write_run(study, run, RUN_SCHEMA, float(rng.normal(1000.0, 20.0)))
    plan = {
        "schema_version": 1,
        "study": "benchmark",
        "study_design_hash": "0" * 64,
        "runs": runs,
        "left_out": [],
        "swept": ["pytorch.batch_size"],
    }
    write_text(study.plan, json.dumps(plan))
    return plan


def _write_run(study: Any, run: dict[str, Any], schema: Any, energy_j: float) -> None:
    """Write one run as write_run_row does, without its fsync: nothing here needs to last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llenergymeasure.results.table import ROW_FORMAT, rows_table

    samples = {pa.string(): "NVIDIA H200 80GB HBM3", pa.int64(): 2048, pa.float64(): energy_j}
    row = {field.name: samples.get(field.type, ["gpu"]) for field in schema}
    row |= {name: run[name] for name in ("experiment", "cycle", "order", "backend", "runner")}
    row |= {"status": "completed", "kind": "measured", "validity": ["throttled"]}
    row["pytorch.batch_size"] = run["config"]["pytorch"]["batch_size"]
    folder = study.run(run["experiment"], run["cycle"])
    folder.path.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows_table([row]), folder.row, **ROW_FORMAT)
    folder.result.write_text("{}")


def measured(merge: Callable[[Path], float], folder: Path) -> dict[str, float]:
    """Return times, peak memory and checksum of a merge in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    process = context.Process(target=_measure, args=(merge, folder, answers))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{merge.__name__} ended with {process.exitcode}")
    found: dict[str, float] = answers.get()
    return found


def _measure(merge: Callable[[Path], float], folder: Path, answers: Any) -> None:
    start_s = time.perf_counter()
    total = merge(folder)
    wall_s = time.perf_counter() - start_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB
    cpu_s = time.process_time()
    found = {"wall_s": wall_s, "cpu_s": cpu_s, "peak_mib": peak_mib, "sum": round(total, 3)}
    answers.put(found)


def merge_ours(folder: Path) -> float:
    """Merge as the workflow does; return the sum of all energies, in joules."""
    import pyarrow.compute as pc

    from llenergymeasure.analysis.merge import merge_runs

    runs = merge_runs(json.loads((folder / "plan.json").read_bytes()), folder)
    return float(pc.sum(runs["energy_gross_j"]).as_py())


def merge_pandas(folder: Path) -> float:
    """Merge as a notebook would; return the sum of all energies, in joules."""
    import pandas

    plan = json.loads((folder / "plan.json").read_bytes())
    paths = [
        folder / "runs" / run["experiment"] / str(run["cycle"]) / "run.parquet"
        for run in plan["runs"]
    ]
    runs = pandas.concat([pandas.read_parquet(path) for path in paths], ignore_index=True)
    return float(runs["energy_gross_j"].sum())


if __name__ == "__main__":
    main()
