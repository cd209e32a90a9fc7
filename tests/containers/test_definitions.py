"""Each engine's own lines run on a base that stands in for its official image.

The stand-in has what a worker needs and no engine: what is shown is that our lines work, that the
image can be looked into, and that the worker starts in it where this version has one.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from containers.conftest import own_root
from llenergymeasure.containers.container_checks import inside_command
from llenergymeasure.containers.container_setup import ContainerSetup
from llenergymeasure.containers.images import local_tag
from llenergymeasure.installation import workflow_root
from support.studies import ROOT

ENGINES = ("vllm", "sglang", "tensorrt")
ALL = ("pytorch", *ENGINES)
HEAVY = ("torch", "transformers", "bitsandbytes", "pandas", "sympy")


@pytest.mark.parametrize("backend", ALL)
def test_both_definitions_are_of_one_image(backend: str) -> None:
    recipe = (workflow_root() / "containers" / f"{backend}.def").read_text()
    dockerfile = (workflow_root() / "containers" / f"{backend}.Dockerfile").read_text()
    base = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    assert base is not None
    assert f"base={base[1]}\n" in recipe
    assert re.search(r":[^:@]*\d", base[1]), "pinned to a version at least"
    copied = re.search(r"^COPY (\S+)", dockerfile, re.MULTILINE)
    assert copied is not None
    assert f"    {copied[1]} /opt/llem/requirements.txt\n" in recipe
    assert (ROOT / copied[1]).is_file()
    assert "pip install --quiet --requirement /opt/llem/requirements.txt" in recipe
    assert "pip install --quiet --requirement /opt/llem/requirements.txt" in dockerfile


def test_what_images_hold_is_what_the_look_inside_asks_for() -> None:
    from llenergymeasure.containers.image_probe import METER_NEEDED, NEEDED

    lines = (workflow_root() / "containers" / "worker.txt").read_text().splitlines()
    told = dict(line.split(">=") for line in lines if not line.startswith("#"))
    assert told == NEEDED
    project = (ROOT / "pyproject.toml").read_text()
    assert all(f'"{name}>={version}"' in project for name, version in NEEDED.items())
    page = (ROOT / "docs" / "containers.md").read_text()
    *names, last = sorted(NEEDED.keys() - set(METER_NEEDED))
    assert f"The image needs Python 3.11, {', '.join(names)} and {last};" in page


@pytest.fixture(scope="module")
def stand_in(base_root: Path) -> Iterator[Path]:
    folder = own_root(base_root, "without-engine")
    packages = "./usr/local/lib/python3.11/dist-packages"
    heavy = [f"{packages}/{name}{end}" for name in HEAVY for end in ("", "-*.dist-info")]
    without = [f"--exclude={path}" for path in heavy]
    folder.mkdir()
    # A copy of its own: where another test links or unlinks the base's files, tar says of links
    # to them that they changed as it read them.
    with subprocess.Popen(["tar", "-C", base_root, *without, "-c", "."], stdout=PIPE) as tar:
        subprocess.run(["tar", "-C", folder, "-x"], stdin=tar.stdout, check=True)
    yield folder
    shutil.rmtree(folder)


def _look(call: list[str], backend: str, container_setup: ContainerSetup) -> None:
    words = inside_command(backend, container_setup, 0)
    result = subprocess.run([*call, *words], capture_output=True, text=True, check=False)
    problems = json.loads(result.stdout.splitlines()[-1])["problems"]
    # The stand-in lacks the engine, and nothing that the program itself needs.
    assert re.match(rf"backend: {backend}\w* not installed", problems[0]), problems
    assert not any("does not start" in each for each in problems), problems


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("backend", ENGINES)
def test_definition_for_apptainer(backend: str, stand_in: Path, tmp_path: Path) -> None:
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer: .ci/install_apptainer.sh installs it")
    from llenergymeasure.containers.apptainer import call_variables
    from llenergymeasure.containers.image_build import build_sif

    image = build_sif(backend, tmp_path / "image.sif", str(stand_in))
    container_setup = ContainerSetup.for_runs([], tmp_path / "results")
    told = call_variables(container_setup.mounts, container_setup.variables, nvidia=False)
    variables = [f"{name}={value}" for name, value in told.items()]
    call = ["env", *variables, "apptainer", "--silent", "exec", "--home", str(tmp_path), str(image)]
    _look(call, backend, container_setup)
    labels = subprocess.run(
        ["env", *variables, "apptainer", "inspect", "--json", str(image)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"llenergymeasure-{backend}" in labels.stdout


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("backend", ENGINES)
def test_definition_for_docker(
    backend: str,
    stand_in: Path,
    docker_host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llenergymeasure.containers import docker
    from llenergymeasure.containers.image_build import build_docker

    monkeypatch.setenv("DOCKER_HOST", docker_host)
    monkeypatch.setenv("LLEM_IMAGES", str(tmp_path / "images"))
    imported = ["docker", "import", "-", "llem-base:stand-in"]
    with subprocess.Popen(["tar", "-C", stand_in, "-c", "."], stdout=PIPE) as tar:
        subprocess.run(imported, stdin=tar.stdout, capture_output=True, check=True)
    assert tar.returncode == 0
    assert build_docker(backend, base="llem-base:stand-in") == local_tag(backend)
    container_setup = ContainerSetup.for_runs([], tmp_path / "results")
    call = docker.run_command(
        docker.find_engine(),
        local_tag(backend),
        ["env"],
        name="llem-look",
        mounts=container_setup.mounts,
        variables=container_setup.variables,
    )
    _look(call, backend, container_setup)
