"""A study of thousands of runs from plan to status, beside a bare Snakefile with as many jobs.

    python benchmarks/scale_10k.py [--runs 10000]

A stand-in takes the engine's place, in a copy of the workflow that is thrown away: it moves a
record into place that was written before, sleeps 0 s and ends. The bare workflow, which is what
anyone would write for so many jobs, starts the same stand-in from one rule with two wildcards,
merges with another, and runs under the same profile. What differs is the workflow alone. For each
step: wall time, processor time of all its processes, and peak memory of the largest. On a busy
machine the processor time is the one to compare.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import ROOT

from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import load_study
from results.synthetic import make_result

CYCLES = 5
MIB = 1024 * 1024
LIMIT, MANY = 1.5, 1000
"""The ratio is judged from so many runs on: of few it is that of the programs' own starts."""

STAND_IN = """
import os, sys
words = sys.argv
out = words[words.index("--out") + 1]
run = words[words.index("--run") + 1]
os.makedirs(out, exist_ok=True)
for name in ("run.parquet", "result.json"):
    os.replace(f"prepared/{run}/{name}", f"{out}/{name}")
"""

BARE = """
import json
RUNS = json.load(open("runs.json"))
PLACES = [f"results/large/runs/{e}/{c}/result.json" for e, c in RUNS]
rule all:
    input: PLACES, "results/large/summary"
rule measure:
    output: "results/large/runs/{experiment}/{cycle}/result.json"
    resources: gpu=1
    shell:
        "result={output}; exec %s %s"
        ' --run {wildcards.experiment}/{wildcards.cycle} --out "${{result%%/*}}"'
rule summary:
    input: PLACES
    output: "results/large/summary"
    localrule: True
    shell: "touch {output}"
"""


@dataclass(frozen=True)
class Cost:
    """What a step cost: seconds of wall and processor time, and MiB of its largest process."""

    wall_s: float
    cpu_s: float
    peak_mib: float

    def __str__(self) -> str:
        """Return it as a part of a line."""
        return f"{self.wall_s:8.1f} s  {self.cpu_s:8.1f} s of CPU {self.peak_mib:6.0f} MiB"


def main() -> int:
    """Print each step's cost on both sides; return 1 if the ratio is above the limit."""
    parser = harness.parser(__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    options = harness.begin(parser)
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        ours, bare = Path(scratch, "ours"), Path(scratch, "bare")
        source = _copied_workflow(Path(scratch, "workflow"))
        runs = _write_study(ours, options.runs)
        _prepare(ours, runs)
        _write_bare(bare, runs, source)
        _prepare(bare, runs)
        print(f"{len(runs):,} runs, a stand-in for the engine that sleeps 0 s", flush=True)
        steps = {
            "plan": (_llem("plan", "study.yaml"), None),
            "dry run": (_snakemake(source, "-n", "--quiet"), _bare("-n", "--quiet")),
            "run and merge": (_snakemake(source), _bare()),
            "nothing to do": (_snakemake(source), _bare()),
            "status": (_llem("status", "study.yaml"), None),
        }
        totals = [[0.0, 0.0], [0.0, 0.0]]
        for name, commands in steps.items():
            told = []
            for side, (folder, command) in enumerate(zip((ours, bare), commands, strict=True)):
                if command is None:
                    told.append("-")
                    continue
                cost = _cost_of(folder, command, source)
                totals[side][0] += cost.wall_s
                totals[side][1] += cost.cpu_s
                told.append(str(cost))
            print(f"{name:<14}{told[0]}   bare {told[1]}", flush=True)
        _check(ours, len(runs))
    (ours_wall_s, ours_cpu_s), (bare_wall_s, bare_cpu_s) = totals
    print(f"total         {ours_wall_s:8.1f} s  {ours_cpu_s:8.1f} s of CPU   ", end="")
    print(f"bare {bare_wall_s:8.1f} s  {bare_cpu_s:8.1f} s of CPU")
    wall, cpu = ours_wall_s / bare_wall_s, ours_cpu_s / bare_cpu_s
    text = f"ratio {wall:.2f} of wall time, {cpu:.2f} of processor time (to be at most {LIMIT})"
    if options.runs < MANY:
        print(f"{text}: not judged of fewer than {MANY:,} runs")
        return 0
    return harness.told([(max(wall, cpu) <= LIMIT, text)])


def _copied_workflow(folder: Path) -> Path:
    """Copy package and rules, with the stand-in where the engine's script is; return the folder."""
    for name in ("src", "rules", "scripts", "profiles", "config", "workflow", "envs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "scripts" / "measure_pytorch.py").write_text(STAND_IN)
    return folder


def _write_study(folder: Path, count: int) -> list[tuple[str, int]]:
    """Write the study; return its runs."""
    folder.mkdir()
    study = {
        "name": "large",
        "model": "tiny-llama",
        "sweep": {"max_output_tokens": list(range(1, count // CYCLES + 1))},
        "execution": {"n_cycles": CYCLES, "cycle_order": "shuffled"},
    }
    (folder / "study.yaml").write_text(json.dumps(study))
    plan = make_plan(load_study(folder / "study.yaml"))
    return [(run.experiment, run.cycle) for run in plan.runs]


def _write_bare(folder: Path, runs: list[tuple[str, int]], source: Path) -> None:
    folder.mkdir()
    (folder / "runs.json").write_text(json.dumps(runs))
    script = source / "scripts" / "measure_pytorch.py"
    (folder / "Snakefile").write_text(BARE % (sys.executable, script))


def _prepare(folder: Path, runs: list[tuple[str, int]]) -> None:
    """Write every run's row and record where the stand-in takes them from."""
    row = b"a row that nothing here reads"
    first = {"experiment": "", "cycle": 1, "order": 1, "config": {}}
    record = make_result({**first, "backend": "pytorch", "runner": "local"}).model_dump(mode="json")
    record["files"] = {"run.parquet": hashlib.sha256(row).hexdigest()}
    for order, (experiment, cycle) in enumerate(runs, start=1):
        place = folder / "prepared" / experiment / str(cycle)
        place.mkdir(parents=True)
        (place / "run.parquet").write_bytes(row)
        record |= {"experiment": experiment, "cycle": cycle, "order": order}
        (place / "result.json").write_text(json.dumps(record))


def _snakemake(source: Path, *arguments: str) -> list[str]:
    words = ["-m", "snakemake", "--snakefile", str(source / "Snakefile"), "--configfile"]
    return [sys.executable, *words, "study.yaml", *arguments]


def _bare(*arguments: str) -> list[str]:
    profile = ["--profile", str(ROOT / "profiles" / "default")]
    return [sys.executable, "-m", "snakemake", *profile, *arguments]


def _llem(*arguments: str) -> list[str]:
    program = "from llenergymeasure.cli import main; main()"
    return [sys.executable, "-c", program, *arguments]


def _cost_of(folder: Path, command: list[str], source: Path) -> Cost:
    """Run a command; return what it cost."""
    variables = {**os.environ, "PYTHONPATH": str(source / "src")}
    with (folder / "log").open("w+") as log:
        began_s = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=variables, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            sys.exit(log.read()[-3000:])
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MIB)


def _check(folder: Path, count: int) -> None:
    """Make sure that the work was really done."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "results/large/runs.parquet", columns=["status"])
    completed = rows["status"].to_pylist().count("completed")
    if completed != count:
        sys.exit(f"{completed} of {count} runs are complete")


if __name__ == "__main__":
    sys.exit(main())
