"""What a cluster's jobs are given, beside what the runs of a plan need."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.commands import Call
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.plan import make_plan
from llenergymeasure.workflow import snakemake_process
from llenergymeasure.workflow.snakemake_profile import forecast_for, job_request, may_share, misfits
from llenergymeasure.workload.load_study import study_from_mapping
from support.studies import write_study

ON_CPU = {
    "model": "llama-3.1-8b",
    "weights": "random",
    "protocol": "quick",
    "pytorch": {"device_map": "cpu"},
}
"""A study of a model that is larger than many jobs' memory."""


def profile(folder: Path, **settings: Any) -> str:
    place = folder / "cluster"
    place.mkdir(exist_ok=True)
    (place / "config.yaml").write_text(yaml.safe_dump({"executor": "slurm", **settings}))
    return str(place)


def found(profile: str, **study: Any) -> list[Problem]:
    plan = make_plan(study_from_mapping({"model": "tiny-llama", **study}))
    request = job_request(profile)
    assert request is not None
    return list(misfits(plan, request, forecast_for(request)))


@pytest.mark.parametrize(
    ("settings", "minutes", "mebibytes"),
    [
        ({"default-resources": {"runtime": 240, "mem_mb": 16000}}, 240, 16000),
        ({"default-resources": ["runtime='4h'", "mem_mb=500"]}, 240, 500),
        ({"default-resources": {"mem": "16 GB"}}, None, 16000),
        ({"default-resources": {"runtime": "attempt * 10"}}, None, None),
        (
            {"default-resources": {"runtime": 1}, "set-resources": {"measure": {"runtime": 9}}},
            9,
            None,
        ),
        (
            {"set-resources": ["measure:runtime=7", "report:runtime=1"]},
            7,
            None,
        ),
        ({}, None, None),
    ],
)
def test_what_a_job_is_given_is_read_as_snakemake_reads_it(
    tmp_path: Path, settings: dict[str, Any], minutes: float | None, mebibytes: int | None
) -> None:
    request = job_request(profile(tmp_path, **settings))
    assert request is not None
    assert request.runtime_s == (None if minutes is None else 60 * minutes)
    assert request.memory_bytes == (None if mebibytes is None else mebibytes * 2**20)


def test_a_profile_of_this_machine_asks_for_no_job(tmp_path: Path) -> None:
    assert job_request(None) is None
    assert job_request("default") is None
    with pytest.raises(ConfigurationError, match="no such profile"):
        job_request("no-such-profile")
    assert job_request(profile(tmp_path, executor="local")) is None
    shipped = job_request("slurm")
    assert shipped is not None
    assert shipped.runtime_key == "default-resources.runtime"


@pytest.mark.parametrize(
    ("settings", "alone"),
    [
        ({"executor": None}, True),
        ({"executor": "local", "resources": {"gpu": 1}}, True),
        ({"executor": None, "resources": ["gpu=4"]}, False),
        ({}, False),
    ],
)
def test_servers_are_shared_where_a_profile_lets_one_run_go_at_a_time_here(
    tmp_path: Path, settings: dict[str, Any], alone: bool
) -> None:
    execution = {"share_server": True}
    assert may_share(execution, profile(tmp_path, **settings)) is alone
    assert may_share(execution, None)


def test_runs_longer_than_the_job_are_named_with_what_to_ask_for(tmp_path: Path) -> None:
    place = profile(tmp_path, **{"default-resources": {"runtime": 1}})
    long = {"window": {"min_seconds": 70}, "sweep": {"n": [1, 2]}}
    (problem,) = found(place, **long)
    assert not problem.fatal
    assert problem.key == "default-resources.runtime"
    assert problem.file == tmp_path / "cluster" / "config.yaml"
    assert "the runs of 2 experiments take at least" in problem.message
    assert "ends a job after 60 s; ask for" in problem.message
    assert problem.found == "1 min"
    assert found(profile(tmp_path, **{"default-resources": {"runtime": 30}}), **long) == []


