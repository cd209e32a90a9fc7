"""Run one run in a Docker container, as if it were a local process.

It starts the container, hands on its output and exit code, ends it on a signal or when the
process that asked for it is gone, and removes what launchers that were killed left behind.

With ``--engine`` the container holds the engine's process alone: the supervisor that asked for it
works outside, with the meter.
"""

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llenergymeasure.containers import docker
from llenergymeasure.containers.container_checks import visible_uuids
from llenergymeasure.containers.container_task import ContainerTask, EngineAlone, WholeRun
from llenergymeasure.containers.images import docker_digest
from llenergymeasure.containers.surroundings import Surroundings, image_variables
from llenergymeasure.errors import EXIT_CONFIGURATION, EXIT_FAILED, LlemError
from llenergymeasure.results.layout import RunFolder

OWNER_LABEL = "llenergymeasure.owner"
RUN_LABEL = "llenergymeasure.run"

GRACE_S = 45.0
"""Between SIGTERM and SIGKILL: longer than what the supervisor inside gives its own children."""

CLEAN_LIMIT_S = 30.0

DOCKER_CODES = frozenset({125, 126, 127})
"""Exit codes of ``docker run`` itself: no container, or its command cannot run."""


def main(arguments: list[str] | None = None) -> int:
    """Run one run; return the exit code of its supervisor, or 1."""
    options = _parser().parse_args(arguments)
    try:
        task = _task(options)
    except (OSError, ValueError, KeyError) as error:
        print(f"{options.spec or options.out}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    try:
        return _Launch(options, task, docker.find_engine()).run()
    except LlemError as error:
        task.fail(str(error), EXIT_FAILED)
        print(f"run {task.name} failed: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--scripts", type=Path, required=True, help="the workers' folder")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="EXPERIMENT/CYCLE, of the plan that --spec names")
    what.add_argument("--engine", action="store_true", help="the engine's process alone")
    parser.add_argument("--spec", type=Path, help="the study's plan")
    parser.add_argument("--watch", type=int, help="end the run when this process ends")
    return parser


def _task(options: argparse.Namespace) -> ContainerTask:
    folder = RunFolder(options.out.absolute())
    if options.engine:
        return EngineAlone.of_folder(folder)
    return WholeRun.of_plan(options.spec, options.run, options.backend, folder)


