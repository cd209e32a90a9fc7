"""Calls of a container command, each with a deadline, and the reason in what one printed."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from llenergymeasure import processes
from llenergymeasure.errors import LlemError
from llenergymeasure.redact import without_secrets

_COLOR_CODES = re.compile(r"\x1b\[[0-9;]*m")
_REASON = re.compile(r"(FATAL|ERROR|Error|docker)\b.*:")
_HELP_PREFIXES = ("See 'docker", "Run 'docker")


class ContainerError(LlemError):
    """A container cannot be started here, or did not start."""


def call(
    command: Sequence[str], limit_s: float, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a container command to its end, with ``variables`` added to this environment's.

    Raises:
        ContainerError: it cannot be started, or did not end in time.
    """
    try:
        return processes.run_to_end(
            command, limit_s, environment=os.environ | dict(variables or {})
        )
    except processes.ChildError as error:
        raise ContainerError(str(error)) from None


def failure_reason(result: subprocess.CompletedProcess[str]) -> str:
    """Return the line of a failed command's messages that says why, without any secret."""
    text = without_secrets(_COLOR_CODES.sub("", result.stderr))
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_HELP_PREFIXES)]
    for index in range(len(lines) - 1, -1, -1):
        if _REASON.match(lines[index]):
            return " ".join(lines[index:])
    return lines[-1] if lines else f"it ended with exit code {result.returncode}"
