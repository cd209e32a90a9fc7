"""Another user of the same machine: whatever is tried is refused or flagged, and nobody waits.

Each test is one try by a real process with another user's rights (uid), against real parts.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving import listener
from llenergymeasure.backends.serving.process import ServerProcess, free_port
from llenergymeasure.errors import BackendError
from llenergymeasure.machine.folders import shared_folder
from llenergymeasure.machine.gpus.limits import (
    restore_abandoned_limits,
    restore_limits,
    set_limits,
)
from llenergymeasure.machine.gpus.locks import lock_gpus
from llenergymeasure.machine.gpus.nvml_limits import Limits
from llenergymeasure.processes import arguments, descendants
from machine.conftest import UUID, read_back
from machine.conftest import simulated as simulated  # noqa: PLC0414 - a fixture
from support import serving_server
from support.attempts import Attempt, start
from support.limits import AS_FOUND
from support.users import IS_ROOT, NOT_ROOT, STRANGER, US, as_user, at_work

pytestmark = [pytest.mark.system, pytest.mark.skipif(not IS_ROOT, reason=NOT_ROOT)]

LOCK = f"gpu-{UUID}.lock"


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder for all users, as a first run of ours makes it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        folder = shared_folder(place / "common")
        assert folder.for_all_users
        yield folder.path


def plants(folder: Path, code: str) -> None:
    """Let the stranger do something in a folder."""
    as_user(STRANGER, f"place = Path(sys.argv[1])\n{code}", str(folder))


TAKE = """
try:
    locks = lock_gpus(sys.argv[2:], "ours", count=1, wait_s=0.5, folder=Path(sys.argv[1]))
    print("held", *locks.uuids)
except GpuBusyError as error:
    print("refused", error)
"""


def take(folder: Path, *uuids: str) -> str:
    """Try to hold one of these cards, as a user who is neither root nor the stranger."""
    module = "from llenergymeasure.machine.gpus.locks import GpuBusyError, lock_gpus"
    return as_user(US, TAKE, str(folder), *uuids, imports=module)


@pytest.mark.parametrize(
    "plant",
    [
        f"os.mkfifo(place / '{LOCK}')",
        f"(place / '{LOCK}').mkdir()",
        f"(place / '{LOCK}').symlink_to('/etc/passwd')",
        f"os.close(os.open(place / '{LOCK}', os.O_CREAT, 0o000))",
    ],
    ids=["a pipe", "a folder", "a link", "a file that nobody may open"],
)
def test_in_the_place_of_a_card_s_lock(common: Path, plant: str) -> None:
    """The card is refused with the file's name, and another card is free."""
    plants(common, plant)
    message = take(common, UUID)
    assert message.startswith("refused")
    assert LOCK in message
    assert take(common, UUID, "GPU-b") == "held GPU-b\n"


def test_a_lock_in_use_is_neither_removed_nor_replaced(common: Path) -> None:
    (common / LOCK).touch()
    locks = lock_gpus([UUID], "ours", wait_s=0, folder=common)
    assert locks is not None
    with locks, pytest.raises(AssertionError, match="PermissionError"):
        plants(common, f"(place / '{LOCK}').unlink()")
    assert (common / LOCK).exists()


@pytest.mark.parametrize(
    "make", ["place.mkdir(); place.chmod(0o777)", "place.symlink_to('/tmp')"], ids=["open", "link"]
)
def test_a_lock_folder_that_the_stranger_rules_is_not_used(common: Path, make: str) -> None:
    plants(common / "theirs", make)
    code = "found = shared_folder(Path(sys.argv[1]))\nprint(found.for_all_users, found.path)"
    module = "from llenergymeasure.machine.folders import shared_folder"
    output = as_user(US, code, str(common / "theirs"), imports=module)
    assert output == f"False {common}/theirs-{US}\n"


