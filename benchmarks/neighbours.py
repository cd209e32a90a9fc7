"""Do runs side by side disturb each other? Runs alone beside pairs, on two simulated GPUs.

    python benchmarks/neighbours.py [--rounds 3]

A round has one run alone and two at once, each of the two with a card and a share of the cores of
its own, as ``--cores N --resources gpu=2`` gives them. The figure is the ratio of their speeds in
output tokens a second, median over rounds: 1 means that a neighbour is not felt. The run alone has
the same share of the cores, so that nothing but the neighbour differs. The engine computes on the
processor: what real cards share (power, air, PCIe) is not in it. Needs a C compiler.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from single_runs import make_spec

from llenergymeasure.machine.cpu_share import AT_ONCE_VARIABLE, cpu_shares
from nvml_sim import sim

SETTINGS: dict[str, Any] = {
    "model": "tiny-llama",
    "n": 8,
    "max_input_tokens": 32,
    "max_output_tokens": 32,
    "protocol": "quick",
    "window": {"min_seconds": 8},
}


def main() -> None:
    """Print each round and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    library, reason = sim.library_or_reason()
    if library is None or not cpu_shares(2):
        sys.exit(reason or "fewer than two cores")
    ratios = []
    for number in range(options.rounds):
        (alone,) = _side_by_side(1)
        pair = _side_by_side(2)
        ratios.append(statistics.mean(pair) / alone)
        told = " and ".join(f"{speed:.1f}" for speed in pair)
        print(f"round {number + 1}: alone {alone:.1f} token/s, side by side {told}", flush=True)
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"median ratio {statistics.median(ratios):.3f} ({spread} over {len(ratios)} rounds)")


def _side_by_side(count: int) -> list[float]:
    """Make so many runs at once; return the speed of each in output tokens a second."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cards = [sim.Device(uuid=f"GPU-{name}") for name in "ab"]
        variables = {
            **sim.environment(sim.Trace(cards).write(folder)),
            AT_ONCE_VARIABLE: "2",
            "LLEM_RUNTIME_DIR": str(folder / "runtime"),
        }
        variables.pop("CUDA_VISIBLE_DEVICES", None)
        (folder / "spec.json").write_text(json.dumps(make_spec(SETTINGS)))
        places = [folder / f"run-{number}" for number in range(count)]
        started = [_start(folder / "spec.json", place, variables) for place in places]
        codes = [process.wait() for process in started]
        if any(codes):
            sys.exit("a run failed")
        return [_speed(place) for place in places]


def _start(spec: Path, out: Path, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    script = ROOT / "scripts" / "measure_pytorch.py"
    command = [sys.executable, str(script), "--spec", str(spec), "--out", str(out)]
    return subprocess.Popen(command, env={**os.environ, **variables})


def _speed(out: Path) -> float:
    result = json.loads((out / "result.json").read_text())
    return float(result["performance"]["output_tokens_per_s"])


if __name__ == "__main__":
    main()
