"""An engine's server as a child: started, waited for, and ended with all it has started."""

import asyncio
import os
import socket
import subprocess
import time

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.errors import BackendError
from llenergymeasure.processes import die_with_parent, end_group

GRACE_S = 30.0
"""Seconds between SIGTERM and SIGKILL."""

FOREIGN_READY_S = 10.0
"""A server that is running already has to answer by then."""

_LOOK_S = 0.1


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A server that answers; nothing is started or ended where it was running already.

    Its output goes where this process's own goes.

    Args:
        command: how to start and reach it.

    Raises:
        BackendError: it ended, or was not ready within its limit.
    """

    def __init__(self, command: ServerCommand) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        if command.argv:
            try:
                self._child = subprocess.Popen(
                    command.argv,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **command.environment},
                    process_group=0,
                    preexec_fn=die_with_parent,
                )
            except OSError as error:
                raise BackendError(f"the server cannot be started: {error}") from error
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int | None:
        """Its process id; null where it is not ours."""
        return None if self._child is None else self._child.pid

    def ended(self) -> int | None:
        """Return its exit code if it has ended by itself; null while it lives."""
        return None if self._child is None else self._child.poll()

    def close(self) -> None:
        """End it and all it has started; wait until it is gone."""
        child, self._child = self._child, None
        if child is not None:
            end_group(child, GRACE_S)

    def _wait_ready(self) -> None:
        limit_s = self._command.ready_limit_s if self._child is not None else FOREIGN_READY_S
        deadline = time.monotonic() + limit_s
        reason = "no answer"
        while time.monotonic() < deadline:
            if self._child is not None and self._child.poll() is not None:
                raise BackendError(
                    f"the server ended with exit code {self._child.returncode} before it was "
                    "ready; its own words stand in run.log"
                )
            reason = _not_ready(self._command, min(5.0, deadline - time.monotonic()))
            if not reason:
                return
            time.sleep(_LOOK_S)
        raise BackendError(
            f"the server at {self._command.base_url} was not ready within {limit_s:g} s: {reason}"
        )


def _not_ready(command: ServerCommand, timeout_s: float) -> str:
    """Return why the server takes no requests yet; empty if it does."""
    try:
        status = asyncio.run(_status(command, timeout_s))
    except TimeoutError:
        return f"{command.ready_path} was not answered in time"
    except OSError as error:
        return str(error) or type(error).__name__
    return "" if status == 200 else f"{command.ready_path} answers {status}"


async def _status(command: ServerCommand, timeout_s: float) -> int:
    client = StreamingClient(command.base_url, command.api_key)
    try:
        return (await client.get(command.ready_path, timeout_s))[0]
    finally:
        await client.close()
