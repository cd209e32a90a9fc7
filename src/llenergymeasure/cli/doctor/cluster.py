"""SLURM: whether its commands are here and its controller answers."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator

from llenergymeasure.cli.doctor.finding import Finding

_ASK_LIMIT_S = 30.0
_PLUGIN = "snakemake_executor_plugin_slurm"


def cluster() -> Iterator[Finding]:
    """Look at SLURM."""
    if shutil.which("sbatch") is None:
        yield Finding("SLURM", "absent", "no command sbatch: this is no cluster's login node")
        return
    yield _controller()
    if importlib.util.find_spec(_PLUGIN) is None:
        remedy = "pip install snakemake-executor-plugin-slurm"
        yield Finding("SLURM for Snakemake", "absent", "its plugin is not here", remedy)
    else:
        yield Finding("SLURM for Snakemake", "ok", _PLUGIN.replace("_", "-"))
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        yield Finding("this shell", "ok", f"inside job {job}: runs here use its allotment")


def _controller() -> Finding:
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format", "%P %D %a %G"],
            capture_output=True,
            text=True,
            timeout=_ASK_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        return Finding("SLURM", "wrong", "sbatch is here and sinfo is not", "reinstall its clients")
    except subprocess.TimeoutExpired:
        return Finding("SLURM", "wrong", f"its controller is silent for {_ASK_LIMIT_S:g} s")
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        remedy = "is this a login node of the cluster, and slurmctld running?"
        return Finding("SLURM", "wrong", f"its controller does not answer: {said}", remedy)
    partitions = [line.split() for line in done.stdout.splitlines() if line.strip()]
    named = ", ".join(f"{name} ({nodes} nodes, {state})" for name, nodes, state, *_ in partitions)
    return Finding("SLURM", "ok", named or "it answers, and has no partition")
