"""What strangers on the CPUs do to a run, and that nothing is said where there are none.

    python benchmarks/quiet_machine.py [--loops 0,1,2,4] [--rounds 3] [--undisturbed 20]

In each round one run is made beside each number of busy loops. The table has, as medians over the
rounds, the part of the CPUs that others used, how much J/token and token/s differ from those of
the rounds' runs with the fewest loops, and how many runs were marked. Then so many runs are made
without a loop, of which none is to have a code of a disturbance. On a machine with other work the
first column shows it: the figures and the codes are then of that work too. Estimated energy follows
the time taken.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


RunFigures = tuple[dict[str, float], list[str]]
"""One run's figures, and the codes of a disturbance that it has."""


def main() -> None:
    """Print the table and the undisturbed runs."""
    parser = harness.parser(__doc__)
    parser.add_argument("--loops", default="0,1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--undisturbed", type=int, default=20)
    options = harness.begin(parser)
    counts = [int(count) for count in options.loops.split(",")]
    runs_by_count: dict[int, list[RunFigures]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            runs_by_count[count].append(_run(f"{count} loops", count))
    if options.rounds:
        _table(runs_by_count)
    undisturbed = [_run(f"undisturbed {n + 1}", 0) for n in range(options.undisturbed)]
    marked_count = sum(bool(codes) for _, codes in undisturbed)
    print(f"{marked_count} of {len(undisturbed)} undisturbed runs have a code")


def _table(runs_by_count: dict[int, list[RunFigures]]) -> None:
    medians = {
        count: harness.medians([row for row, _ in runs]) for count, runs in runs_by_count.items()
    }
    alone = medians[min(runs_by_count)]
    print(f"medians of {len(runs_by_count[min(runs_by_count)])} runs")
    print("loops  others' share   J/token   token/s    marked")
    for count, median in medians.items():
        change = [median[name] / alone[name] - 1 for name in ("J/token", "token/s")]
        marked_count = sum(bool(codes) for _, codes in runs_by_count[count])
        print(
            f"{count:5d}  {median['others']:12.1%} {change[0]:+9.0%} {change[1]:+9.0%}"
            f"    {marked_count} of {len(runs_by_count[count])}"
        )


def _run(name: str, loops: int) -> RunFigures:
    with _busy(loops):
        result = harness.run_once(SETTINGS).result
    figures = {
        "others": result["provenance"]["cpu_use"]["others_share"],
        "J/token": result["energy"]["per_output_token_j"],
        "token/s": result["performance"]["output_tokens_per_s"],
    }
    codes = sorted(CODES & set(result["validity"]))
    code_text = ", ".join(codes) or "no code"
    print(f"{name}: others {figures['others']:.1%}, {figures['J/token']:.3g} J/token, {code_text}")
    return figures, codes


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


if __name__ == "__main__":
    main()
