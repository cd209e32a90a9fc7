"""Several runs at a time on one machine, each on a simulated GPU of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.machine.cpu_share import cpu_shares
from nvml_sim import sim
from support.attempts import wait_for
from support.studies import environment, snakemake, write_study

pytestmark = pytest.mark.slow


@pytest.mark.skipif(len(cpu_shares(2)) < 2, reason="fewer than two cores")
def test_two_runs_at_a_time_share_neither_card_nor_processor(tmp_path: Path) -> None:
    library, reason = sim.library_or_reason()
    if library is None:
        pytest.skip(reason)
    cards = [sim.Device(uuid=f"GPU-{name}") for name in "ab"]
    base = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    variables = sim.environment(sim.Trace(cards).write(tmp_path), base=base)
    study = write_study(
        tmp_path,
        experiments=[{"random_seed": seed} for seed in (1, 2, 3, 4)],
        window={"min_seconds": 4},
    )
    done = snakemake(
        tmp_path,
        *("--configfile", str(study), "--cores", "2", "--resources", "gpu=2"),
        variables={**variables, "LLEM_RUNTIME_DIR": str(tmp_path / "runtime")},
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("results/*/runs/*/1/*.json")]
    runs = [each for each in results if "environment" in each]
    assert len(runs) == 4
    assert {card["uuid"] for run in runs for card in run["environment"]["gpus"]} == {
        "GPU-a",
        "GPU-b",
    }
    usable = len(os.sched_getaffinity(0))
    for run in runs:
        assert len(run["environment"]["gpus"]) == 1
        assert run["environment"]["cpu"]["usable_count"] <= usable // 2
    beside = [
        (one, other)
        for place, one in enumerate(runs)
        for other in runs[place + 1 :]
        if _overlap(one, other)
    ]
    assert beside, "no two runs were ever at work together"
    for one, other in beside:
        assert one["environment"]["gpus"][0]["uuid"] != other["environment"]["gpus"][0]["uuid"]


def start_llem(
    folder: Path, command: str, study: Path, variables: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    main = "from llenergymeasure.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", main, command, str(study)],
        cwd=folder,
        env=environment(**variables),
        stderr=subprocess.DEVNULL,
    )


def test_two_studies_use_a_card_each_and_a_third_the_first_that_becomes_free(
    tmp_path: Path,
) -> None:
    library, reason = sim.library_or_reason()
    if library is None:
        pytest.skip(reason)
    cards = [sim.Device(uuid=f"GPU-{name}") for name in "ab"]
    base = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    variables = sim.environment(sim.Trace(cards).write(tmp_path), base=base)
    variables["LLEM_RUNTIME_DIR"] = str(tmp_path / "runtime")
    with ExitStack() as workflows:
        called = {}
        for name, window_s in (("long", 60), ("short", 15), ("waits", 0.2)):
            folder = tmp_path / name
            folder.mkdir()
            study = write_study(folder, name=name, window={"min_seconds": window_s})
            called[name] = workflows.enter_context(start_llem(folder, "run", study, variables))
            if name != "waits":
                wait_for(lambda folder=folder: _phase(folder) == "measure")  # type: ignore[misc]
        assert [process.wait(240) for process in called.values()] == [0, 0, 0]
    used = {name: _card(tmp_path / name) for name in called}
    assert {used["long"], used["short"]} == {"GPU-a", "GPU-b"}
    assert used["waits"] == used["short"]


def _phase(folder: Path) -> str | None:
    found = [
        json.loads(path.read_text()) for path in folder.glob("results/*/runs/*/1/outcome.json")
    ]
    return found[0]["phase"] if found else None


def _card(folder: Path) -> str:
    (path,) = folder.glob("results/*/runs/*/1/result.json")
    (card,) = json.loads(path.read_text())["environment"]["gpus"]
    return str(card["uuid"])


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    begin = max(run["phases"][0]["start_monotonic_ns"] for run in (one, other))
    end = min(run["phases"][-1]["end_monotonic_ns"] for run in (one, other))
    return begin < end
