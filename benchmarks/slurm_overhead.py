"""What a job on SLURM costs around its work: this workflow beside a bare Snakefile.

    python benchmarks/slurm_overhead.py [--jobs 12] [--at-once 4]

Needs a SLURM that takes jobs of one processor, as ``.ci/start_slurm.sh FOLDER`` makes one. Both
sides run as many jobs with the same stand-in for the engine, which sleeps 0 s, through
snakemake-executor-plugin-slurm under the same profile; the bare one is a rule with two wildcards.
A job's time is from its start to its end as SLURM tells them (to the second), so the queue and
the pauses between looks at it are left out; the whole call's time, with them, stands beside it.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import scale_10k as scale


def main() -> None:
    """Print both sides' time per job and their difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    # Beside this repository, for compute nodes see no other machine's /tmp.
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slurm-overhead-", dir=build) as scratch:
        ours, bare = Path(scratch, "ours"), Path(scratch, "bare")
        source = scale.copied_workflow(Path(scratch, "workflow"))
        runs = scale.write_study(ours, options.jobs)
        scale.prepare(ours, runs)
        scale.write_bare(bare, runs, source)
        scale.prepare(bare, runs)
        profile = ["--workflow-profile", str(source / "profiles" / "slurm")]
        profile += ["--default-resources", "mem_mb=500", "runtime=10", "cpus_per_task=1"]
        profile += ["--set-resources", "measure:gpu=0", "--jobs", str(options.at_once)]
        profile += ["--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "10"]
        told = {}
        for name, folder, command in (
            ("workflow", ours, scale.snakemake(source, *profile)),
            ("bare", bare, [sys.executable, "-m", "snakemake", *profile]),
        ):
            cost = scale.cost_of(folder, command, source)
            per_job = _job_times_s(folder)
            told[name] = statistics.mean(per_job)
            print(
                f"{name:<9} {len(per_job)} jobs: {told[name]:.1f} s a job "
                f"({min(per_job):.0f} to {max(per_job):.0f}); the call took {cost.wall_s:.0f} s",
                flush=True,
            )
    print(f"difference: {told['workflow'] - told['bare']:+.1f} s a job")


def _job_times_s(folder: Path) -> list[float]:
    """Return how long each job of a call ran, from SLURM's own times."""
    numbers = re.findall(r"SLURM jobid (\d+)", (folder / "log").read_text())
    times = []
    for number in numbers:
        done = subprocess.run(
            ["scontrol", "show", "job", "-o", number], capture_output=True, text=True, check=True
        )
        began, ended = (
            datetime.fromisoformat(re.search(rf"{name}=(\S+)", done.stdout)[1])  # type: ignore[index]
            for name in ("StartTime", "EndTime")
        )
        times.append((ended - began).total_seconds())
    if not times:
        sys.exit(json.dumps((folder / "log").read_text()[-2000:]))
    return times


if __name__ == "__main__":
    main()
