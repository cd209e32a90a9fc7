"""A study in Apptainer and in Docker gives what it gives without, and says what it ran in."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure.containers.apptainer import call_variables
from llenergymeasure.containers.container_setup import ContainerSetup
from llenergymeasure.files import sha256
from support.studies import snakemake, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system]

SECRET = "hf_averysecretvalue0123456789"


def run_study(
    folder: Path, *arguments: str, variables: dict[str, str], **settings: Any
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    study = write_study(folder, **settings)
    environment = {"HF_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, **variables}
    command = ["--cores", "1", *arguments, "--configfile", str(study)]
    done = snakemake(folder, *command, variables=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    records = list(folder.glob("results/small/runs/*/1/result.json"))
    assert len(records) == 1
    result: dict[str, Any] = json.loads(records[0].read_text())
    for path in records[0].parent.parent.parent.rglob("*"):
        assert path.stat().st_uid == os.getuid()
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    return result


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_study(tmp_path_factory.mktemp("local"), variables={})


def test_apptainer_as_typed(tmp_path: Path, sif: Path, images: Path, local: dict[str, Any]) -> None:
    result = run_study(
        tmp_path / "with a space", "--use-apptainer", variables={"LLEM_IMAGES": str(images)}
    )
    assert result["runner"] == "apptainer"
    container = {"runtime": "apptainer", "image": str(sif), "digest": f"sha256:{sha256(sif)}"}
    assert result["provenance"]["container"] == container
    assert_same_shape(result, local)
    rows = pq.read_table(tmp_path / "with a space/results/small/runs.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["completed"]


def test_docker_through_the_launcher(
    tmp_path: Path, docker_host: str, docker_image: str, local: dict[str, Any]
) -> None:
    result = run_study(
        tmp_path / "with, a space",
        variables={"DOCKER_HOST": docker_host},
        runners={"pytorch": "docker"},
    )
    assert result["runner"] == "docker"
    identity = docker(docker_host, "image", "inspect", "--format", "{{.Id}}", docker_image)
    container = {"runtime": "docker", "image": docker_image, "digest": identity}
    assert result["provenance"]["container"] == container
    assert_same_shape(result, local)
    assert docker(docker_host, "ps", "--all", "--quiet") == ""


def per_request(result: dict[str, Any]) -> tuple[float, float, str]:
    """Return the tokens of a request, in and out, and what was asked; passes may differ."""
    tokens = result["tokens"]
    requests = tokens["requests"]
    return tokens["input"] / requests, tokens["output"] / requests, tokens["prompt_hash"]


def assert_same_shape(result: dict[str, Any], local: dict[str, Any]) -> None:
    assert result["experiment"] == local["experiment"]
    assert per_request(result) == per_request(local)
    assert set(result) == set(local)
    for key in ("window", "energy", "performance", "flops", "environment", "provenance", "files"):
        assert set(result[key]) == set(local[key]), key
    names = [phase["name"] for phase in result["phases"]]
    assert names == [phase["name"] for phase in local["phases"]]
    kinds = [
        (reading["sensor"], reading["kind"], reading["scope"])
        for reading in result["energy"]["readings"]
    ]
    assert kinds == [
        (reading["sensor"], reading["kind"], reading["scope"])
        for reading in local["energy"]["readings"]
    ]
    # The monotonic clock is the host's: windows of both lie between the same two moments.
    assert result["window"]["start_monotonic_ns"] > local["window"]["end_monotonic_ns"]


def test_an_image_of_ones_own_from_a_path_with_spaces(
    tmp_path: Path, sif: Path, local: dict[str, Any]
) -> None:
    image = tmp_path / "my images" / "own image.sif"
    image.parent.mkdir()
    image.symlink_to(sif)
    result = run_study(
        tmp_path / "elsewhere",
        "--use-apptainer",
        variables={},
        runners={"pytorch": f"apptainer:{image}"},
        execution={"n_cycles": 1, "skip_preflight": True},
    )
    assert per_request(result) == per_request(local)


def test_a_secret_of_the_host_does_not_get_into_apptainer(tmp_path: Path, sif: Path) -> None:
    found = ContainerSetup.for_runs([], tmp_path / "results")
    result = subprocess.run(
        ["apptainer", "exec", "--home", str(tmp_path), str(sif), "env"],
        env=os.environ
        | {"AWS_SECRET_ACCESS_KEY": SECRET, "PYTHONHOME": "/nowhere"}
        | call_variables(found.mounts, found.variables, nvidia=False),
        capture_output=True,
        text=True,
        check=True,
    )
    assert SECRET not in result.stdout
    assert "PYTHONHOME" not in result.stdout
    assert "PYTHONPATH=/opt/llem" in result.stdout


def docker(host: str, *words: str) -> str:
    return subprocess.run(
        ["docker", "--host", host, *words], capture_output=True, text=True, check=True
    ).stdout.strip()
