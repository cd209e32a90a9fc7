"""The recorder: one process that samples every sensor and writes as it goes.

It shares no interpreter lock with the engine and survives the engine's crash. It ends when its
standard input closes (whoever started it has ended, however), on SIGTERM, and, as a second line,
when the kernel signals that its parent died. Nothing but the last second is lost on SIGKILL.

    python -m llenergymeasure.recording.recorder --out samples.arrows [--devices UUID,…|none]
        [--sensors auto|nvml,…] [--run-pid PID] [--parent-pid PID]

When it samples it says so on standard output, in one line of JSON.
"""

import argparse
import contextlib
import ctypes
import json
import os
import platform
import resource
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from llenergymeasure.errors import EXIT_FAILED, LlemError
from llenergymeasure.processes import (
    SignalPipe,
    boot_id,
    die_with_parent,
    end_now,
    ignore_end_signals,
)
from llenergymeasure.recording.sampler import Loop
from llenergymeasure.recording.samples import (
    HOST_DEVICE,
    RECORDER,
    STOPPED,
    Header,
    SampleRow,
    SamplesWriter,
    keep_arrow_from_importing_pandas,
)
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import HostCpu
from llenergymeasure.sensors.known_behaviour import (
    Behaviour,
    Characterisation,
    load_characterised,
    resolution,
    with_published,
)
from llenergymeasure.sensors.registry import AUTO, OpenSensors, open_sensors

FLUSH_S = 0.5
_PR_SET_TIMERSLACK = 29
_TIMER_SLACK_NS = 1000
_SWITCH_INTERVAL_S = 0.001


def main(arguments: Sequence[str] | None = None) -> int:
    """Record until asked to stop; return 0 if all is written."""
    options = _parse(arguments)
    answer = _reserve_output()
    _configure_process(options.parent_pid)
    try:
        run = RunProcesses(options.run_pid or os.getppid(), engine_pid_file=options.engine_pid)
        sensors = open_sensors(options.sensors, options.devices, run)
        keep_arrow_from_importing_pandas()
        with _Stop() as stop:
            Recording(sensors, options.out, HostCpu(run)).run(stop, answer)
    except (LlemError, OSError) as error:
        ignore_end_signals()
        code = error.exit_code if isinstance(error, LlemError) else EXIT_FAILED
        print(f"recorder: {error}", file=sys.stderr)
        _send(answer, {"ready": False, "error": str(error), "exit_code": code})
        return code
    return 0


class Recording:
    """One recording, from the first read to the end of the file.

    Attributes:
        loops: what reads, each in a thread of its own where ``run`` is used.
    """

    def __init__(self, sensors: OpenSensors, out: Path, host: HostCpu | None = None) -> None:
        """Take the sensors, the stream to write, and what looks at the host's CPUs."""
        self._sensors = sensors
        self._header = header(sensors.infos)
        self._writer = SamplesWriter(out, self._header)
        channels = sensors.channels()
        if host is not None:
            channels += host.channels(HOST_DEVICE, RECORDER)
        self._rows: deque[SampleRow] = deque()
        self.loops: list[Loop] = []
        for speed in ("slow", "fast", "remote"):
            loop_channels = [channel for channel in channels if channel.pace.speed == speed]
            if loop_channels or speed == "fast":
                self.loops.append(Loop(loop_channels, self._rows.append, beats=speed == "fast"))
        self._threads = [threading.Thread(target=loop.run, daemon=True) for loop in self.loops]

    def run(self, stop: "_Stop", answer: IO[str]) -> None:
        """Sample until ``stop``.

        Raises:
            OSError: the samples cannot be written, or a loop broke.
        """
        self.begin()
        for thread in self._threads:
            thread.start()
        _send(answer, self._ready())
        while not stop.wait(FLUSH_S):
            self.flush()
            if not all(thread.is_alive() for thread in self._threads):
                raise OSError("a sampling loop broke; see above")
        for loop in self.loops:
            loop.stop()
        for thread in self._threads:
            thread.join()
        self.end()

    def begin(self) -> None:
        """Read every channel once and write that down."""
        for loop in self.loops:
            loop.prime()
        self.flush()

    def end(self) -> None:
        """Say that the recording ended well, and close everything."""
        now_ns = time.monotonic_ns()
        self._rows.append(SampleRow(now_ns, HOST_DEVICE, RECORDER, "heartbeat", note=STOPPED))
        self.flush()
        self._writer.close()
        self._sensors.close()

    def flush(self) -> None:
        """Write what the loops have said since."""
        while self._rows:
            self._writer.append(self._rows.popleft())
        self._writer.flush()

    def _ready(self) -> dict[str, object]:
        known = load_characterised(self._header.sensors)
        return {
            "ready": True,
            "pid": os.getpid(),
            **asdict(self._header),
            "sensors": [_sensor_report(info, known) for info in self._header.sensors],
            "devices": [gpu.uuid for gpu in self._sensors.selection.gpus],
            "selected_by": self._sensors.selection.source,
            "warnings": list(self._sensors.selection.warnings),
        }


class _Stop(SignalPipe):
    """The end: standard input closed, or a signal other than SIGINT.

    A person's Ctrl-C is for the run; the run then ends the recorder.
    """

    def __enter__(self) -> "_Stop":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        ignore_end_signals()

    def wait(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s``; return whether the end has come."""
        standard_input = sys.stdin.fileno()
        ready, _, _ = select.select([standard_input, self.handle], [], [], timeout_s)
        if self.handle in ready:
            return True
        return standard_input in ready and os.read(standard_input, 4096) == b""


def header(sensors: Sequence[SensorInfo]) -> Header:
    """Return what stands before the samples of a recording that begins now."""
    return Header(
        boot_id=boot_id(),
        time_namespace=_time_namespace(),
        host=platform.node(),
        started_monotonic_ns=time.monotonic_ns(),
        started_at=datetime.now(UTC).isoformat(),
        sensors=tuple(sensors),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m llenergymeasure.recording.recorder")
    parser.add_argument("--out", type=Path, required=True, help="stream of samples to write")
    parser.add_argument("--devices", help="GPUs by UUID or NVML index, or none")
    parser.add_argument("--sensors", default=AUTO, help="auto, or names joined by commas")
    parser.add_argument("--run-pid", type=int, help="root of the run's process tree")
    parser.add_argument("--engine-pid", type=Path, help="holds the root of one more such tree")
    parser.add_argument("--parent-pid", type=int, help="end when this parent dies")
    return parser.parse_args(arguments)


def _reserve_output() -> IO[str]:
    """Keep standard output for the answer; what libraries print goes to standard error."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answer


def _configure_process(parent_pid: int | None) -> None:
    """Set what the kernel and the interpreter are to do for a precise sampler."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS, 0, 0, 0)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # An image that is taken away from under a job is SIGBUS, which would leave a gigabyte behind.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if parent_pid is None:
        return
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent_pid:
        raise SystemExit("recorder: its parent has already ended")


def _send(answer: IO[str], content: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(content), file=answer, flush=True)


def _sensor_report(
    info: SensorInfo, known: Mapping[tuple[str, str], Characterisation]
) -> dict[str, object]:
    """Return a sensor as it is reported to whoever waits, with how it is known to behave."""
    probed = known.get((info.sensor, info.device))
    behaviour = with_published(Behaviour(), info) if probed is None else probed.behaviour
    limits = resolution(info, behaviour)
    return {**asdict(info), "resolution": None if limits is None else asdict(limits)}


def _time_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/time").readlink())
    except OSError:
        return None


if __name__ == "__main__":
    end_now(main())
