"""Side by side: `snakemake -n` of a large study, and of a bare Snakefile with as many jobs.

    python benchmarks/dry_run.py [--runs 10000] [--rounds 3]

Both alternate in one call; the figure is the median of the ratios of their wall times. The bare
workflow is what anyone would write for so many jobs: one rule with two wildcards, one that merges,
and the same profile.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BARE = """
import json
RUNS = json.load(open("runs.json"))
rule all:
    input: [f"results/{e}/{c}/result.json" for e, c in RUNS], "results/summary"
rule measure:
    output: "results/{experiment}/{cycle}/result.json"
    shell: "touch {output}"
rule summary:
    input: [f"results/{e}/{c}/result.json" for e, c in RUNS]
    output: "results/summary"
    shell: "touch {output}"
"""


def _study(folder: Path, runs: int) -> Path:
    lengths = list(range(1, runs // 5 + 1))
    path = folder / "study.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "large",
                "model": "tiny-llama",
                "sweep": {"max_output_tokens": lengths},
                "execution": {"n_cycles": 5, "cycle_order": "shuffled"},
            }
        )
    )
    return path


def _bare(folder: Path, runs: int) -> Path:
    pairs = [(f"{number // 5:012x}", number % 5 + 1) for number in range(runs)]
    (folder / "runs.json").write_text(json.dumps(pairs))
    path = folder / "Snakefile"
    path.write_text(BARE)
    return path


def _time_s(folder: Path, *arguments: str) -> float:
    profile = str(ROOT / "profiles" / "default")
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--profile", profile]
    before = time.perf_counter()
    done = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    elapsed_s = time.perf_counter() - before
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return elapsed_s


def main() -> None:
    """Print each round and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ours, bare = Path(scratch, "ours"), Path(scratch, "bare")
        ours.mkdir()
        bare.mkdir()
        study, snakefile = _study(ours, options.runs), _bare(bare, options.runs)
        ratios = []
        for number in range(options.rounds):
            ours_s = _time_s(
                ours, "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(study)
            )
            bare_s = _time_s(bare, "--snakefile", str(snakefile))
            ratios.append(ours_s / bare_s)
            print(f"round {number + 1}: study {ours_s:.2f} s, bare {bare_s:.2f} s", flush=True)
    print(f"{options.runs} runs: median ratio {statistics.median(ratios):.2f} (study / bare)")


if __name__ == "__main__":
    main()
