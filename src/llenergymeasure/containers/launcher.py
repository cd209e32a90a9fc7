"""Run one run in a container, as if it were a local process.

With Docker it starts the container, passes on its output and exit code, ends it on a signal or when
the calling process is gone, and removes what killed launchers left behind. With Apptainer it
becomes ``apptainer exec``, so that signals and exit code are the container's own.

Without ``--run`` the container holds only the engine's process: the supervisor runs outside, with
the meter.
"""

import argparse
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from llenergymeasure.containers import apptainer, docker
from llenergymeasure.containers.calls import ContainerError
from llenergymeasure.containers.container_checks import visible_uuids
from llenergymeasure.containers.container_setup import (
    ContainerSetup,
    image_variables,
    inside_variables,
)
from llenergymeasure.containers.mounts import texts
from llenergymeasure.containers.tasks import Task
from llenergymeasure.errors import EXIT_CONFIGURATION, EXIT_FAILED, LlemError
from llenergymeasure.files import make_folder, read_json
from llenergymeasure.processes import SignalPipe, arguments, signal_group
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.screen import say
from llenergymeasure.workload.models.hub import offline
from llenergymeasure.workload.models.resolve import is_hub_id

START_LIMIT_S = 900.0
"""From the call of Docker until the process inside has begun, on a cold network disk."""

GRACE_S = 45.0
"""Between SIGTERM and SIGKILL: longer than the supervisor inside waits for its own children."""

RETURN_LIMIT_S = 60.0
"""For Docker to return once the process inside has ended."""

POLL_S = 0.5

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

DOCKER_CODES = frozenset({125, 126, 127})
"""Exit codes of ``docker run`` itself: no container, or its command cannot run."""


def main(arguments: list[str] | None = None) -> int:
    """Run one run; return the exit code of its supervisor, or 1."""
    options = _parser().parse_args(arguments)
    try:
        task = _task(options)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        say(f"{options.spec or options.out}: {error}")
        return EXIT_CONFIGURATION
    try:
        if options.runner == "apptainer":
            _become_apptainer(options, task)
        return _run_in_docker(options, task)
    except (LlemError, OSError) as error:
        say(f"run {task.name} failed: {error}")
        with contextlib.suppress(OSError):  # a full disk: the message above has to do
            task.fail(str(error), EXIT_FAILED)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runner", choices=("docker", "apptainer"), required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--spec", type=Path, help="the study's plan")
    parser.add_argument("--run", help="EXPERIMENT/CYCLE of it; without, the engine's process alone")
    parser.add_argument("--watch", type=int, help="end the run when this process ends")
    parser.add_argument("--share", action="store_true", help="measure those on its server, too")
    return parser


def _task(options: argparse.Namespace) -> Task:
    folder = RunFolder(options.out.absolute())
    if options.run is None:
        return Task.engine_alone(folder)
    share = options.watch if options.share else None
    return Task.whole_run(options.spec, options.run, folder, share)


def _become_apptainer(options: argparse.Namespace, task: Task) -> None:
    """Become the container; the workflow has set its mounts in variables."""
    command = apptainer.exec_command(options.image, task.command(options.watch))
    # The supervisor's choice of cards wins over the workflow's variables.
    variables = apptainer.environment_inside(inside_variables(os.environ))
    os.execvpe(command[0], command, os.environ | variables)  # noqa: S606 - as it should


def _run_in_docker(options: argparse.Namespace, task: Task) -> int:
    """Run the container; return the exit code of its process."""
    signals = SignalPipe()
    ends = [signals.handle]
    if options.watch is not None:
        try:
            ends.append(os.pidfd_open(options.watch))
        except ProcessLookupError:
            raise ContainerError("the process that asked for the run ended before it") from None
    engine = docker.find_engine()
    docker.remove_abandoned(engine)
    # By its id: a tag may point to another image when it is started.
    image, digest = docker.pull(engine, options.image) or (options.image, None)
    setup = ContainerSetup.for_runs(task.configs, task.writable, meter_inside=task.meter_inside)
    name = f"llem-{task.name.replace('/', '-')}-{os.getpid()}"
    try:
        command = docker.run_command(
            engine,
            image,
            task.command(os.getpid()),
            name=name,
            mounts=setup.mounts,
            variables={**setup.variables, **image_variables(options.image, digest)},
            workdir=Path.cwd(),
            gpus=visible_uuids(),
            network=any(map(needs_network, task.configs)),
        )
        launch = _Launch(command, task)
        try:
            ready = launch.wait(ends)
        finally:
            if launch.end() != 0:
                _remove(engine, name)
        signal_number = signals.take() if ready == signals.handle else signal.SIGTERM
        return launch.exit_code(signal_number if ready in ends else None)
    finally:
        setup.token.close()


