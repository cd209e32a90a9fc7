"""Merging a study's runs: ours beside pandas' read-and-concatenate, on the same files.

Writes ``--runs`` synthetic ``run.parquet`` files with their records, then, each in a process of
its own: merges them for the first time into ``runs.parquet``; adds ``--new`` runs and merges
again; groups all of them by two settings; and reads and concatenates the first ones
(``--pandas-runs``: pandas' time grows faster than their number) with pandas. Prints wall time,
processor time and peak memory. The files have just been written: they are in the page cache for
all.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

CYCLES = 5
KIB, MIB = 1024, 1024 * 1024

LIMITS = {"merge": 60.0, "merge again": 5.0, "group by": 2.0}
"""Most seconds for 100,000 runs; memory stays below 1 GiB."""

PART_RUNS = 500
"""Runs that one process writes at a time."""


def main() -> None:
    """Write the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--pandas-runs", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help="keep the files here; a temporary one if not")
    parser.add_argument("--check", action="store_true", help="end with 1 if a limit is missed")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="merge_runs-"))
    try:
        kept = _measure_all(folder, arguments)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    raise SystemExit(arguments.check and not kept)


def _measure_all(folder: Path, arguments: argparse.Namespace) -> bool:
    count, new = arguments.runs, arguments.new
    write_study(folder, count)
    print(f"{count:,} runs, one run.parquet each", flush=True)
    first = measured(merge, folder)
    print(line("merge", first), flush=True)
    write_study(folder, count + new)
    again = measured(merge, folder)
    print(line("merge again", again, f"{new} new"), flush=True)
    grouped = measured(group_by, folder)
    print(line("group by", grouped, f"{grouped['read']:,.0f} groups"), flush=True)
    few = min(arguments.pandas_runs, count)
    pandas = measured(merge_pandas, folder, few)
    print(line("pandas", pandas, f"the first {few:,} files only"), flush=True)
    ours = measured(merge_first, folder, few)
    print(line("merge", ours, "the same files"), flush=True)
    if ours["sum"] != pandas["sum"]:
        raise SystemExit(f"the tables differ: {ours['sum']} against {pandas['sum']}")
    print(
        f"pandas takes {pandas['wall_s'] / ours['wall_s']:.1f} times the time, "
        f"{pandas['cpu_s'] / ours['cpu_s']:.1f} times the processor's time and "
        f"{pandas['peak_mib'] / ours['peak_mib']:.1f} times the memory"
    )
    found = {"merge": first, "merge again": again, "group by": grouped}
    in_time = all(found[name]["wall_s"] <= limit for name, limit in LIMITS.items())
    return in_time and all(each["peak_mib"] <= KIB for each in found.values())


def line(name: str, found: dict[str, float], more: str = "") -> str:
    """Return one step's figures as a line."""
    wall_s, cpu_s, peak_mib = found["wall_s"], found["cpu_s"], found["peak_mib"]
    return f"{name:<12}{wall_s:8.2f} s {cpu_s:8.2f} s of CPU {peak_mib:7.0f} MiB  {more}".rstrip()


def write_study(folder: Path, count: int) -> None:
    """Write a plan of so many runs, and the files of those that have none."""
    from llenergymeasure.files import write_text
    from llenergymeasure.ids import experiment_id
    from llenergymeasure.results.layout import StudyFolder

    study = StudyFolder(folder)
    before = 0
    if study.plan.is_file():
        before = len(json.loads(study.plan.read_bytes())["runs"])
        if before == count:
            return
    runs = []
    for place in range(count):
        number = place // CYCLES
        config = {
            "model": "tiny-llama",
            "precision": ("bf16", "fp16")[number % 2],
            "pytorch": {"batch_size": 1 + number % 64, "seed": number},
        }
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
    _write_runs(study, runs[before:])
    plan = {
        "schema_version": 1,
        "study": "benchmark",
        "study_design_hash": "0" * 64,
        "left_out": [],
        "swept": ["pytorch.batch_size", "pytorch.seed"],
        "runs": runs,
    }
    write_text(study.plan, json.dumps(plan))


