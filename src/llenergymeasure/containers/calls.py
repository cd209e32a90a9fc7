"""Calls of a container command, each with a deadline, and the reason in what one printed."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from itertools import takewhile

from llenergymeasure import processes
from llenergymeasure.errors import LlemError
from llenergymeasure.redact import without_secrets

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_REASON = re.compile(r"(FATAL|ERROR|Error|docker)\b.*:")
_HELP = ("See 'docker", "Run 'docker")


class ContainerError(LlemError):
    """A container cannot be started here, or did not start."""


def call(
    words: Sequence[str], limit_s: float, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a container command to its end; return its exit code and what it printed.

    Args:
        words: the command.
        limit_s: how long it may take; then it is killed with its children.
        variables: added to this process's environment.

    Raises:
        ContainerError: it cannot be started, or did not end in time.
    """
    try:
        child = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | dict(variables or {}),
            start_new_session=True,
        )
    except OSError as error:
        raise ContainerError(f"{words[0]} cannot be started: {error.strerror}") from None
    with child:
        try:
            out, err = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            name = " ".join(list(takewhile(lambda word: word[0] != "-", words))[:3])
            raise ContainerError(f"{name} did not answer within {limit_s:g} s") from None
        finally:
            if child.poll() is None:
                processes.signal_group(child, signal.SIGKILL)
    return subprocess.CompletedProcess(words, child.returncode, out, err)


def reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line of a failed command's messages that says why, without any secret."""
    text = without_secrets(_COLOUR.sub("", done.stderr))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_HELP)]
    for place in range(len(lines) - 1, -1, -1):
        if _REASON.match(lines[place]):
            return " ".join(lines[place:])
    return lines[-1] if lines else f"it ended with exit code {done.returncode}"
