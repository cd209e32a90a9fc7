"""Images of this project's own definitions, on a base that needs no registry, and a daemon."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.studies import ROOT, environment

BUILD = ROOT / "build"


@pytest.fixture(scope="session")
def base_root() -> Path:
    """A root tree that stands in for torch's official image."""
    path = Path(os.environ.get("LLEM_TEST_ROOT") or BUILD / "test-root")
    if not path.is_dir():
        pytest.skip(f"no {path}: .ci/make_test_root.sh {path} envs/pytorch.txt makes it")
    return path


def own_root(base: Path, name: str) -> Path:
    """Return where this process of the tests may make a root tree beside the base, on its disk."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    folder = base.with_name(f"{base.name}-{name}{worker}")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture(scope="session")
def images(base_root: Path) -> Path:
    """The folder of images for Apptainer."""
    return Path(os.environ.get("LLEM_TEST_IMAGES") or base_root.with_name("test-images"))


@pytest.fixture(scope="session")
def sif(base_root: Path, images: Path) -> Path:
    """The pytorch backend's image, built from the project's definition."""
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer: .ci/install_apptainer.sh installs it")
    image = images / "pytorch.sif"
    sources = [ROOT / "containers/pytorch.def", ROOT / "envs/pytorch.txt", base_root]
    newest = max(source.stat().st_mtime for source in sources)
    images.mkdir(exist_ok=True)
    with (images / "lock").open("w") as lock:
        # Another process of the same test run may be at it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.is_file() or image.stat().st_mtime < newest:
            build("pytorch", "apptainer", base_root, images)
    return image


@pytest.fixture(scope="session")
def daemon() -> Iterator["Daemon"]:
    """A Docker daemon of the tests' own."""
    # Not among pytest's folders: it cannot remove what a daemon mounts.
    folder = Path(tempfile.mkdtemp(prefix="llem-docker-"))
    started = Daemon(folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()
        for mount in Path("/proc/mounts").read_text().splitlines():
            if mount.split()[1].startswith(f"{folder}/"):
                subprocess.run(["umount", mount.split()[1]], check=False)
        # A minute's work on some disks, for which nothing here has to wait.
        subprocess.run(["setsid", "--fork", "rm", "-rf", folder], check=True)


@pytest.fixture(scope="session")
def docker_host(daemon: "Daemon") -> str:
    """Its address, for DOCKER_HOST."""
    return daemon.address


class Daemon:
    """A Docker daemon that shares nothing with one that may already run."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("dockerd") is None or shutil.which("docker") is None:
            pytest.skip("no dockerd: .ci/install_docker.sh installs it")
        if os.geteuid() != 0:
            pytest.skip("a Docker daemon is started by root alone")
        self._folder = folder
        self.address = f"unix://{folder}/d.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        folder = self._folder
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec"),
                    *("--host", self.address, "--pidfile", folder / "pid"),
                    *("--iptables=false", "--ip6tables=false", "--bridge=none"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not _answers(self.address):
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            assert self._process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)

    def kill(self) -> None:
        """End the daemon as a crash would: its containers' own processes stay."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        (self._folder / "pid").unlink(missing_ok=True)
        # Its number may be another process's by then: a new daemon would take that for containerd.
        self._end_containerd()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        self._end_containerd()

    def _end_containerd(self) -> None:
        """End the daemon's child, which outlives it only after a crash."""
        pid_file = self._folder / "exec" / "containerd" / "containerd.pid"
        if pid_file.is_file():
            pid = int(pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline")
            deadline = time.monotonic() + 20
            while words.is_file() and str(self._folder).encode() in words.read_bytes():
                with suppress(ProcessLookupError):
                    os.kill(pid, 15)
                assert time.monotonic() < deadline, words.read_bytes()
                time.sleep(0.1)
            pid_file.unlink(missing_ok=True)


def _answers(address: str) -> bool:
    result = subprocess.run(
        ["docker", "--host", address, "version"], capture_output=True, check=False
    )
    return result.returncode == 0


@pytest.fixture(scope="session")
def docker_image(base_root: Path, docker_host: str, images: Path) -> str:
    """The pytorch backend's image in the tests' daemon, from the project's definition."""
    import_root(docker_host, base_root, "llem-base:torch")
    build("pytorch", "docker", "llem-base:torch", images, DOCKER_HOST=docker_host)
    return "llenergymeasure-pytorch:0.1.0"


def import_root(docker_host: str, root: Path, name: str) -> None:
    """Make a root tree an image."""
    tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(
        ["docker", "--host", docker_host, "import", "-", name],
        stdin=tar.stdout,
        capture_output=True,
        check=True,
    )
    assert tar.stdout is not None
    tar.stdout.close()
    # 1: a file changed meanwhile, as when another test makes links to the same files.
    assert tar.wait() in (0, 1)


def build(backend: str, runner: str, base: Path | str, images: Path, **variables: str) -> None:
    """Build an image from the project's definition on a base of one's own."""
    command = [sys.executable, "-m", "llenergymeasure.containers.image_build", backend]
    result = subprocess.run(
        [*command, "--runner", runner, "--base", str(base)],
        cwd=ROOT,
        env=environment(LLEM_IMAGES=str(images), **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