def test_what_is_no_record_of_ours_keeps_no_limit_from_being_set(
    simulated: Any, common: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged record, a pipe and odd names: nothing of them is set, and limits can be."""
    environment = simulated()
    monkeypatch.setenv("LLEM_RUNTIME_DIR", str(common))
    environment["LLEM_RUNTIME_DIR"] = str(common)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    forged = {
        "format": 1,
        "uuid": UUID,
        "power_limit_before_w": 100.0,
        "power_limit_set_w": 400.0,
        "sm_clock_set_mhz": 210,
        "boot_id": boot,
    }
    prefix = f"limits-{os.geteuid()}-"
    plants(
        common,
        f"(place / '{prefix}{UUID}.json').write_text({json.dumps(forged)!r})\n"
        f"os.mkfifo(place / '{prefix}GPU-b.json')\n"
        f"for name in ('x', '..', '{UUID}~', ' ', 'GPU-*', '\\x1b[2J'):\n"
        f"    (place / f'{prefix}{{name}}.json').write_text('{{')\n",
    )
    assert restore_abandoned_limits() == {}
    assert read_back(environment) == AS_FOUND
    locks = lock_gpus([UUID], "ours", wait_s=0)
    assert locks is not None
    with locks:
        set_limits(locks, Limits(150))
        assert read_back(environment)[0] == 150
        assert restore_limits(locks)["restored"]
    assert read_back(environment) == AS_FOUND


SQUAT = """
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    print(server.accept()[0].recv(1), flush=True)
"""


def test_a_port_taken_before_the_server_gets_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_STRANGER_LIMIT_S", 0.3)
    port = free_port()
    argv = (sys.executable, "-c", "import time; time.sleep(60)")
    command = ServerCommand(argv, f"http://127.0.0.1:{port}/v1", "sim", ready_limit_s=60)
    with at_work(STRANGER, SQUAT, str(port)) as squatter:
        with pytest.raises(BackendError, match=f"another process, of user {STRANGER}"):
            ServerProcess(command, "the run's key")
        squatter.kill()
        assert squatter.stdout is not None
        assert squatter.stdout.read() == ""


ENGINE = {"model": "sim", "gauges": {"requests": "sim:requests"}, "metrics_path": "/metrics"}


def served(folder: Path, *arguments: str, window_s: float = 3.0) -> tuple[Attempt, int]:
    """A run on the test's server, whose port a stranger reads from its command line."""
    attempt = start(
        folder,
        backend="openai",
        openai={
            **ENGINE,
            "command": serving_server.command("{port}", "--next-ms", "1", *arguments),
            "environment": {"SERVER_API_KEY": "{api_key}"},
        },
        serving={"arrivals": "closed", "concurrency": 2},
        window={"min_seconds": window_s},
    )
    attempt.wait_for_phase("ramp_up")
    return attempt, port_of(attempt)


def port_of(attempt: Attempt) -> int:
    """The port of the run's own server: anybody may read it from the command line."""
    commands = (arguments(pid) for pid in descendants(attempt.process.pid))
    (port,) = {words[words.index("--port") + 1] for words in commands if "--port" in words}
    return int(port)


READ = """
for path in Path("/proc").glob("[0-9]*"):
    for name in ("cmdline", "environ"):
        try:
            text = (path / name).read_bytes().decode(errors="replace").replace("\\0", " ")
        except OSError:
            continue
        if sys.argv[1] in text and "Path(\\"/proc\\")" not in text:
            print(text.replace("\\n", " "))
"""


@pytest.mark.slow
def test_a_stranger_s_request_is_flagged_and_the_key_cannot_be_read(tmp_path: Path) -> None:
    attempt, port = served(tmp_path)
    key = _key_of(attempt)
    assert len(key) > 30
    assert as_user(STRANGER, READ, key) == ""
    body = json.dumps(
        {
            "prompt": [1],
            "max_tokens": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    request = f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    code = (
        "link = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "link.sendall(sys.argv[2].encode())\n"
        "print(link.recv(1000))\n"
    )
    assert "200 OK" in as_user(STRANGER, code, str(port), request)
    assert attempt.process.wait(240) == 0
    assert "foreign_requests" in attempt.result()["validity"]


def _key_of(attempt: Attempt) -> str:
    """The run's key, by root's rights."""
    engine = attempt.child("engine_process")
    variables = Path(f"/proc/{engine}/environ").read_bytes().split(b"\0")
    return next(
        variable.decode().partition("=")[2]
        for variable in variables
        if variable.startswith(b"LLEM_SERVER_KEY=")
    )


@pytest.mark.slow
def test_a_port_taken_when_the_server_has_died_makes_no_result(tmp_path: Path) -> None:
    attempt, port = served(tmp_path, "--die-after-s", "20", window_s=40.0)
    taker = (
        "deadline = time.monotonic() + 60\n"
        "while time.monotonic() < deadline:\n"
        "    try:\n"
        "        server = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.001)\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    link = server.accept()[0]\n"
        "    link.recv(65536)\n"
        "    link.sendall(sys.argv[2].encode())\n"
    )
    answer = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        'data: {"choices": [{"index": 0, "text": "a", "finish_reason": "length"}], '
        '"usage": {"prompt_tokens": 8, "completion_tokens": 4}}\n\ndata: [DONE]\n\n'
    )
    with at_work(STRANGER, taker, str(port), answer):
        assert attempt.process.wait(240) != 0
    assert not (attempt.folder / "result.json").exists()
    error = attempt.outcome()["error"]
    assert "server ended" in error["message"]


@pytest.mark.slow
def test_the_pytorch_server_answers_nobody_without_the_run_s_key(tmp_path: Path) -> None:
    attempt = start(
        tmp_path,
        serving={"arrivals": "closed", "concurrency": 1},
        window={"min_seconds": 5.0},
        warmup={"n_warmup": 1},
    )
    attempt.wait_for_phase("ramp_up")
    port = port_of(attempt)
    code = (
        "link = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "link.sendall(b'POST /v1/completions HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\n{}')\n"
        "print(link.recv(1000))\n"
    )
    assert "401 Unauthorized" in as_user(STRANGER, code, str(port))
    assert attempt.process.wait(240) == 0
    assert "foreign_requests" not in attempt.result()["validity"]
