"""What strangers on the CPUs do to a run, and that nothing is said where there are none.

    python benchmarks/quiet_machine.py [--loops 0,1,2,4] [--rounds 3] [--undisturbed 20] [--out F]

In each round one run is made beside each number of busy loops. The table has, as medians over the
rounds, the part of the CPUs that others used, how much J/token and token/s differ from those of
the rounds' runs without a loop, and how many runs were marked. Then so many runs are made without
a loop, of which none is to have a code of a disturbance. On a machine with other work the first
column shows it: the figures are then of that work too. Estimated energy follows the time taken.
Each run is a line of F as it ends; called again, the script makes those that are missing.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks")]

from single_runs import make_spec, run_spec

from llenergymeasure.processes import die_with_parent

SETTINGS: dict[str, Any] = {
    "model": "tiny-llama",
    "dataset": "synthetic",
    "n": 8,
    "max_input_tokens": 32,
    "max_output_tokens": 64,
    "protocol": "quick",
    "window": {"min_seconds": 6},
}
CODES = {"cpu_contended", "other_process", "stalled"}


def main() -> None:
    """Print the table and the undisturbed runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", default="0,1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--undisturbed", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("quiet_machine.jsonl"))
    options = parser.parse_args()
    counts = [int(count) for count in options.loops.split(",")]
    made: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}
    for number in range(options.rounds):
        for count in counts:
            made[count].append(_once(options.out, f"{count} loops", number, count))
            print(f"{count} loops: {_told(made[count][-1])}", file=sys.stderr, flush=True)
    if options.rounds:
        _table(made)
    marked = 0
    for number in range(options.undisturbed):
        found = _once(options.out, "undisturbed", number, 0)
        marked += bool(found["codes"])
        print(f"undisturbed {number + 1}: {_told(found)}", flush=True)
    if options.undisturbed:
        print(f"{marked} of {options.undisturbed} undisturbed runs have a code")


def _table(made: dict[int, list[dict[str, Any]]]) -> None:
    alone = {name: _median(made[min(made)], name) for name in ("j_per_token", "tokens_per_s")}
    print(f"{os.cpu_count()} CPUs; medians of {len(made[min(made)])} runs")
    print("loops  others' share   J/token   token/s    marked")
    for count, runs in made.items():
        change = [_median(runs, name) / alone[name] - 1 for name in alone]
        marked = sum(bool(run["codes"]) for run in runs)
        print(
            f"{count:5d}  {_median(runs, 'others_share'):12.1%} {change[0]:+9.0%} {change[1]:+9.0%}"
            f"    {marked} of {len(runs)}"
        )


def _once(out: Path, series: str, number: int, count: int) -> dict[str, Any]:
    """Return a run of a series: as it was kept, or made now."""
    kept = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    for run in kept:
        if (run["series"], run["number"]) == (series, number):
            return dict(run)
    run = {"series": series, "number": number, **_run(count)}
    with out.open("a") as lines:
        lines.write(json.dumps(run) + "\n")
    return run


def _run(count: int) -> dict[str, Any]:
    with _busy(count), tempfile.TemporaryDirectory() as scratch:
        result = run_spec(make_spec(SETTINGS), Path(scratch))
    return {
        "others_share": result["provenance"]["cpu_use"]["others_share"],
        "j_per_token": result["energy"]["per_output_token_j"],
        "tokens_per_s": result["performance"]["output_tokens_per_s"],
        "codes": sorted(CODES & set(result["validity"])),
    }


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Have so many processes that do nothing but use a CPU."""
    command = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(command, preexec_fn=die_with_parent) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def _told(run: dict[str, Any]) -> str:
    codes = ", ".join(run["codes"]) or "no code"
    return f"others {run['others_share']:.1%}, {run['j_per_token']:.3g} J/token, {codes}"


if __name__ == "__main__":
    main()
