"""``meter: host``: an image that cannot hold the meter gives the same results."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from containers.conftest import own_root
from llenergymeasure.processes import start_ticks
from llenergymeasure.results.outcome import read_outcome
from support.studies import (
    living,
    measuring,
    snakemake,
    start_snakemake,
    wait_for,
    write_study,
)

pytestmark = [pytest.mark.slow, pytest.mark.system]

METER = ("pyarrow", "pynvml", "nvidia_ml_py")


@pytest.fixture(scope="module")
def bare_root(base_root: Path) -> Path:
    """A folder image of the engine without what the meter needs."""
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer: .ci/install_apptainer.sh installs it")
    root = own_root(base_root, "without-meter")
    # Hard links: a second tree of a gigabyte for nothing.
    subprocess.run(["cp", "--archive", "--link", base_root, root], check=True)
    for path in _of_the_meter(root):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for place in ("opt/llem/llenergymeasure", "opt/llem/scripts"):
        (root / place).mkdir(parents=True, exist_ok=True)
    for place in ("opt/llem/hf_token", "opt/llem/pynvml.py"):
        (root / place).touch()
    return root


def _of_the_meter(root: Path) -> list[Path]:
    packages = root / "usr/local/lib/python3.11/dist-packages"
    return [path for path in packages.iterdir() if path.name.startswith(METER)]


@pytest.fixture(scope="module")
def bare_docker_image(docker_host: str, docker_image: str, tmp_path_factory: Any) -> str:
    """The same for Docker."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "Dockerfile").write_text(
        f"FROM {docker_image}\n"
        "RUN python3 -m pip uninstall --yes --break-system-packages pyarrow nvidia-ml-py\n"
    )
    subprocess.run(
        ["docker", "--host", docker_host, "build", "--network=host", "--tag=bare:1", folder],
        env=os.environ | {"DOCKER_BUILDKIT": "0"},
        capture_output=True,
        check=True,
    )
    return "bare:1"


def _study(folder: Path, runner: str, **execution: Any) -> list[str]:
    study = write_study(
        folder,
        runners={"pytorch": runner},
        execution={"n_cycles": 1, "meter": "host", **execution},
        **({"window": {"min_seconds": 60}} if execution else {}),
    )
    offered = ["--use-apptainer"] if runner.startswith("apptainer") else []
    return ["--cores", "1", *offered, "--configfile", str(study)]


def _result(folder: Path, arguments: list[str], **variables: str) -> dict[str, Any]:
    done = snakemake(folder, *arguments, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("results/small/runs/*/1/result.json")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _check(result: dict[str, Any], local: dict[str, Any]) -> None:
    assert result["experiment"] == local["experiment"]
    assert result["tokens"]["prompt_hash"] == local["tokens"]["prompt_hash"]
    for key in (None, "window", "energy", "performance", "environment", "provenance", "files"):
        ours, theirs = (result, local) if key is None else (result[key], local[key])
        assert set(ours) == set(theirs), key
    names = ("device", "sensor", "kind", "scope")
    described = [[[each[name] for name in names] for each in result["energy"]["readings"]]]
    described += [[[each[name] for name in names] for each in local["energy"]["readings"]]]
    assert described[0] == described[1]
    # The engine's packages are the image's, although the result is computed on this machine.
    assert "pyarrow" not in result["environment"]["packages"]
    assert "pyarrow" in local["environment"]["packages"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("local")
    return _result(folder, _study(folder, "local"))


def test_apptainer(tmp_path: Path, bare_root: Path, local: dict[str, Any]) -> None:
    result = _result(tmp_path, _study(tmp_path, f"apptainer:{bare_root}"))
    _check(result, local)
    container = result["provenance"]["container"]
    assert container == {"runtime": "apptainer", "image": str(bare_root), "digest": None}


def test_docker(
    tmp_path: Path, docker_host: str, bare_docker_image: str, local: dict[str, Any]
) -> None:
    arguments = _study(tmp_path, f"docker:{bare_docker_image}")
    result = _result(tmp_path, arguments, DOCKER_HOST=docker_host)
    _check(result, local)
    assert result["provenance"]["container"]["runtime"] == "docker"
    assert result["provenance"]["container"]["digest"].startswith("sha256:")


def test_the_meter_inside_is_refused_before_the_first_run(tmp_path: Path, bare_root: Path) -> None:
    study = write_study(tmp_path, runners={"pytorch": f"apptainer:{bare_root}"})
    result = snakemake(tmp_path, "--use-apptainer", "--configfile", str(study))
    assert result.returncode == 1
    assert "pyarrow is not installed in it" in result.stderr
    assert "meter: host" in result.stderr


@pytest.mark.parametrize(
    ("runner", "ended"),
    [
        ("apptainer", "supervisor"),
        ("apptainer", "workflow"),
        ("docker", "supervisor"),
        ("docker", "all"),
    ],
)
def test_whatever_ends_nothing_runs_on(
    tmp_path: Path, runner: str, ended: str, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue("bare_root" if runner == "apptainer" else "bare_docker_image")
    host = {} if runner == "apptainer" else {"DOCKER_HOST": request.getfixturevalue("docker_host")}
    arguments = _study(tmp_path, f"{runner}:{image}", skip_preflight=True)
    with (tmp_path / "said").open("wb") as said:
        process = start_snakemake(tmp_path, *arguments, log=said, **host)
    try:
        run = _at_work(tmp_path)
        supervisor = json.loads((run / "outcome.json").read_text())["pid"]
        if ended == "all":
            os.killpg(process.pid, signal.SIGINT)
        elif ended == "supervisor":
            os.kill(supervisor, signal.SIGKILL)
        else:
            process.kill()
        process.wait(90)
        # The supervisor's own words name no folder.
        wait_for(lambda: not living(str(tmp_path)) and start_ticks(supervisor) is None, 300)
    finally:
        process.kill()
        process.wait()
    expected = "lost" if ended == "supervisor" else "interrupted"
    assert read_outcome(run / "outcome.json").status == expected


def _at_work(folder: Path) -> Path:
    said = folder / "said"
    runs = folder / "results/small/runs"
    wait_for(lambda: any(measuring(run) for run in runs.glob("*/*")), 300, said.read_text)
    (marks,) = folder.rglob("marks.jsonl")
    return marks.parents[1]
