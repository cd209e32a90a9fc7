"""What is wrong with a container is one clear message, before the first run."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.containers import apptainer, container_checks, image_build, image_probe
from llenergymeasure.containers.container_checks import check_apptainer, check_docker
from llenergymeasure.containers.container_setup import ContainerSetup
from llenergymeasure.containers.image_build import main as build_main
from llenergymeasure.containers.images import SifImage
from llenergymeasure.installation import install_command
from support.programs import program
from support.studies import snakemake, wait_for, write_study

BUILD = (
    "import sys; from pathlib import Path; from llenergymeasure.containers import image_build;"
    "image_build.free_bytes = lambda folder: None;"
    "image_build.build_sif('pytorch', Path(sys.argv[1]))"
)


@pytest.fixture
def container_setup(tmp_path: Path) -> ContainerSetup:
    return ContainerSetup.for_runs([], tmp_path / "results" / "small")


def _only_problem(problems: list[object]) -> str:
    assert len(problems) == 1, problems
    return str(problems[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with less room than results need."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder = tmp_path / "small disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Look around here as is done in a container; return what is wrong."""

    def look_around(**question: Any) -> list[str]:
        code = image_probe.main(json.dumps(question))
        problems: list[str] = json.loads(capsys.readouterr().out)["problems"]
        assert code == (1 if problems else 0)
        return problems

    return look_around


def test_nothing_is_wrong_here(tmp_path: Path) -> None:
    command = [sys.executable, image_probe.__file__, json.dumps({"writable": [str(tmp_path)]})]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, '{"problems": []}\n')


def test_no_room(small_disk: Path, look: Callable[..., list[str]]) -> None:
    problem = _only_problem(look(writable=[str(small_disk)], free_bytes=100_000_000))
    assert "MB are free" in problem
    assert str(small_disk) in problem


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"writable": ["/proc"]}, "nothing can be written to /proc"),
        ({"boot_id": "another"}, "another machine"),
        ({"pid_namespace": "pid:[1]"}, "process ids"),
        ({"monotonic_ns": 1}, "clock"),
        ({"source_hash": "0"}, "another version of this project"),
    ],
)
def test_each_thing_wrong_inside_is_said(
    question: dict[str, Any], message: str, look: Callable[..., list[str]]
) -> None:
    assert message in _only_problem(look(**question))


def test_no_room_to_build(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer: .ci/install_apptainer.sh installs it")
    code = build_main(
        ["pytorch", "--runner", "apptainer", "--out", str(small_disk / "a.sif"), "--base", "/none"]
    )
    assert code == 2
    assert "make room, or set LLEM_IMAGES" in capsys.readouterr().err


def test_an_image_that_may_not_be_written_there_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image_build, "apptainer_command", lambda: "apptainer")
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "images" / "a.sif"
    assert build_main(["pytorch", "--runner", "apptainer", "--out", str(out)]) == 1
    assert capsys.readouterr().err == f"pytorch: {out.parent}: Not a directory\n"


def test_two_builds_of_one_image_at_a_time_are_both_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(
        tmp_path / "apptainer",
        'for word; do before=$last; last=$word; done; echo $$ >> "$before"; echo >> "$0.builds"\n'
        'until [ $(wc -l < "$0.builds") -ge 2 ]; do sleep 0.05; done; echo $$ >> "$before"',
    )
    images = tmp_path / "images"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with subprocess.Popen(["true"]) as dead_process:
        pass
    host, alive = socket.gethostname(), os.getpid()
    images.mkdir()
    parts = [(host, dead_process.pid), (host, alive), (f"{host}.b", dead_process.pid)]
    for item in parts:
        (images / ".a.{}.{}.part.sif".format(*item)).touch()
    out = images / "a.sif"
    builds = [subprocess.Popen([sys.executable, "-c", BUILD, str(out)]) for _ in range(2)]
    assert [item.wait(60) for item in builds] == [0, 0]
    first, second = out.read_text().split()
    assert first == second
    assert (images / "a.sif.digest").read_text().split()[0] == SifImage(str(out)).digest()
    assert {path.name for path in images.glob(".*")} == {
        f".a.{host}.{alive}.part.sif",
        f".a.{host}.b.{dead_process.pid}.part.sif",
    }


