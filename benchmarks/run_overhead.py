"""What a run costs beyond its own phases: wall time less settle, idle, load, warm-up and window.

The engine is imported while it loads, so its import is part of ``load``; it is listed apart, as
measured in an interpreter of its own. The aim is a median of at most 1.5 s of overhead. Run:

    python benchmarks/run_overhead.py --runs 5
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from single_runs import make_spec, run_spec

AIM_S = 1.5
OWN = ("settle", "idle_before", "load", "warmup", "idle_loaded", "measure", "idle_after")
SETTINGS: dict[str, Any] = {
    "model": "tiny-llama",
    "n": 4,
    "max_input_tokens": 16,
    "max_output_tokens": 8,
    "protocol": "quick",
}


def main() -> None:
    """Make the runs and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    count = parser.parse_args().runs
    rows = [_one() for _ in range(count)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"medians of {count} runs:")
    for name in names:
        values = [row.get(name, 0.0) for row in rows]
        print(f"  {name:<24}{statistics.median(values):8.2f} s")
    print(f"  {'aim for the overhead':<24}{AIM_S:8.2f} s")
    print(f"import of the engine, in `load`: {_import_s(count):.2f} s")


def _one() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        spec = make_spec(SETTINGS)
        began_s = time.monotonic()
        result = run_spec(spec, Path(folder))
        wall_s = time.monotonic() - began_s
    phases = {
        phase["name"]: (phase["end_monotonic_ns"] - phase["start_monotonic_ns"]) / 1e9
        for phase in result["phases"]
    }
    began_ns = result["phases"][0]["start_monotonic_ns"]
    ended_ns = result["phases"][-1]["end_monotonic_ns"]
    return {
        "wall": wall_s,
        **phases,
        "overhead": wall_s - sum(phases.get(name, 0.0) for name in OWN),
        "- before the first phase": began_ns / 1e9 - began_s,
        "- after the last phase": began_s + wall_s - ended_ns / 1e9,
    }


def _import_s(count: int) -> float:
    """Return the median time that importing torch and transformers' model code takes."""
    code = (
        "import time; t = time.monotonic(); import torch; "
        "from transformers import AutoModelForCausalLM; print(time.monotonic() - t)"
    )
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(count)
    ]
    return statistics.median(times)


if __name__ == "__main__":
    main()
