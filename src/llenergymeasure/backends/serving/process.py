"""An engine's server as a child: started, waited for, and ended with all it has started."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from llenergymeasure.backends.base import ServerCommand
from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.guard import GRACE_S
from llenergymeasure.backends.serving.listener import own_listener
from llenergymeasure.errors import BackendError
from llenergymeasure.processes import end_group, python_module
from llenergymeasure.redact import KEY_FILE_PLACE, KEY_PLACE, KEY_VARIABLE, make_key

FOREIGN_READY_S = 10.0
"""A server that is running already has to answer by then."""

_NO_SUCH_PAGE = (404, 405, 501)

_GUARD = "llenergymeasure.backends.serving.guard"
_CLEANUP_S = 2.0
"""For the guard to end what the server has left."""

_POLL_S = 0.1


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_for(command: ServerCommand) -> str | None:
    """Return the key of a server: the run's where the run starts it and it takes one.

    Whatever the server says of it, it is a secret to all that this process writes.
    """
    texts = (*command.argv, *command.environment.values(), command.key_file)
    if not any(KEY_PLACE in text for text in texts):
        return command.api_key
    return os.environ.get(KEY_VARIABLE) or make_key()


class ServerProcess:
    """A server that answers; nothing is started or ended where it was running already.

    Its output goes where this process's own goes. Nothing is sent to its port before the socket
    that listens there is shown to be its own.

    Raises:
        BackendError: it ended, was not ready within its limit, or another has its port.
    """

    def __init__(self, command: ServerCommand, key: str | None) -> None:
        self._command, self._key = command, key
        self._port = urlsplit(command.base_url).port or 80
        self._child: subprocess.Popen[bytes] | None = None
        self._key_folder: TemporaryDirectory[str] | None = None
        if command.argv:
            self._child = self._start()
        try:
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _start(self) -> "subprocess.Popen[bytes]":
        command, key = self._command, self._key or ""
        if shutil.which(command.argv[0]) is None:
            raise BackendError(f"the server cannot be started: there is no {command.argv[0]} here")
        environ = {name: text.replace(KEY_PLACE, key) for name, text in command.environment.items()}
        argv = [text.replace(KEY_PLACE, key) for text in command.argv]
        if command.key_file:
            self._key_folder = TemporaryDirectory(prefix="llem-")  # for this user alone
            path = Path(self._key_folder.name, "server.yaml")
            path.write_text(command.key_file.replace(KEY_PLACE, key))
            argv = [text.replace(KEY_FILE_PLACE, str(path)) for text in argv]
        return subprocess.Popen(
            python_module(_GUARD, str(os.getpid()), *argv),
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environ},
            process_group=0,
        )

    def exit_code(self) -> int | None:
        """Return its exit code if it has ended by itself; None while it lives."""
        return None if self._child is None else self._child.poll()

    def close(self) -> None:
        """End it and all it has started; wait until it is gone."""
        child, self._child = self._child, None
        if child is not None:
            end_group(child, GRACE_S + _CLEANUP_S)
        if self._key_folder is not None:
            self._key_folder.cleanup()

    def _wait_ready(self) -> None:
        limit_s = self._command.ready_limit_s if self._child is not None else FOREIGN_READY_S
        deadline_s = time.monotonic() + limit_s
        reason = "no answer"
        while time.monotonic() < deadline_s:
            if self._child is not None and self._child.poll() is not None:
                own_listener(self._port, self._child.pid)  # or another has its port
                code = self._child.returncode
                hint = "" if code else " (it has to stay in the foreground)"
                raise BackendError(
                    f"the server ended with exit code {code} before it was ready{hint}; its own "
                    "words are in run.log"
                )
            reason = self._why_not_ready(min(5.0, deadline_s - time.monotonic()))
            if not reason:
                return
            time.sleep(_POLL_S)
        raise BackendError(
            f"the server at {self._command.base_url} was not ready within {limit_s:g} s: {reason}"
        )

    def _why_not_ready(self, timeout_s: float) -> str:
        """Return why the server takes no requests yet; empty if it does."""
        command = self._command
        if self._child is not None and not own_listener(self._port, self._child.pid):
            return f"it does not listen on port {self._port}"
        try:
            status = asyncio.run(_status(command, self._key, timeout_s))
        except TimeoutError:
            return f"{command.ready_path} was not answered in time"
        except OSError as error:
            return str(error) or type(error).__name__
        # One that runs already may have no such page: its answers show whether it is ready.
        ready = status == 200 or (self._child is None and status in _NO_SUCH_PAGE)
        return "" if ready else f"{command.ready_path} answers {status}"


async def _status(command: ServerCommand, key: str | None, timeout_s: float) -> int:
    client = StreamingClient(command.base_url, key)
    try:
        return (await client.get(command.ready_path, timeout_s))[0]
    finally:
        await client.close()