def test_a_build_that_ends_within_another_s_end_leaves_no_digest_of_the_other_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.sif"
    program(
        tmp_path / "apptainer",
        'for word; do before=$last; last=$word; done; echo $$ > "$before"; echo >> "$0.built"',
    )
    built = tmp_path / "apptainer.built"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(image_build, "free_bytes", lambda _folder: None)
    digest, processes = SifImage.digest, []

    def digest_then_another_build(image: SifImage) -> str | None:
        value = digest(image)
        processes.append(subprocess.Popen([sys.executable, "-c", BUILD, str(out)]))
        wait_for(lambda: built.read_text().count("\n") == 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            processes[0].wait(1)
        return value

    monkeypatch.setattr(SifImage, "digest", digest_then_another_build)
    image_build.build_sif("pytorch", out)
    assert processes[0].wait(60) == 0
    assert Path(f"{out}.digest").read_text().split()[0] == digest(SifImage(str(out)))


def test_no_apptainer(container_setup: ContainerSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    problem = _only_problem(check_apptainer("pytorch", SifImage("/a.sif"), container_setup))
    assert "install Apptainer" in problem


def test_a_folder_with_a_colon(
    container_setup: ContainerSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apptainer, "apptainer_command", lambda: "apptainer")
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path / "a:b")
    problem = _only_problem(check_apptainer("pytorch", SifImage("docker://a"), container_setup))
    assert "takes no folder with a colon" in problem


CUT = """INFO:    Converting SIF file to temporary sandbox...
FATAL:   while extracting /a.sif: root filesystem extraction failed: extract command failed:
FATAL ERROR: Can't find a valid SQUASHFS superblock on /a.sif
: exit status 1
"""
COLOURED = """INFO:    Converting SIF file
\033[31mFATAL:\033[0m   while extracting a.sif: extract command failed
: exit status 1
"""


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (CUT, "Can't find a valid SQUASHFS superblock"),
        (COLOURED, "while extracting a.sif: extract command failed : exit status 1"),
    ],
)
def test_apptainer_s_reason_is_said_whole(
    container_setup: ContainerSetup,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    reason: str,
) -> None:
    """Its last line alone may say nothing: a cut image ends in ``: exit status 1``."""
    command = program(tmp_path / "apptainer", f"cat >&2 <<'CUT'\n{printed}CUT\nexit 255")
    monkeypatch.setattr(apptainer, "apptainer_command", lambda: str(command))
    image = tmp_path / "a.sif"
    image.write_bytes(b"cut")
    assert reason in _only_problem(
        check_apptainer("pytorch", SifImage(str(image)), container_setup)
    )


