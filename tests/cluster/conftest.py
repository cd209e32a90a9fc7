"""A real SLURM of two nodes on this machine, each with two simulated GPUs of its own."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.slurm import NODES, Cluster
from containers.conftest import base_root, images, sif
from nvml_sim import sim
from support.studies import ROOT

__all__ = ["base_root", "cluster", "images", "sif"]

PARTS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munge")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all of pytest's processes: ports, munge and /etc/slurm are the machine's."""
    missing = [part for part in PARTS if shutil.which(part) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: .ci/install_slurm.sh installs SLURM")
    if os.geteuid() != 0:
        pytest.skip("a cluster of this machine's own is started by root")
    sim.library_or_skip()
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "slurm"
    with (shared / "slurm.turn").open("a") as turn, (shared / "slurm.users").open("a") as users:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not folder.exists():
            _start(folder)
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        running = Cluster(folder / "cluster", sim.environment(folder / "n1.txt"))
        try:
            yield running
        finally:
            running.end()
            fcntl.flock(turn, fcntl.LOCK_EX)
            with suppress(BlockingIOError):  # who still uses it ends it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(folder)


def _start(folder: Path) -> None:
    folder.mkdir()
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


def _stop(folder: Path) -> None:
    subprocess.run(["scancel", "--me"], timeout=30, check=False)
    subprocess.run(
        [str(ROOT / ".ci/stop_slurm.sh"), str(folder / "cluster")], timeout=120, check=True
    )
    shutil.rmtree(folder, ignore_errors=True)
