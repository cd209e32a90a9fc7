"""Locks on GPUs, held by real processes that are really killed."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llenergymeasure.machine.folders import shared_folder
from llenergymeasure.machine.gpus.locks import GpuBusyError, lock_gpus
from support.users import kept_running

HOLD = """
import os, sys
from pathlib import Path
from llenergymeasure.machine.gpus.locks import lock_gpus
if sys.argv[2] != "same":
    os.setuid(int(sys.argv[2]))
locks = lock_gpus(sys.argv[3:], "run 0123456789ab/1", wait_s=0, folder=Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_run(
    folder: Path, *uuids: str, user: int | str = "same"
) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLD, str(folder), str(user), *uuids]
    with kept_running(command, "held") as process:
        yield process


def lock(folder: Path, *uuids: str, count: int | None = None, wait_s: float = 0.0):
    return lock_gpus(uuids, "this run", count=count, wait_s=wait_s, folder=folder)


CARDS = ("GPU-a", "GPU-b", "GPU-c")


def test_a_second_run_is_refused_and_told_who_holds_the_card(tmp_path: Path) -> None:
    with another_run(tmp_path, "GPU-a") as other:
        with pytest.raises(GpuBusyError) as raised:
            lock(tmp_path, "GPU-a", wait_s=0.05)
        message = str(raised.value)
        assert "GPU-a" in message
        assert f"run 0123456789ab/1 (pid {other.pid}, user " in message
        with lock(tmp_path, "GPU-b"):
            pass


def test_sigkill_of_the_holder_frees_the_card_for_who_waits(tmp_path: Path) -> None:
    with another_run(tmp_path, "GPU-a") as other:
        killer = threading.Timer(0.1, os.kill, (other.pid, signal.SIGKILL))
        killer.start()
        with lock(tmp_path, "GPU-a", wait_s=60) as locks:
            assert locks.waited
        killer.join()


@pytest.mark.parametrize(
    ("in_use", "count"), [({"GPU-b"}, None), ({"GPU-b", "GPU-c"}, 2)], ids=["all", "some"]
)
def test_all_cards_that_are_asked_for_or_none(
    tmp_path: Path, in_use: set[str], count: int | None
) -> None:
    with lock(tmp_path, *in_use):
        with pytest.raises(GpuBusyError, match="GPU-b"):
            lock(tmp_path, *CARDS, count=count)
        with lock(tmp_path, *(set(CARDS) - in_use)):
            pass


def test_each_run_gets_the_first_cards_that_no_other_has(tmp_path: Path) -> None:
    first, second = lock(tmp_path, *CARDS, count=1), lock(tmp_path, *CARDS, count=2)
    assert (first.uuids, second.uuids) == (("GPU-a",), ("GPU-b", "GPU-c"))
    with pytest.raises(GpuBusyError, match=r"1 of the 3 .* is not free\. In use: GPU GPU-a by"):
        lock(tmp_path, *CARDS, count=1)
    first.release()
    assert lock(tmp_path, *CARDS, count=1).uuids == ("GPU-a",)


def test_runs_that_wait_for_the_same_cards_in_other_orders_get_them_in_turn(tmp_path: Path) -> None:
    got = []

    def take(*uuids: str) -> None:
        with lock(tmp_path, *uuids, wait_s=60) as locks:
            time.sleep(0.05)
            got.append(locks.uuids)

    orders = [("GPU-a", "GPU-b"), ("GPU-b", "GPU-a")] * 3
    threads = [threading.Thread(target=take, args=order) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(orders)


def test_a_process_that_inherits_the_locks_holds_them_too(tmp_path: Path) -> None:
    locks = lock(tmp_path, "GPU-a")
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        pass_fds=locks.handles,
    ) as heir:
        locks.release()
        with pytest.raises(GpuBusyError):
            lock(tmp_path, "GPU-a")
        heir.kill()
    with lock(tmp_path, "GPU-a"):
        pass


