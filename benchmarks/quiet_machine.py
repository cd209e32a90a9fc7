"""What strangers on the CPUs do to a run, and that nothing is said where there are none.

    python benchmarks/quiet_machine.py [--loops 0,1,2,4] [--rounds 3] [--undisturbed 20]

In each round one run is made beside each number of busy loops. The table has, as medians over the
rounds, the part of the CPUs that others used, how much J/token and token/s differ from those of
the rounds' runs with the fewest loops, and how many runs were marked. Then so many runs are made
without a loop, of which none is to have a code of a disturbance. On a machine with other work the
first column shows it: the figures and the codes are then of that work too. Estimated energy follows
the time taken.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness

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


@dataclass(frozen=True)
class Run:
    """What one run said."""

    others_share: float
    j_per_token: float
    tokens_per_s: float
    codes: Sequence[str]


def main() -> None:
    """Print the table and the undisturbed runs."""
    parser = harness.parser(__doc__)
    parser.add_argument("--loops", default="0,1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--undisturbed", type=int, default=20)
    options = harness.begin(parser)
    counts = [int(count) for count in options.loops.split(",")]
    made: dict[int, list[Run]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            made[count].append(_run(f"{count} loops", count))
    if options.rounds:
        _table(made)
    undisturbed = [_run(f"undisturbed {n + 1}", 0) for n in range(options.undisturbed)]
    marked = sum(bool(run.codes) for run in undisturbed)
    print(f"{marked} of {len(undisturbed)} undisturbed runs have a code")


def _table(made: dict[int, list[Run]]) -> None:
    alone = made[min(made)]
    print(f"medians of {len(alone)} runs")
    print("loops  others' share   J/token   token/s    marked")
    for count, runs in made.items():
        change = [
            _median(runs, name) / _median(alone, name) - 1
            for name in ("j_per_token", "tokens_per_s")
        ]
        marked = sum(bool(run.codes) for run in runs)
        print(
            f"{count:5d}  {_median(runs, 'others_share'):12.1%} {change[0]:+9.0%} {change[1]:+9.0%}"
            f"    {marked} of {len(runs)}"
        )


def _run(name: str, loops: int) -> Run:
    with _busy(loops), tempfile.TemporaryDirectory() as scratch:
        result = harness.run_spec(harness.make_spec(SETTINGS), Path(scratch))
    run = Run(
        result["provenance"]["cpu_use"]["others_share"],
        result["energy"]["per_output_token_j"],
        result["performance"]["output_tokens_per_s"],
        sorted(CODES & set(result["validity"])),
    )
    codes = ", ".join(run.codes) or "no code"
    print(f"{name}: others {run.others_share:.1%}, {run.j_per_token:.3g} J/token, {codes}")
    return run


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


def _median(runs: Sequence[Run], name: str) -> float:
    return statistics.median(float(getattr(run, name)) for run in runs)


if __name__ == "__main__":
    main()