def test_no_docker(container_setup: ContainerSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install Docker" in _only_problem(check_docker("pytorch", "a:1", container_setup))


def test_a_rootless_docker_that_cannot_share_process_ids(
    container_setup: ContainerSetup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = {"ServerVersion": "20.10.24", "SecurityOptions": ["name=rootless"]}
    command = program(tmp_path / "docker", f"echo '{json.dumps(info)}'")
    monkeypatch.setenv("LLEM_DOCKER", str(command))
    problem = _only_problem(check_docker("pytorch", "a:1", container_setup))
    assert "rootless Docker 20.10.24" in problem
    assert "update it to 23" in problem


def test_an_address_s_password_is_not_said(
    container_setup: ContainerSetup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = program(tmp_path / "docker", "echo cannot connect to $DOCKER_HOST >&2; exit 1")
    monkeypatch.setenv("LLEM_DOCKER", str(command))
    monkeypatch.setenv("DOCKER_HOST", "tcp://me:pass-word@gpu.example:2376")
    problem = _only_problem(check_docker("pytorch", "a:1", container_setup))
    assert "pass-word" not in problem
    assert problem.count("gpu.example:2376") == 2


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker")
def test_no_daemon(
    container_setup: ContainerSetup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    problem = _only_problem(check_docker("pytorch", "a:1", container_setup))
    assert "does not answer" in problem
    assert "nobody.sock" in problem
    monkeypatch.setattr(container_checks, "find_spec", lambda _: None)
    problem = _only_problem(check_docker("pytorch", "a:1", container_setup))
    assert f"without a container: {install_command('pytorch')}" in problem


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.usefixtures("sif")
class TestApptainer:
    def test_no_image(self, container_setup: ContainerSetup) -> None:
        problem = _only_problem(check_apptainer("pytorch", SifImage("/none.sif"), container_setup))
        assert "no such image" in problem
        assert "image_build pytorch --runner apptainer" in problem

    def test_not_an_image(self, container_setup: ContainerSetup, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong.sif"
        wrong.write_text("not an image")
        problem = _only_problem(check_apptainer("pytorch", SifImage(str(wrong)), container_setup))
        assert "cannot be used" in problem
        assert "image format" in problem

    def test_a_good_image(self, sif: Path, container_setup: ContainerSetup) -> None:
        assert check_apptainer("pytorch", SifImage(str(sif)), container_setup) == []

    def test_a_dependency_too_old(
        self, base_root: Path, container_setup: ContainerSetup, tmp_path: Path
    ) -> None:
        image = tmp_path / "old"
        subprocess.run(["cp", "-al", str(base_root), str(image)], check=True)
        packages = image / "usr/local/lib/python3.11/dist-packages"
        (current,) = packages.glob("pydantic-*.dist-info")
        metadata = (current / "METADATA").read_text()
        shutil.rmtree(current)
        (packages / "pydantic-1.10.2.dist-info").mkdir()
        version = current.name.removeprefix("pydantic-").removesuffix(".dist-info")
        (packages / "pydantic-1.10.2.dist-info" / "METADATA").write_text(
            metadata.replace(f"Version: {version}", "Version: 1.10.2", 1)
        )
        problem = _only_problem(check_apptainer("pytorch", SifImage(str(image)), container_setup))
        assert "its pydantic is 1.10.2; 2.9 or newer is needed" in problem
        shutil.rmtree(image)

    def test_it_comes_before_the_first_run(self, tmp_path: Path) -> None:
        study = write_study(tmp_path, runners={"pytorch": "apptainer:/none.sif"})
        result = snakemake(tmp_path, "--use-apptainer", "--configfile", str(study))
        assert result.returncode == 1
        assert "no such image" in result.stderr
        assert "Traceback" not in result.stderr
        assert not list(tmp_path.glob("results/small/runs/*/1/run.log"))


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.usefixtures("docker_image")
class TestDocker:
    @pytest.fixture(autouse=True)
    def _host(self, docker_host: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", docker_host)

    def test_no_image(self, container_setup: ContainerSetup) -> None:
        problem = _only_problem(check_docker("pytorch", "nobody.invalid/none:1", container_setup))
        assert "cannot be fetched" in problem
        assert "image_build pytorch --runner docker" in problem

    def test_a_good_image(self, docker_image: str, container_setup: ContainerSetup) -> None:
        assert check_docker("pytorch", docker_image, container_setup) == []

    def test_no_python(self, container_setup: ContainerSetup, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        tar = subprocess.run(["tar", "-C", tmp_path, "-c", "empty"], capture_output=True).stdout
        subprocess.run(["docker", "import", "-", "empty:1"], input=tar, check=True)
        problem = _only_problem(check_docker("pytorch", "empty:1", container_setup))
        assert "python3" in problem

    def test_a_folder_that_the_container_may_not_write(
        self, docker_image: str, container_setup: ContainerSetup
    ) -> None:
        os.chown(container_setup.results, 4321, 4321)
        problem = _only_problem(check_docker("pytorch", docker_image, container_setup))
        assert f"nothing can be written to {container_setup.results}" in problem
        assert "Permission denied" in problem