def test_waiting_can_be_interrupted(tmp_path: Path) -> None:
    with another_run(tmp_path, "GPU-a"):
        rests = []

        def stop(seconds: float) -> bool:
            rests.append(seconds)
            return len(rests) == 3

        locks = lock_gpus(["GPU-a"], "us", wait_s=60, folder=tmp_path, interrupted=stop)
    assert locks is None
    assert len(rests) == 3


def test_no_card_is_no_lock(tmp_path: Path) -> None:
    with lock(tmp_path) as locks:
        assert locks.handles == ()
    assert list(tmp_path.iterdir()) == []


def test_the_file_can_be_locked_by_every_user_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with lock(tmp_path, "GPU-a"):
            pass
    finally:
        os.umask(before)
    (lock_file,) = tmp_path.iterdir()
    assert stat.S_IMODE(lock_file.stat().st_mode) == 0o666


def test_a_name_from_outside_stays_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    with lock(folder, "../../GPU-a/b"):
        assert [path.parent for path in folder.iterdir()] == [folder]
    assert [path.name for path in tmp_path.iterdir()] == ["locks"]


@pytest.mark.parametrize(
    "plant",
    [
        Path.symlink_to,
        Path.hardlink_to,
        lambda path, _: os.mkfifo(path),
        lambda path, _: path.mkdir(),
    ],
    ids=["link", "hard link", "pipe", "folder"],
)
def test_what_is_no_lock_is_named_left_as_it_is_and_not_waited_for(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    plant(tmp_path / "gpu-GPU-a.lock", notes)
    with pytest.raises(GpuBusyError, match=r"gpu-GPU-a\.lock, which is no lock; remove it"):
        lock(tmp_path, "GPU-a")
    with lock(tmp_path, "GPU-a", "GPU-b", count=1) as locks:
        assert locks.uuids == ("GPU-b",)
    assert notes.read_text() == "mine"


def test_the_shared_folder_is_for_all_users(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        shared = shared_folder(tmp_path / "common")
    finally:
        os.umask(before)
    assert shared.for_all_users
    assert stat.S_IMODE(shared.path.stat().st_mode) == 0o1777
    assert shared_folder(tmp_path / "common") == shared


@pytest.mark.parametrize(
    ("mode", "owner", "for_all"),
    [(0o1777, 65534, True), (0o777, 65534, False), (0o777, 0, False), (0o2770, 0, True)],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_where_others_can_remove_a_lock_is_not_shared(
    tmp_path: Path, mode: int, owner: int, for_all: bool
) -> None:
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(mode)
    os.chown(common, owner, owner)
    assert shared_folder(common).for_all_users == for_all


def test_where_the_common_folder_is_a_link_a_users_own_is_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "common").symlink_to(tmp_path / "elsewhere")
    shared = shared_folder(tmp_path / "common")
    assert not shared.for_all_users
    assert shared.path == tmp_path / f"common-{os.geteuid()}"
    assert stat.S_IMODE(shared.path.stat().st_mode) == 0o700


def test_a_folder_that_becomes_a_link_as_it_is_made_opens_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write above it can put a link to a folder of the user's in its place."""
    common, mine = tmp_path / "common", tmp_path / "mine"
    mine.mkdir(mode=0o700)
    make = Path.mkdir

    def raced(path: Path, *args: object, **kwargs: object) -> None:
        make(path, *args, **kwargs)  # type: ignore[arg-type]
        if path == common:
            path.rmdir()
            path.symlink_to(mine)

    monkeypatch.setattr(Path, "mkdir", raced)
    assert not shared_folder(common).for_all_users
    assert stat.S_IMODE(mine.stat().st_mode) == 0o700


def test_a_runtime_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLEM_RUNTIME_DIR", str(tmp_path / "here"))
    assert shared_folder().path == tmp_path / "here"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach too, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_two_users_share_a_card(open_folder: Path) -> None:
    common = shared_folder(open_folder / "common").path
    with another_run(common, "GPU-a", user=65534) as other:
        (lock_file,) = common.iterdir()
        assert lock_file.stat().st_uid == 65534
        with pytest.raises(GpuBusyError, match=f"pid {other.pid}"):
            lock(common, "GPU-a")
    with lock(common, "GPU-a"):
        pass
