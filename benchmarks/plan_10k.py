"""How long the plan of a study of 10,000 runs takes, process start included.

``python benchmarks/plan_10k.py [--repeats N]`` prints a line for each shape of study: the
median, the least and the most wall time and the median CPU time, in seconds. On a busy machine
the CPU time is the one to compare.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = {
    "10,000 experiments x 1 cycle": (
        "model: tiny-llama\n"
        "sweep:\n"
        "  n: {min: 1, max: 100, num: 100}\n"
        "  pytorch.batch_size: {min: 1, max: 100, num: 100}\n"
        "execution: {n_cycles: 1}\n"
    ),
    "3,334 experiments x 3 cycles": (
        "model: tiny-llama\nsweep:\n  random_seed: {min: 1, max: 3334, num: 3334}\n"
    ),
    "10,000 explicit experiments x 1 cycle": (
        "model: tiny-llama\nexecution: {n_cycles: 1}\nexperiments:\n"
        + "".join(f"  - {{n: {n}, decoder: {{top_k: {n % 50}}}}}\n" for n in range(1, 10_001))
    ),
}

PROGRAM = """
import sys
from pathlib import Path
from llenergymeasure.workload.load_study import load_study
from llenergymeasure.cli.plan import plan_lines
from llenergymeasure.plan import make_plan
plan = make_plan(load_study(Path(sys.argv[1])))
content = plan.to_json_bytes()
list(plan_lines(plan, None, None))
print(len(plan.runs), len(content))
"""


def plan_once(study: Path) -> tuple[float, float]:
    """Return wall time and CPU time in seconds."""
    started, used = time.perf_counter(), children_cpu_s()
    subprocess.run([sys.executable, "-c", PROGRAM, str(study)], check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - started, children_cpu_s() - used


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        for name, text in SHAPES.items():
            study = Path(folder) / "study.yaml"
            study.write_text(text)
            walls, cpus = zip(*(plan_once(study) for _ in range(repeats)), strict=True)
            print(
                f"{name}: wall median {statistics.median(walls):.2f} s, "
                f"{min(walls):.2f} to {max(walls):.2f} s over {repeats}; "
                f"CPU median {statistics.median(cpus):.2f} s"
            )
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory: {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
