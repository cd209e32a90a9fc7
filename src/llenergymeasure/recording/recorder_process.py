"""Starting and stopping the recorder (standard library only: supervisors import it)."""

import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from llenergymeasure.errors import EXIT_CONFIGURATION, ConfigurationError, MeterError
from llenergymeasure.processes import end_group, python_module

_LONGEST_LINE = 1 << 20


class RecorderProcess:
    """A recorder, held by its standard input: it ends when that closes, however we end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        """Take a started process; use ``start``."""
        self._process = process

    @classmethod
    def start(
        cls,
        out: Path,
        *,
        devices: str | int | Sequence[str | int] | None = None,
        sensors: str = "auto",
        run_pid: int | None = None,
        engine_pid_file: Path | None = None,
        log: IO[Any] | int | None = None,
    ) -> "RecorderProcess":
        """Start a recorder; it samples from when ``wait_ready`` returns.

        Args:
            out: the stream of samples to write; its folder must exist.
            devices: GPUs by UUID or NVML index, one, a list or joined by commas; ``none`` for no
                GPU; if not given, those a CUDA process would see.
            sensors: ``auto``, or names joined by commas; ``auto,zeus`` adds to the automatic.
            run_pid: root of the run's process tree; GPU processes outside it are strangers.
                This process if not given.
            engine_pid_file: will hold the root of one more tree of the run's processes.
            log: where its messages go; this process's standard error if not given.
        """
        command = python_module("llenergymeasure.recording.recorder", "--out", str(out))
        command += ["--sensors", sensors, "--run-pid", str(run_pid or os.getpid())]
        if engine_pid_file is not None:
            command += ["--engine-pid", str(engine_pid_file)]
        if devices is not None:
            names = [devices] if isinstance(devices, str | int) else devices
            joined = ",".join(map(str, names))
            command += ["--devices", joined or "none"]
        if threading.current_thread() is threading.main_thread():
            # The kernel's signal at our end follows the thread that started the recorder.
            command += ["--parent-pid", str(os.getpid())]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self, timeout_s: float) -> dict[str, Any]:
        """Wait until it samples; return what it says of its sensors.

        Returns:
            ``{"ready": true, "sensors": [SensorInfo as mappings], …}``.

        Raises:
            ConfigurationError: the sensors or devices asked for do not exist.
            MeterError: it ended, or was not ready in time.
        """
        line = self._first_line(timeout_s)
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise MeterError(f"the recorder said {line[:200]!r}") from None
        if answer.get("exit_code") == EXIT_CONFIGURATION:
            raise ConfigurationError(str(answer["error"]))
        if not answer.get("ready"):
            raise MeterError(f"the recorder did not start: {answer.get('error')}")
        return answer

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self, timeout_s: float) -> int:
        """End it and return its exit status: 0 if all samples are written.

        It is asked to by SIGTERM: a process that was forked meanwhile may hold its standard input
        open. What does not end within ``timeout_s`` gets SIGKILL.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        status = end_group(self._process, timeout_s)
        self._process.stdout.close()
        return status

    def _first_line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        output = select.poll()  # the handle may be too high a number for select(2)
        output.register(handle, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not output.poll(1000 * remaining_s):
                raise MeterError(
                    f"the recorder was not ready within {timeout_s:g} s: see whether a driver "
                    "hangs (nvidia-smi)"
                )
            chunk = os.read(handle, 65536)
            if not chunk:
                raise MeterError(f"the recorder ended with status {self._process.wait()}")
            line += chunk
        return line
