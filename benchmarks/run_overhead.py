"""What a run costs beyond its own phases: wall time less settle, idle, load, warm-up and window.

The engine is imported while it loads, so its import is part of ``load``; it is listed apart, as
measured in an interpreter of its own. Ends with 1 where the median overhead is above 1.5 s.

    python benchmarks/run_overhead.py --runs 5
"""

import statistics
import subprocess
import sys
from typing import Any

import harness

AIM_S = 1.5
OWN = ("settle", "idle_before", "load", "warmup", "idle_loaded", "measure", "idle_after")
SETTINGS: dict[str, Any] = {
    "model": "tiny-llama",
    "n": 4,
    "max_input_tokens": 16,
    "max_output_tokens": 8,
    "protocol": "quick",
}
IMPORT = """
import time; start_s = time.monotonic()
import torch
from transformers import AutoModelForCausalLM
print(time.monotonic() - start_s)
"""


def main() -> int:
    """Make the runs, print the medians; return 1 if the overhead's is above the aim."""
    parser = harness.parser(__doc__)
    parser.add_argument("--runs", type=int, default=5)
    count = harness.begin(parser).runs
    medians = harness.medians([_phase_times() for _ in range(count)])
    print(f"medians of {count} runs:")
    for name, median_s in {**medians, "aim for the overhead": AIM_S}.items():
        print(f"  {name:<24}{median_s:8.2f} s")
    print(f"import of the engine, in `load`: {_import_s(count):.2f} s")
    return int(medians["overhead"] > AIM_S)


def _phase_times() -> dict[str, float]:
    result, began_s, wall_s = harness.run_once(SETTINGS)
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
    command = [sys.executable, "-c", IMPORT]
    results = [subprocess.run(command, capture_output=True, check=True) for _ in range(count)]
    return statistics.median(float(result.stdout) for result in results)


if __name__ == "__main__":
    sys.exit(main())
