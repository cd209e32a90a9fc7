"""Several runs at a time on one machine, each on a simulated GPU of its own."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.machine.cpu_share import cpu_shares
from nvml_sim import sim
from support.attempts import Attempt, command_of, start
from support.studies import living, snakemake, wait_for, write_study

pytestmark = pytest.mark.slow


@pytest.mark.skipif(len(cpu_shares(2)) < 2, reason="fewer than two cores")
def test_two_runs_at_a_time_share_neither_card_nor_processor(tmp_path: Path) -> None:
    sim.library_or_skip()
    cards = [sim.Device(uuid=f"GPU-{name}") for name in "ab"]
    base = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    variables = sim.environment(sim.Trace(cards).write(tmp_path), base=base)
    study = write_study(
        tmp_path,
        experiments=[{"random_seed": seed} for seed in (1, 2, 3, 4)],
        window={"min_seconds": 4},
    )
    result = snakemake(
        tmp_path,
        *("--configfile", str(study), "--cores", "2", "--resources", "gpu=2"),
        variables={**variables, "LLEM_RUNTIME_DIR": str(tmp_path / "runtime")},
    )
    assert result.returncode == 0, result.stderr
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


def test_two_studies_use_a_card_each_and_a_third_the_first_that_becomes_free(
    tmp_path: Path,
) -> None:
    sim.library_or_skip()
    cards = [sim.Device(uuid=f"GPU-{name}") for name in "ab"]
    base = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    variables = sim.environment(sim.Trace(cards).write(tmp_path), base=base)
    variables["LLEM_RUNTIME_DIR"] = str(tmp_path / "runtime")

    def begin(name: str) -> Attempt:
        return start(tmp_path / name, variables=variables, window={"min_seconds": 3600})

    one = begin("one")
    wait_for(lambda: _card(one) is not None)
    two = begin("two")
    wait_for(lambda: _card(two) is not None)
    assert {_card(one), _card(two)} == {"0", "1"}
    third, freed = begin("third"), _card(two)
    wait_for(lambda: _phase(third) == "reserve")
    time.sleep(2)
    assert _phase(third) == "reserve", "both cards are taken"
    two.process.terminate()
    wait_for(lambda: _card(third) is not None)
    assert _card(third) == freed
    for attempt in (one, third):
        attempt.process.terminate()
    assert [study.process.wait(60) for study in (one, two, third)] == [143] * 3


def _phase(attempt: Attempt) -> str | None:
    try:
        return str(attempt.outcome()["phase"])
    except FileNotFoundError:
        return None


def _card(attempt: Attempt) -> str | None:
    """Return the card that the run's engine is told to use, once that is at work."""
    for pid in living(str(attempt.folder)):
        try:
            words, variables = command_of(pid), Path(f"/proc/{pid}/environ").read_text()
        except OSError:
            continue
        if "engine_process" in words:
            environment = dict(variable.partition("=")[::2] for variable in variables.split("\0"))
            return environment.get("CUDA_VISIBLE_DEVICES")
    return None


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    begin = max(run["phases"][0]["start_monotonic_ns"] for run in (one, other))
    end = min(run["phases"][-1]["end_monotonic_ns"] for run in (one, other))
    return begin < end