def test_models_larger_than_the_job_s_memory_are_named(tmp_path: Path) -> None:
    (problem,) = found(profile(tmp_path, **{"default-resources": {"mem_mb": 8000}}), **ON_CPU)
    assert problem.key == "default-resources.mem_mb"
    assert problem.found == "8000 MB"
    assert "need at least 16.144 GB for weights and cache, and a job is given 8.389 GB" in str(
        problem
    )
    assert found(profile(tmp_path, **{"default-resources": {"mem_mb": 32000}}), **ON_CPU) == []
    gpu = {**ON_CPU, "pytorch": {}}
    assert found(profile(tmp_path, **{"default-resources": {"mem_mb": 8000}}), **gpu) == []


def test_the_plan_says_it_and_nothing_of_the_login_node(tmp_path: Path, call: Call) -> None:
    resources = {"runtime": 1, "mem_mb": 16000}
    study = write_study(
        tmp_path,
        window={"min_seconds": 70},
        experiments=[{"n": 1}, {"pytorch": {"device_map": "cpu"}}],
    )
    place = profile(tmp_path, **{"default-resources": resources})
    result = call("plan", str(study), "--profile", place)
    assert result.code == 0, result.err
    assert "this machine" not in result.out.partition("Memory needed:")[2]
    assert "the memory of the cluster's GPUs is not known here" in result.out
    assert "the job's memory (mem_mb) is 16.777 GB: fits" in result.out
    assert "the speed of the cluster's GPUs" in result.out
    assert f"Does not fit: {place}/config.yaml: default-resources.runtime: the runs" in result.out
    local_plan = call("plan", str(study))
    assert "Does not fit" not in local_plan.out
    assert "this machine's memory is" in local_plan.out


def test_no_profile_lets_llem_run_measure_again_for_another_reason_than_a_missing_result() -> None:
    words = snakemake_process.Call(profile="./mine", targets=("all",)).command(Path("study.yaml"))
    assert [words[at + 1] for at, word in enumerate(words) if word == "--rerun-triggers"] == [
        "mtime"
    ]
    assert words[words.index("mtime") + 1].startswith("--")  # it takes all words up to an option


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"default-resources": {"slurm_partition": "gpu"}}, "SLURM in partition gpu"),
        ({"set-resources": ["measure:slurm_partition=fast"]}, "SLURM in partition fast"),
        ({}, "SLURM in its default partition"),
        ({"slurm-partition-config": "parts.yaml"}, "SLURM in a partition that fits it"),
        ({"executor": "kubernetes"}, "the cluster (kubernetes)"),
    ],
)
def test_the_plan_says_whose_jobs_the_runs_are_and_what_runs_in_them(
    tmp_path: Path, call: Call, settings: dict[str, Any], words: str
) -> None:
    place = profile(tmp_path, **settings)
    study = str(write_study(tmp_path, runners={"pytorch": "apptainer:/images/mine.sif"}))
    for command in (("plan",), ("run", "--dry-run")):
        result = call(*command, study, "--profile", place)
        assert (
            f"\n  each run is a job of {words}, by the profile {place}/config.yaml\n" in result.out
        )
        assert (
            "  in its job pytorch runs in Apptainer with /images/mine.sif (the study" in result.out
        )
        assert "all jobs added up, without the queue" in result.out
    local_plan = call("plan", study).out
    assert "  pytorch runs in Apptainer" in local_plan
    assert "job" not in local_plan


def test_what_is_just_too_little_memory_is_seen_to_be_less(tmp_path: Path) -> None:
    (problem,) = found(profile(tmp_path, **{"default-resources": {"mem_mb": 15390}}), **ON_CPU)
    assert "need at least 16.144 GB for weights and cache, and a job is given 16.138 GB" in str(
        problem
    )