class _Launch:
    """One container of Docker, from its start to its end."""

    def __init__(self, command: list[str], task: Task) -> None:
        self._task = task
        self._process_fd: int | None = None
        """A pidfd of the process inside, once it has begun; its id is the same on the host."""
        make_folder(task.folder.path)
        self._client = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self._stderr_tail: deque[bytes] = deque(maxlen=20)
        self._listener = threading.Thread(target=self._forward_stderr, daemon=True)
        self._listener.start()

    def wait(self, ends: list[int]) -> int:
        """Wait for the container's end, or one of ``ends``; return the handle that is ready.

        Raises:
            ContainerError: the container did not start in time.
        """
        client = os.pidfd_open(self._client.pid)
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            process_fds = [] if self._process_fd is None else [self._process_fd]
            limit_s = None if process_fds else POLL_S
            ready, _, _ = select.select([*ends, client, *process_fds], [], [], limit_s)
            if ready:
                return ready[0]
            if self._find_process():
                deadline = float("inf")
        raise ContainerError(f"Docker did not start the container within {START_LIMIT_S:g} s")

    def _find_process(self) -> bool:
        """Return whether the process inside has begun and still runs; open its pidfd."""
        pid = self._task.pid()
        if pid is None:
            return False
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return False
        # In a container with its own process ids the number belongs to another process.
        if str(os.getpid()) in arguments(pid):
            self._process_fd = handle
        else:
            os.close(handle)
        return True

    def end(self) -> int:
        """End the process inside and Docker's command; return the command's code."""
        if self._process_fd is None:
            self._find_process()
        if self._process_fd is not None:
            self._end_process(self._process_fd)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._client.wait(RETURN_LIMIT_S)
        signal_group(self._client, signal.SIGKILL)
        code = self._client.wait()
        self._listener.join(1.0)
        return code

    def _end_process(self, process_fd: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if select.select([process_fd], [], [], 0)[0]:
                return
            try:
                signal.pidfd_send_signal(process_fd, number)
            except OSError:  # over, or another user's: then the container's removal ends it
                return
            select.select([process_fd], [], [], GRACE_S)

    def exit_code(self, signal_number: int | None) -> int:
        """Return the run's code, and write its outcome if the run did not begin.

        Args:
            signal_number: the signal that asked for its end; None where none did.
        """
        code = self._client.returncode
        has_begun = self._process_fd is not None or self._task.pid() is not None
        if not has_begun and code != 0:
            if signal_number is not None:
                name = signal.Signals(signal_number).name
                self._task.fail(f"{name} before the run began", 128 + signal_number, "interrupted")
            else:
                stderr = b"".join(self._stderr_tail).decode(errors="replace").strip()[-2000:]
                self._task.fail(stderr or f"exit code {code}", code)
        if code < 0 and has_begun and self._task.meter_inside:  # Docker did not return
            recorded_code = (read_json(self._task.folder.outcome) or {}).get("exit_code")
            code = code if recorded_code is None else recorded_code
        if code < 0 and signal_number is not None:
            return 128 + signal_number
        return EXIT_FAILED if code < 0 or code in DOCKER_CODES else code

    def _forward_stderr(self) -> None:
        assert self._client.stderr is not None
        for line in self._client.stderr:
            self._stderr_tail.append(line)
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def _remove(engine: docker.Engine, name: str) -> None:
    try:
        docker.remove_container(engine, name)
    except ContainerError as error:
        say(f"{error}; {name} may be left: the next start, or llem clean, removes it")


def needs_network(config: dict[str, Any]) -> bool:
    """Return whether a run may have to download something: only then does it get a network.

    A model, an adapter, a draft model: any name in the hub's form that is no file here.
    """
    dataset = config.get("dataset")
    names = [text for text in texts(config) if _HUB_NAME.fullmatch(text)]
    names += [config["model"]] if is_hub_id(config["model"]) else []  # gpt2 has no owner
    if isinstance(dataset, str) and dataset != "synthetic":
        names.append(dataset)
    return not offline() and not all(Path(name).exists() for name in names)


if __name__ == "__main__":
    sys.exit(main())
