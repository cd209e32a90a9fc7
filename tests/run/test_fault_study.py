"""A score of faults in one real study: what is recorded, and that the next call does the rest."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.files import sha256
from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.results.outcome import read_outcome
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from run.fault_list import Fault, faults
from support.hub import offer_model
from support.saboteur import Saboteur
from support.studies import living, result_times, snakemake, write_study

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3600)]

LIST = faults(Path("torn"), Path("numberless"))
CALL_LIMIT_S = 1500.0


@dataclass
class Study:
    """What two calls of the workflow left."""

    runs: dict[str, Path]
    measured: dict[str, dict[str, Any]]
    code: int
    outcomes: dict[str, dict[str, Any]]
    results: dict[str, tuple[str, dict[str, Any]]]
    processes_left: list[int]
    second_code: int
    second_said: str
    times: dict[str, int]
    second_times: dict[str, int]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("faults").resolve()
    hub = folder / "hub"
    hub.mkdir()
    models = {name: folder / name for name in ("torn", "numberless")}
    for copy in models.values():
        shutil.copytree(tiny_llama_folder(), copy)
    injected = faults(models["torn"], models["numberless"])
    experiments = [{"n": 1}] + [
        {"n": number, **fault.settings} for number, fault in enumerate(injected, start=2)
    ]
    path = write_study(
        folder,
        experiments=experiments,
        execution={"n_cycles": 1, "cycle_order": "sequential", "experiment_gap_seconds": 3600},
    )
    variables = {"HF_HUB_CACHE": str(hub)}
    steps = {
        number: fault.inject
        for number, fault in enumerate(injected, start=2)
        if fault.inject is not None
    }
    results = folder / "results" / "small"
    call = ("--configfile", str(path))
    with Saboteur(results, steps) as saboteur:
        first = snakemake(folder, *call, variables=variables, timeout_s=CALL_LIMIT_S)
    assert saboteur.error is None
    leftovers = living(str(folder))
    plan = json.loads((results / "plan.json").read_text())
    by_number = {
        run["config"]["n"]: results / "runs" / run["experiment"] / "1" for run in plan["runs"]
    }
    runs = {"good": by_number[1]} | {
        fault.id: by_number[number] for number, fault in enumerate(injected, start=2)
    }
    measured = {
        fault.id: json.loads((runs[fault.id] / "work" / "engine.json").read_text())["window"]
        for fault in injected
        if fault.measured
    }
    outcomes = {
        name: read_outcome(run / "outcome.json").model_dump(by_alias=True)
        for name, run in runs.items()
    }
    finished = {
        name: (
            sha256(run / "result.json"),
            json.loads((run / "result.json").read_text()),
        )
        for name, run in runs.items()
        if (run / "result.json").is_file()
    }
    times = result_times(folder)
    for copy in models.values():
        shutil.copy(tiny_llama_folder() / "model.safetensors", copy)
    offer_model(hub, "someone/tiny")
    with Saboteur(results, {}):
        second = snakemake(folder, *call, variables=variables, timeout_s=CALL_LIMIT_S)
    yield Study(
        runs,
        measured,
        first.returncode,
        outcomes,
        finished,
        leftovers,
        second.returncode,
        second.stderr,
        times,
        result_times(folder),
    )
    assert not living(str(folder))


@pytest.mark.parametrize("fault", LIST, ids=[fault.id for fault in LIST])
def test_what_is_recorded_of(fault: Fault, study: Study) -> None:
    outcome = study.outcomes[fault.id]
    assert outcome["status"] == fault.status, outcome
    if fault.status != "lost":
        assert outcome["exit_code"] == fault.code
    if fault.phase is not None:
        assert outcome["phase"] == fault.phase
    if fault.kept:
        _, result = study.results[fault.id]
        assert fault.says in result["validity"] or not fault.says
        assert 0 not in [reading["gross_j"] for reading in result["energy"]["readings"]]
    else:
        assert fault.id not in study.results
        assert fault.says in outcome["error"]["message"]
        assert outcome["error"]["message"]


def test_what_was_measured_whole_is_finished_and_not_measured_again(study: Study) -> None:
    for name, window in study.measured.items():
        result = json.loads((study.runs[name] / "result.json").read_text())
        assert result["window"]["start_monotonic_ns"] == window["start_ns"], name
        assert is_complete(RunFolder(study.runs[name])), name
    assert set(study.measured) == {"finish-killed", "measured-killed"}


def test_an_engines_end_is_in_the_record(study: Study) -> None:
    _, result = study.results["teardown-segfault"]
    assert result["provenance"]["engine_end"]["returncode"] == -11
    _, result = study.results["good"]
    assert result["provenance"]["engine_end"] is None


def test_the_workflow_fails_and_leaves_no_process(study: Study) -> None:
    assert study.code == 1
    assert study.processes_left == []


def test_no_finished_result_is_lost_or_made_again(study: Study) -> None:
    finished = {"good"} | {fault.id for fault in LIST if fault.kept}
    assert set(study.results) == finished
    for name, (digest, _) in study.results.items():
        assert sha256(study.runs[name] / "result.json") == digest
    assert study.times.items() <= study.second_times.items()


def test_the_next_call_finishes_the_rest(study: Study) -> None:
    assert study.second_code == 0, study.second_said
    assert len(study.second_times) == len(LIST) + 1
    for name, run in study.runs.items():
        assert is_complete(RunFolder(run)), name
        outcome = json.loads((run / "outcome.json").read_text())
        assert outcome["status"] == "completed"
        assert outcome["attempt"] == (1 if name in study.results else 2), name
