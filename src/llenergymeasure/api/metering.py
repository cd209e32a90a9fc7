"""The meter by itself: the energy of a block of a program, and of a command."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from llenergymeasure.api.notebook import html_table
from llenergymeasure.api.sensors import has_measuring_sensor
from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration, read_calibration
from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.idle_margins import MARGIN_S, MARGINS
from llenergymeasure.errors import ConfigurationError, MeterError
from llenergymeasure.files import write_text
from llenergymeasure.recording.recorder_process import RecorderProcess
from llenergymeasure.recording.samples import Samples, read_samples, write_samples
from llenergymeasure.results.energy import Energy, PhaseEnergy, Reading
from llenergymeasure.sensors.known_behaviour import load_characterised
from llenergymeasure.units import NS_PER_S, Kind, Scope

READY_S = 60.0
STOP_S = 10.0
_SUFFIXES = (".parquet", ".arrows")

NODE_S = 8.0
"""How long it rests before and after where the whole machine is metered: its meter is late."""

_MEAN_QUANTITIES = frozenset({"power_average_w", "power_usage_w"})
AVERAGED_S = 1.2
"""How long the recording goes on where readings are means over a second, so that they cover the
window's end."""


class Metered:
    """The energy of a block, known once the block has ended.

    Energies are in joules; what was not observed is None.
    """

    def __init__(self, ready: Mapping[str, Any]) -> None:
        """Made by :func:`meter`."""
        self.ready = ready
        self._phase_spans: list[tuple[str, int, int]] = []
        self._calculation: partial[Account] | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name a stretch inside the block; its energy is in ``phases`` afterwards.

        It begins and ends, like the block, when the GPUs have done what PyTorch gave them.
        """
        _finish_gpu_work()
        start_ns = time.monotonic_ns()
        try:
            with _finishing_gpu_work():
                yield
        finally:
            self._phase_spans.append((name, start_ns, time.monotonic_ns()))

    @property
    def energy_j(self) -> float | None:
        """The headline energy of the block."""
        return self._energy.gross_j

    @property
    def energy_u95_j(self) -> float | None:
        """Half width of its 95 % interval; the sensor's gain is not in it."""
        return self._energy.u95_j

    @property
    def energy_u_sys_j(self) -> float | None:
        """Half width of the band of the sensor's gain."""
        return self._energy.u_sys_j

    @property
    def kind(self) -> Kind | None:
        """Whether the headline was measured or estimated."""
        return self._energy.kind

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What the headline covers."""
        return tuple(self._energy.scopes)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What each sensor saw on each device, those that could not be read included."""
        return tuple(self._energy.readings)

    @property
    def phases(self) -> tuple[PhaseEnergy, ...]:
        """The headline energy of each phase that was named."""
        return tuple(phase for phase in self._energy.phases if phase.phase not in MARGINS)

    @property
    def power_mean_w(self) -> float | None:
        """Mean power over the block."""
        return self._energy.power_mean_w

    @property
    def window_s(self) -> float:
        """How long the block took."""
        start_ns, end_ns = self.account.window
        return (end_ns - start_ns) / NS_PER_S

    @property
    def validity(self) -> Mapping[str, str]:
        """Reasons to doubt it: code to explanation."""
        return self.account.validity

    @property
    def unavailable(self) -> str | None:
        """Why there is no energy, where there is none."""
        return self._energy.unavailable

    @property
    def has_measuring_sensor(self) -> bool:
        """Whether a sensor measures, the machine's own at its plug left aside."""
        return has_measuring_sensor(self.ready["sensors"])

    @cached_property
    def account(self) -> Account:
        """All that was computed; a MeterError before the block has ended."""
        return self._calculate()

    def within(self, start_ns: int, end_ns: int, *, own_server: bool = True) -> Account:
        """Compute the same of a stretch inside the recording, as if it had been the block.

        Args:
            start_ns: its start, CLOCK_MONOTONIC.
            end_ns: its end.
            own_server: whether all that worked in it is the block's own: else nobody is taken for
                a stranger on the CPUs.
        """
        return self._calculate(window=(start_ns, end_ns), own_server=own_server)

    @property
    def samples(self) -> Samples:
        """The recording."""
        samples: Samples = self._calculate.args[0]
        return samples

    def __str__(self) -> str:
        """Return the headline in one line."""
        if self.energy_j is None:
            return f"no energy: {self.unavailable}"
        scopes = " and ".join(self.scopes)
        spread = ""
        if self.energy_u95_j is not None and self.energy_u_sys_j is not None:
            spread = f" ± {self.energy_u95_j:.3g} (gain: ± {self.energy_u_sys_j:.3g})"
        codes = f" ({', '.join(self.validity)})" if self.validity else ""
        what = f"{self.kind}, {scopes}{codes}"
        energy = f"{self.energy_j:#.4g}".rstrip(".")
        return f"{energy}{spread} J in {self.window_s:.3f} s, {what}"

    def __repr__(self) -> str:
        """Return the headline between angle brackets, or that it is not known yet."""
        return f"<Metered {self if self._calculation else 'until the block has ended'}>"

    def _repr_html_(self) -> str:
        if self._calculation is None:
            return html_table(repr(self))
        names = ["device", "sensor", "kind", "scope", "channel", "gross_j", "gross_u95_j"]
        if any(reading.unavailable for reading in self.readings):
            names.append("unavailable")
        cells = [[getattr(reading, name) for name in names] for reading in self.readings]
        doubts = [f"{code}: {reason}" for code, reason in self.validity.items()]
        return html_table(str(self), [names, *cells], "\n".join(doubts))

    @property
    def _calculate(self) -> "partial[Account]":
        if self._calculation is None:
            raise MeterError(
                "the energy is known once the block has ended, in the process that began it"
            )
        return self._calculation

    @cached_property
    def _energy(self) -> Energy:
        return self.account.energy()

    def _finish(
        self, stream: Path, window: tuple[int, int], calibration: Calibration, *, lost: bool
    ) -> None:
        samples = read_samples(stream)
        characterised = load_characterised(samples.header.sensors)
        self._calculation = partial(
            account,
            samples,
            window=window,
            phases=self._phase_spans,
            calibration=calibration,
            behaviours={key: card.behaviour for key, card in characterised.items()},
            recorder_lost=lost,
        )


