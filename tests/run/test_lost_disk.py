"""The disk with the results goes away in mid-run, as a network disk does, and comes back."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.attempts import start
from support.studies import living, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.system]


class Disk:
    """A folder behind a file server of its own: once that is killed, every call on it fails."""

    def __init__(self, behind: Path, folder: Path) -> None:
        self.folder = folder
        self._behind = behind
        self._server: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        command = ["bindfs", "-f", str(self._behind), str(self.folder)]
        self._server = subprocess.Popen(command, stderr=subprocess.PIPE)
        wait_for(lambda: os.path.ismount(self.folder) or self._ended())

    def lose(self) -> None:
        if self._server is None:
            return
        self._server.kill()
        self._server.communicate()
        self._server = None

    def unmount(self) -> None:
        self.lose()
        subprocess.run(["umount", "-l", str(self.folder)], check=False)

    def _ended(self) -> bool:
        assert self._server is not None
        if self._server.poll() is None:
            return False
        assert self._server.stderr is not None
        pytest.skip(f"cannot mount: {self._server.stderr.read().decode().strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if shutil.which("bindfs") is None:
        pytest.skip("no bindfs: apt install bindfs")
    for name in ("behind", "disk"):
        (tmp_path / name).mkdir()
    disk = Disk(tmp_path / "behind", tmp_path / "disk")
    disk.mount()
    yield disk
    disk.unmount()


def test_a_disk_that_is_lost_ends_the_run_and_the_next_call_makes_it(disk: Disk) -> None:
    attempt = start(disk.folder, window={"min_seconds": 4})
    attempt.wait_for_phase("measure")
    disk.lose()
    assert attempt.process.wait(120) != 0
    wait_for(lambda: not living(str(disk.folder)), 30)
    disk.unmount()
    disk.mount()
    assert not (attempt.folder / "result.json").exists()
    again = start(disk.folder, window={"min_seconds": 4})
    assert again.process.wait(120) == 0
    assert again.outcome()["status"] == "completed"
    assert again.outcome()["attempt"] == 2
