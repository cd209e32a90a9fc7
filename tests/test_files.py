"""Files are whole or as they were; a lock is held by one and freed by the kernel."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import files
from llenergymeasure.errors import StudyLockedError
from llenergymeasure.files import locked, replacing, write_if_changed, write_text


def test_a_block_that_raises_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def break_off() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new, but")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        break_off()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "deep" / "ours", "x")
    assert (tmp_path / "deep" / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_same_bytes_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert write_if_changed(path, b"one")
    os.utime(path, (1, 1))
    assert not write_if_changed(path, b"one")
    assert path.stat().st_mtime == 1
    assert write_if_changed(path, b"two")


def test_who_only_looks_who_has_a_lock_keeps_nobody_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lock"
    assert files.lock_holder(path) is None
    with locked(path, "the first"):
        assert str(files.lock_holder(path)).startswith("the first (pid ")
    assert files.lock_holder(path) is None
    looking = os.open(path, os.O_RDONLY)
    files.fcntl.flock(looking, files.fcntl.LOCK_SH)
    monkeypatch.setattr(files.time, "sleep", lambda _: os.close(looking))
    with locked(path, "the second"):
        pass


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF, errno.ENOLCK])
def test_who_only_looks_at_a_lock_is_not_stopped_where_it_cannot_be_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(files.fcntl, "flock", refuse)
    assert files.lock_holder(tmp_path / ".lock") is None
    assert not capsys.readouterr().err


def test_the_second_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    path = tmp_path / "study" / ".lock"
    holder = f"the first .pid {os.getpid()}"
    with locked(path, "the first"), pytest.raises(StudyLockedError, match=holder):
        locked(path, "the second").__enter__()
    with locked(path, "the third"):
        pass


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from llenergymeasure.files import locked\n"
        f"with locked(Path({str(path)!r}), 'child'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(StudyLockedError):
            locked(path, "parent").__enter__()
        child.kill()
    with locked(path, "parent"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524])
def test_where_there_are_no_locks_it_goes_on_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refusing(code: int) -> Any:
        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        return refuse

    monkeypatch.setattr(files.fcntl, "flock", refusing(number))
    with (tmp_path / "lock").open("w") as file:
        assert files.try_lock(file.fileno())
        assert files.try_lock(file.fileno())
    errors = capsys.readouterr().err
    assert errors.count("has no locks") == 1
    assert str(tmp_path) in errors
    monkeypatch.setattr(files.fcntl, "flock", refusing(errno.EIO))
    with (tmp_path / "lock").open("w") as file, pytest.raises(OSError, match="Input/output"):
        files.try_lock(file.fileno())
