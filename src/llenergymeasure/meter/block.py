"""The meter by itself: the energy of a block of a program."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from llenergymeasure.errors import ConfigurationError, MeterError
from llenergymeasure.files import replacing
from llenergymeasure.meter.account import account
from llenergymeasure.meter.client import RecorderProcess
from llenergymeasure.meter.samples import read_samples, write_samples
from llenergymeasure.meter.ticks import TickClock
from llenergymeasure.results.record import Energy, PhaseEnergy, Reading
from llenergymeasure.units import NS_PER_S, Kind, Scope

_READY_S = 60.0
_STOP_S = 10.0
_TICK_S = 2.0
"""How long to wait for a counter's tick; the slowest known step at about 1 s."""
_KEPT_AS = (".parquet", ".arrows")


class Metered:
    """The energy of a block, known once the block has ended.

    Energies are in joules; what was not observed is null.
    """

    def __init__(self) -> None:
        """Made by :func:`meter`."""
        self._marks: list[tuple[str, int, int]] = []
        self._energy: Energy | None = None
        self._validity: dict[str, str] = {}
        self._window = (0, 0)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name a stretch inside the block; its energy stands in ``phases`` afterwards."""
        start_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self._marks.append((name, start_ns, time.monotonic_ns()))

    @property
    def energy_j(self) -> float | None:
        """The headline energy of the block."""
        return self._ended.gross_j

    @property
    def energy_u95_j(self) -> float | None:
        """Half width of its 95 % interval from random and resolution effects."""
        return self._ended.u95_j

    @property
    def kind(self) -> Kind | None:
        """Whether the headline was measured or estimated."""
        return self._ended.kind

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What the headline covers."""
        return tuple(self._ended.scopes)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What each sensor saw on each device, those that could not be read included."""
        return tuple(self._ended.readings)

    @property
    def phases(self) -> tuple[PhaseEnergy, ...]:
        """The headline energy of each phase that was named."""
        return tuple(self._ended.phases)

    @property
    def power_mean_w(self) -> float | None:
        """Mean power over the block."""
        return self._ended.power_mean_w

    @property
    def window_s(self) -> float:
        """How long the block took, as it was metered."""
        _ = self._ended
        return (self._window[1] - self._window[0]) / NS_PER_S

    @property
    def validity(self) -> Mapping[str, str]:
        """Reasons to doubt it: code to explanation."""
        _ = self._ended
        return self._validity

    @property
    def unavailable(self) -> str | None:
        """Why there is no energy, where there is none."""
        return self._ended.unavailable

    def __str__(self) -> str:
        """Return the headline in one line."""
        if self.energy_j is None:
            return f"no energy: {self.unavailable}"
        spread = "" if self.energy_u95_j is None else f" ± {self.energy_u95_j:.3g}"
        scopes = " and ".join(self.scopes)
        return f"{self.energy_j:.4g}{spread} J in {self.window_s:.3f} s, {self.kind}, {scopes}"

    @property
    def _ended(self) -> Energy:
        if self._energy is None:
            raise MeterError("the energy is known once the block has ended")
        return self._energy

    def _account(self, stream: Path, window: tuple[int, int], *, lost: bool) -> None:
        found = account(read_samples(stream), window=window, phases=self._marks, recorder_lost=lost)
        self._window = window
        self._energy = found.energy()
        self._validity = dict(found.validity)


@contextmanager
def meter(
    devices: str | Sequence[str] | None = None,
    *,
    align: bool = True,
    samples: Path | str | None = None,
) -> Iterator[Metered]:
    """Measure the energy of a block.

    Work that a GPU was given and has not done when the block ends is not in it: synchronise first
    (``torch.cuda.synchronize()``). Where no sensor measures, the energy is an estimate or null, and
    ``kind`` or ``unavailable`` say so. If the block raises, the energy up to there is known too.

    Args:
        devices: GPUs by UUID or NVML index, as a list or joined by commas; those a CUDA process
            would see if not given.
        align: wait for a tick of the energy counter before the block and after it, up to 2 s, so
            that no error is left at its ends; where there is no counter nothing is waited for.
        samples: where to keep the recording that the energy is computed from, a file named
            ``.parquet`` or ``.arrows``; it is thrown away if not given.

    Yields:
        What will hold the energy once the block has ended.

    Raises:
        MeterError: the recorder did not start.
        ConfigurationError: the devices are not there, or ``samples`` has another ending.
    """
    metered = Metered()
    kept = None if samples is None else Path(samples)
    if kept is not None and kept.suffix not in _KEPT_AS:
        raise ConfigurationError(f"samples: {kept} must end in {' or '.join(_KEPT_AS)}")
    with tempfile.TemporaryDirectory(prefix="llem-meter-") as name:
        stream, ticks = Path(name) / "samples.arrows", Path(name) / "ticks"
        recorder = RecorderProcess.start(stream, ticks=ticks, devices=devices)
        try:
            recorder.wait_ready(_READY_S)
            with TickClock(ticks) as clock:
                start_ns = _moment(clock, align=align)
                try:
                    yield metered
                finally:
                    window = (start_ns, _moment(clock, align=align))
                    lost = recorder.stop(_STOP_S) != 0
                    if kept is not None:
                        _keep(stream, kept)
                    metered._account(stream, window, lost=lost)
        finally:
            recorder.stop(_STOP_S)


def _keep(stream: Path, path: Path) -> None:
    """Keep a recording, whole or not at all."""
    if path.suffix == ".parquet":
        write_samples(read_samples(stream), path)
        return
    with replacing(path) as temporary:
        shutil.copyfile(stream, temporary)


def _moment(clock: TickClock, *, align: bool) -> int:
    """Return now, or the counter's next tick, in CLOCK_MONOTONIC ns."""
    tick_ns = clock.wait_next(_TICK_S) if align else None
    return time.monotonic_ns() if tick_ns is None else tick_ns
