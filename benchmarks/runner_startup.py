"""What each runner adds to the start of a run: the same worker, local, in Apptainer, in Docker.

    python benchmarks/runner_startup.py [--rounds 10] [--sif FILE] [--docker IMAGE]

Each round starts the worker's interpreter with what every run imports first (the supervisor's
module) once with each runner, in turn, so that a drift of the machine meets all alike. Docker's
figure includes what the launcher itself asks the daemon. Prints the medians as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llenergymeasure.containers import docker
from llenergymeasure.containers.apptainer import call_variables, exec_command
from llenergymeasure.containers.surroundings import PYTHON, Surroundings, nvidia_here

ROOT = Path(__file__).resolve().parents[1]
STATEMENT = "import llenergymeasure.run.worker"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sif", help="an image's file or folder for Apptainer")
    parser.add_argument("--docker", help="an image's name for Docker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        surroundings = Surroundings.of([], Path(name) / "results")
        runners: dict[str, Callable[[], None]] = {"local": _local}
        if options.sif:
            runners["apptainer"] = lambda: _apptainer(options.sif, surroundings)
        if options.docker:
            runners["docker"] = lambda: _docker(options.docker, surroundings)
        times: dict[str, list[float]] = {runner: [] for runner in runners}
        for start in runners.values():
            start()
        for _ in range(options.rounds):
            for runner, start in runners.items():
                before = time.perf_counter()
                start()
                times[runner].append(time.perf_counter() - before)
    medians = {runner: statistics.median(each) for runner, each in times.items()}
    table = {
        runner: {
            "median_s": round(median, 4),
            "over_local_s": round(median - medians["local"], 4),
            "spread_s": round(max(times[runner]) - min(times[runner]), 4),
        }
        for runner, median in medians.items()
    }
    print(json.dumps({"rounds": options.rounds, "runners": table}, indent=1))


def _local() -> None:
    subprocess.run([sys.executable, "-c", STATEMENT], check=True)


def _apptainer(image: str, surroundings: Surroundings) -> None:
    variables = call_variables(surroundings.mounts, surroundings.variables, nvidia=nvidia_here())
    words = exec_command(image, [PYTHON, "-c", STATEMENT])
    subprocess.run(words, env=os.environ | variables, check=True)


def _docker(image: str, surroundings: Surroundings) -> None:
    engine = docker.find_engine()
    docker.remove_abandoned(engine)
    words = docker.run_command(
        engine,
        image,
        [PYTHON, "-c", STATEMENT],
        name=f"llem-start-{os.getpid()}",
        mounts=surroundings.mounts,
        variables=surroundings.variables,
    )
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main()