class _Launch:
    """One container, from its start to its removal."""

    def __init__(
        self, options: argparse.Namespace, task: ContainerTask, engine: docker.Engine
    ) -> None:
        self._options = options
        self._engine = engine
        self._task = task
        self._name = f"llem-{task.name.replace('/', '-')}-{os.getpid()}"
        self._surroundings = Surroundings.of(
            [task.config], task.writable, options.scripts, meter_inside=task.meter_inside
        )
        self._container = docker.Container(
            image=options.image,
            command=task.command(os.getpid()),
            mounts=self._surroundings.mounts,
            variables={
                **self._surroundings.variables,
                **image_variables(options.image, docker_digest(engine.command, options.image)),
            },
            name=self._name,
            workdir=Path.cwd(),
            gpus=visible_uuids(),
            network=needs_network(task.config, self._surroundings.variables),
            labels={OWNER_LABEL: owner(os.getpid()), RUN_LABEL: task.name},
        )

    def run(self) -> int:
        """Run the container; return its exit code."""
        remove_abandoned(self._engine)
        signals = _wake_pipe()
        self._task.folder.path.mkdir(parents=True, exist_ok=True)
        client = subprocess.Popen(
            docker.run_command(self._engine, self._container),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert client.stderr is not None
        said: deque[bytes] = deque(maxlen=20)
        listener = threading.Thread(target=_hand_on, args=(client.stderr, said), daemon=True)
        listener.start()
        try:
            asked_to_end = self._wait(client, signals)
        finally:
            self._remove(client)
            self._surroundings.token.close()
        listener.join(1.0)
        return self._exit_code(client.returncode, asked_to_end, said)

    def _wait(self, client: "subprocess.Popen[bytes]", signals: int) -> int | None:
        """Wait for the client, a signal, or the end of who asked; return the signal, if one."""
        poller = select.poll()
        client_handle = os.pidfd_open(client.pid)
        poller.register(client_handle, select.POLLIN)
        poller.register(signals, select.POLLIN)
        watched = self._watched()
        if watched is not None and watched >= 0:
            poller.register(watched, select.POLLIN)
        try:
            ready = set() if watched == -1 else {handle for handle, _ in poller.poll()}
        finally:
            os.close(client_handle)
            if watched is not None and watched >= 0:
                os.close(watched)
        if signals in ready:
            return os.read(signals, 1)[0]
        return None if client_handle in ready else int(signal.SIGTERM)

    def _watched(self) -> int | None:
        if self._options.watch is None:
            return None
        try:
            return os.pidfd_open(self._options.watch)
        except ProcessLookupError:
            return -1

    def _remove(self, client: "subprocess.Popen[bytes]") -> None:
        """End what is left of the container, with the daemon or without it."""
        if client.poll() is None or self._supervisor() is not None:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + GRACE_S
            while time.monotonic() < deadline:
                if client.poll() is not None and self._supervisor() is None:
                    break
                time.sleep(0.05)
            else:
                self._signal(signal.SIGKILL)
        if client.poll() is None:
            client.kill()
            client.wait()
        if client.returncode != 0:
            _quietly(self._engine, "rm", "--force", self._name)

    def _signal(self, number: signal.Signals) -> None:
        """Signal the supervisor through the daemon, or directly where that is gone."""
        pid = self._supervisor()
        if pid is None:
            _quietly(self._engine, "kill", f"--signal={number.name}", self._name)
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            _quietly(self._engine, "kill", f"--signal={number.name}", self._name)

    def _supervisor(self) -> int | None:
        """Return the supervisor's process id, which is the host's too; null if there is none."""
        wanted = [b"--watch", str(os.getpid()).encode()]
        for pid in _pids():
            words = _words(pid)
            if wanted[0] not in words or _state(pid) == "Z":
                continue
            place = words.index(wanted[0])
            if words[place + 1 : place + 2] == wanted[1:] and b"--rm" not in words:
                return pid
        return None

    def _exit_code(self, code: int, asked_to_end: int | None, said: "deque[bytes]") -> int:
        started = self._task.started()
        if code in DOCKER_CODES or (code != 0 and not started):
            message = b"".join(said).decode(errors="replace").strip() or f"exit code {code}"
            if not started:
                self._task.fail(message[-2000:], code)
            return EXIT_FAILED
        if asked_to_end is not None and code < 0:
            return 128 + asked_to_end
        return code if code >= 0 else EXIT_FAILED


def needs_network(config: dict[str, Any], variables: dict[str, str] | Any) -> bool:
    """Return whether a run has to fetch its model or data: only then does it get a network."""
    if str(variables.get("HF_HUB_OFFLINE", "")).lower() in ("1", "true", "yes", "on"):
        return False
    model, dataset = str(config.get("model", "")), config.get("dataset")
    fetched = config.get("weights") != "random" and "/" in model and not Path(model).exists()
    data = isinstance(dataset, str) and dataset != "synthetic" and not Path(dataset).exists()
    return fetched or data


def owner(pid: int) -> str:
    """Return what tells a launcher from every other: boot, process id, and its start."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{pid}:{_start(pid)}"


def remove_abandoned(engine: docker.Engine) -> list[str]:
    """Remove containers whose launcher was killed; return their ids."""
    found = abandoned(engine)
    for identity in found:
        remove_container(engine, identity)
    return found


def remove_container(engine: docker.Engine, identity: str) -> None:
    """End and remove a container; nothing if it is gone."""
    _quietly(engine, "rm", "--force", identity)


def abandoned(engine: docker.Engine) -> list[str]:
    """Return the ids of containers whose launcher was killed."""
    listed = _told(engine, "ps", "--all", "--quiet", "--filter", f"label={OWNER_LABEL}").split()
    found = []
    for identity in listed:
        template = '{{index .Config.Labels "' + OWNER_LABEL + '"}}'
        who = _told(engine, "inspect", "--format", template, identity).strip()
        boot, _, rest = who.partition(":")
        pid = rest.partition(":")[0]
        if not boot or (pid.isdigit() and owner(int(pid)) == who):
            continue
        found.append(identity)
    return found


def _told(engine: docker.Engine, *words: str) -> str:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [engine.command, *words],
            capture_output=True,
            text=True,
            timeout=CLEAN_LIMIT_S,
            check=False,
        ).stdout
    return ""


def _quietly(engine: docker.Engine, *words: str) -> None:
    _told(engine, *words)


def _hand_on(source: IO[bytes], said: "deque[bytes]") -> None:
    for line in source:
        said.append(line)
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()


def _wake_pipe() -> int:
    """Return a handle that signals can be read from, one byte each."""
    handle, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    return handle


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command's name (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "Z")


def _start(pid: int) -> str:
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


if __name__ == "__main__":
    sys.exit(main())
