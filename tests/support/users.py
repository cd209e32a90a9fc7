"""Processes of other users on this machine; only root can start them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

US, STRANGER = 65_533, 65_534
"""Two users that own nothing, the second nobody."""

IS_ROOT = os.geteuid() == 0
NOT_ROOT = "only root can become another user"

# What is needed is imported first: another user may not be able to read where it is.
_BECOME = """
import encodings.idna, os, socket, sys, time
from pathlib import Path
{imports}
os.setgroups([])
os.setgid({user})
os.setuid({user})
os.umask(0o022)
assert os.geteuid() == {user}
"""


def as_user(user: int, code: str, *arguments: str, imports: str = "") -> str:
    """Run code as another user to its end; return what it printed."""
    result = subprocess.run(
        _command(user, code, imports, arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def at_work(user: int, code: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Another user's process, until the block ends; it has said that it is ready."""
    with kept_running(_command(user, code, "", arguments), "ready") as process:
        yield process


@contextmanager
def kept_running(
    command: Sequence[str], says: str, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """A process until the block ends, from when it has printed a line."""
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{says}\n"
        yield process
        process.kill()


def _command(user: int, code: str, imports: str, arguments: tuple[str, ...]) -> list[str]:
    become = _BECOME.format(user=user, imports=imports)
    return [sys.executable, "-c", f"{become}\n{code}", *arguments]
