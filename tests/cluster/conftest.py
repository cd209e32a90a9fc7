"""A real SLURM of two nodes on this machine, each with two simulated GPUs of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from cluster.slurm import NODES, Cluster
from containers.conftest import base_root, images, sif
from nvml_sim import sim
from support.studies import ROOT

__all__ = ["base_root", "cluster", "images", "sif"]

PARTS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munge")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    missing = [part for part in PARTS if shutil.which(part) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: .ci/install_slurm.sh installs SLURM")
    if os.geteuid() != 0:
        pytest.skip("a cluster of this machine's own is started by root")
    sim.library_or_skip()
    folder = tmp_path_factory.mktemp("slurm")
    # Daemons and jobs look up the whole path, also those of other users.
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(0o755)
    for node in NODES:
        cards = [
            sim.Device(name=f"Simulated {node}", uuid=f"GPU-{node}-{place}") for place in (0, 1)
        ]
        sim.Trace(cards).write(folder, f"{node}.txt")
        (folder / f"runtime-{node}").mkdir()
    prolog = folder / "task_prolog.sh"
    prolog.write_text(
        "#!/bin/sh\n"
        f"echo export NVML_SIM_TRACE={folder}/$SLURMD_NODENAME.txt\n"
        f"echo export LLEM_RUNTIME_DIR={folder}/runtime-$SLURMD_NODENAME\n"
    )
    prolog.chmod(0o755)
    settings = {"NODES": "2", "GPUS": "2", "CPUS": "2", "MEMORY_MB": "13000"}
    started = subprocess.run(
        [str(ROOT / ".ci/start_slurm.sh"), str(folder / "cluster")],
        env={**os.environ, **settings, "TASK_PROLOG": str(prolog)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    running = Cluster(folder / "cluster", sim.environment(folder / "n1.txt"))
    try:
        yield running
    finally:
        running.end()
        subprocess.run(
            [str(ROOT / ".ci/stop_slurm.sh"), str(folder / "cluster")], timeout=120, check=True
        )