@contextmanager
def meter(
    devices: str | int | Sequence[str | int] | None = None,
    *,
    align: bool = True,
    samples: Path | str | None = None,
    calibration: Calibration | Path | str = NO_CALIBRATION,
    server: str | None = None,
    rest_s: float = 0.0,
) -> Iterator[Metered]:
    """Measure the energy of a block.

    GPUs work on after the call that gave them work. Where this process uses CUDA through PyTorch
    the block therefore begins, and ends, once its GPUs are done (``torch.cuda.synchronize()``).
    Wait yourself for what others gave them: another library, or another process. Where no sensor
    measures, the energy is an estimate or None, and ``kind`` or ``unavailable`` say so. If the
    block raises, the energy up to there is known too.
    A process that the block forks may leave it: it is metered on, until this process leaves.

    Args:
        devices: GPUs by UUID or NVML index, one, a list or joined by commas; those a CUDA process
            would see if not given.
        align: rest for 0.4 s before the block and after it, so that no error is left at its ends:
            the energy counter steps about ten times a second.
        samples: where to keep the recording, a file named ``.parquet`` or ``.arrows``.
        calibration: the cards' gains against an external meter, or the file that holds them.
        server: address of a server on this machine that works for the block: its processes are
            then no strangers.
        rest_s: rest so long before the block and after it, and take what is drawn then off: the
            readings have net energies.

    Yields:
        What will hold the energy once the block has ended.

    Raises:
        MeterError: the recorder did not start.
        ConfigurationError: the devices, the server or the calibration are not there, or ``samples``
            has another ending.
    """
    recording_path = None if samples is None else Path(samples)
    if recording_path is not None and recording_path.suffix not in _SUFFIXES:
        raise ConfigurationError(f"samples: {recording_path} must end in {' or '.join(_SUFFIXES)}")
    if not isinstance(calibration, Calibration):
        calibration = read_calibration(Path(calibration))
    owner = os.getpid()
    with ExitStack() as cleanup:
        folder = Path(tempfile.mkdtemp(prefix="llem-meter-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        stream = folder / "samples.arrows"
        if recording_path is not None and recording_path.suffix == ".arrows":
            recording_path.parent.mkdir(parents=True, exist_ok=True)
            stream = recording_path
        engine_pid_file = (
            None if server is None else _write_server_root(server, folder / "engine_pid")
        )
        recorder = RecorderProcess.start(stream, devices=devices, engine_pid_file=engine_pid_file)
        cleanup.callback(recorder.stop, STOP_S)
        metered = Metered(recorder.wait_ready(READY_S))
        aligns = align and metered.has_measuring_sensor
        rest_each_s = max(rest_s, MARGIN_S if aligns else 0.0)
        sensors = metered.ready["sensors"]
        has_node = any(sensor["scope"] == "node" and sensor["quantities"] for sensor in sensors)
        node_s = NODE_S if has_node else 0.0
        averages = any(_MEAN_QUANTITIES.intersection(sensor["quantities"]) for sensor in sensors)
        _finish_gpu_work()
        _rest(node_s)
        before = _rest(rest_each_s)
        start_ns = time.monotonic_ns()
        try:
            with _finishing_gpu_work():
                yield metered
        finally:
            window = (start_ns, time.monotonic_ns())
            if os.getpid() != owner:  # forked by the block: recorder and files are not its own
                cleanup.pop_all()
            else:
                after = _rest(rest_each_s)
                _rest(node_s + (AVERAGED_S - MARGIN_S if averages else 0.0))
                recorder_lost = recorder.stop(STOP_S) != 0
                if aligns:
                    margin_ns = round(MARGIN_S * NS_PER_S)
                    metered._phase_spans += [
                        (MARGINS[0], window[0] - margin_ns, window[0]),
                        (MARGINS[1], window[1], window[1] + margin_ns),
                    ]
                if rest_s:
                    metered._phase_spans += [("idle_before", *before), ("idle_after", *after)]
                metered._finish(stream, window, calibration, lost=recorder_lost)
                if recording_path is not None and recording_path != stream:
                    write_samples(metered.samples, recording_path)


def _finish_gpu_work() -> None:
    """Wait for what this process gave its GPUs through PyTorch, if it has begun to use them.

    Nothing is imported or initialised: a GPU without a context is given none (0.5 GB), a forked
    process cannot use CUDA, and while a CUDA graph is captured waiting would end the capture.
    """
    cuda: Any = sys.modules.get("torch.cuda")
    is_initialized = getattr(cuda, "is_initialized", bool)  # another thread may be importing it
    if not is_initialized() or cuda.is_current_stream_capturing():
        return
    is_current = cuda.current_device().__eq__
    has_context = getattr(sys.modules.get("torch._C"), "_cuda_hasPrimaryContext", is_current)
    for device in filter(has_context, range(cuda.device_count())):
        cuda.synchronize(device)


@contextmanager
def _finishing_gpu_work() -> Iterator[None]:
    """Wait for the GPUs at the end, where an error of what was done before comes first.

    Who interrupts the block or exits does not wait: a GPU may hang, and waiting has no end then.
    """
    try:
        yield
    except Exception:
        with suppress(Exception):
            _finish_gpu_work()
        raise
    _finish_gpu_work()


def _rest(seconds: float) -> tuple[int, int]:
    start_ns = time.monotonic_ns()
    time.sleep(seconds)
    return start_ns, time.monotonic_ns()


def _write_server_root(server: str, path: Path) -> Path:
    """Write the root of a server's processes where the recorder looks for it."""
    from llenergymeasure.backends.serving.listener import server_root

    root = server_root(server)
    if root is None:
        raise ConfigurationError(
            f"server: nothing of ours listens at {server} on this machine; start it first. One on "
            "another machine cannot be metered from here"
        )
    write_text(path, str(root))
    return path