def _write_runs(study: Any, runs: Sequence[dict[str, Any]]) -> None:
    """Write runs with their records, in several processes."""
    import numpy as np

    energies_j = np.random.default_rng(len(runs)).normal(1000.0, 20.0, len(runs)).tolist()
    context = multiprocessing.get_context("spawn")
    parts = [
        (study, runs[at : at + PART_RUNS], energies_j[at : at + PART_RUNS])
        for at in range(0, len(runs), PART_RUNS)
    ]
    with context.Pool() as pool:
        pool.starmap(_write_part, parts)


def _write_part(study: Any, runs: Sequence[dict[str, Any]], energies_j: Sequence[float]) -> None:
    from results.synthetic import make_result, write_result

    for run, energy_j in zip(runs, energies_j, strict=True):
        write_result(study.path, make_result(run, energy_j=energy_j))


def measured(step: Callable[..., tuple[float, int]], *arguments: Any) -> dict[str, float]:
    """Return times, peak memory, checksum and count of a step in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.SimpleQueue()
    process = context.Process(target=_measure, args=(step, arguments, answers))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{step.__name__} ended with {process.exitcode}")
    found: dict[str, float] = answers.get()
    return found


def _measure(
    step: Callable[..., tuple[float, int]], arguments: Sequence[Any], answers: Any
) -> None:
    start_s = time.perf_counter()
    total, read = step(*arguments)
    wall_s = time.perf_counter() - start_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / MIB
    found = {"wall_s": wall_s, "cpu_s": time.process_time(), "peak_mib": peak_mib}
    answers.put(found | {"sum": round(total, 3), "read": float(read)})


def merge(folder: Path) -> tuple[float, int]:
    """Merge into ``runs.parquet`` as the workflow does; return the energies' sum and the rows."""
    import pyarrow.compute as pc

    from llenergymeasure.analysis.tables import write_runs

    plan = json.loads((folder / "plan.json").read_bytes())
    runs = write_runs(plan, folder, partial=False)
    return float(pc.sum(runs["energy_gross_j"]).as_py()), runs.num_rows


def merge_first(folder: Path, count: int) -> tuple[float, int]:
    """Merge the first runs alone, without what was read before."""
    import pyarrow.compute as pc

    from llenergymeasure.analysis.merge_cache import CACHE_NAME
    from llenergymeasure.analysis.tables import write_runs

    (folder / CACHE_NAME).unlink(missing_ok=True)
    plan = json.loads((folder / "plan.json").read_bytes())
    runs = write_runs({**plan, "runs": plan["runs"][:count]}, folder, partial=False)
    return float(pc.sum(runs["energy_gross_j"]).as_py()), runs.num_rows


def group_by(folder: Path) -> tuple[float, int]:
    """Give means by two settings from ``runs.parquet``; return their sum and number."""
    import pyarrow.compute as pc

    from llenergymeasure.analysis.pooling import summarise_by
    from llenergymeasure.analysis.tables import read_table
    from llenergymeasure.results.layout import RUNS_NAME

    metric = "energy_per_output_token_j"
    by = ["precision", "pytorch.batch_size"]
    table = summarise_by(read_table(folder, RUNS_NAME), by, metric)
    return float(pc.sum(table[f"{metric}_mean"]).as_py()), table.num_rows


def merge_pandas(folder: Path, count: int) -> tuple[float, int]:
    """Merge as a notebook would; return the sum of all energies, in joules, and files read."""
    import pandas

    plan = json.loads((folder / "plan.json").read_bytes())
    paths = [
        folder / "runs" / run["experiment"] / str(run["cycle"]) / "run.parquet"
        for run in plan["runs"][:count]
    ]
    runs = pandas.concat([pandas.read_parquet(path) for path in paths], ignore_index=True)
    runs.to_parquet(folder / "pandas.parquet")
    return float(runs["energy_gross_j"].sum()), len(paths)


if __name__ == "__main__":
    main()
