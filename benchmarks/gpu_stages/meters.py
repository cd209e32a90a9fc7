"""The same windows by our meter, by Zeus and by nvidia-smi; and what our meter costs."""

import contextlib
import datetime
import functools
import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llenergymeasure
from gpu_stages.card import Setting, hold, make_work, pulse, simulated_busy
from gpu_stages.keeping import Place, go_on, write_json
from gpu_stages.studies import study_of

WINDOWS = "windows.json"
_SMI = (
    *("nvidia-smi", "-i", "0", "--format=csv,noheader,nounits", "-lms", "100"),
    "--query-gpu=timestamp,power.draw,power.draw.instant,power.draw.average",
)

Generate = Callable[[int, int, int], int]
"""Takes batch size, prompt length and tokens to generate; returns the tokens generated."""


class Meters:
    """Names windows, meters each three ways, and keeps the recordings."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.windows: list[dict[str, Any]] = []
        self._zeus, reason = _zeus()
        place.save(zeus=reason or "read")
        self._smi: subprocess.Popen[str] | None = None
        with contextlib.suppress(OSError):
            self._smi = subprocess.Popen(_SMI, stdout=subprocess.PIPE, text=True, bufsize=1)
            threading.Thread(target=self._follow, args=(self._smi,), daemon=True).start()

    def _follow(self, smi: subprocess.Popen[str]) -> None:
        """Keep nvidia-smi's lines by its own stamp: its pipe may be buffered."""
        offset_ns = time.time_ns() - time.monotonic_ns()
        assert smi.stdout is not None
        with (self._place.output / "nvidia_smi.csv").open("w", buffering=1) as file:
            for line in smi.stdout:
                stamp, _, rest = line.strip().partition(", ")
                with contextlib.suppress(ValueError):
                    at = datetime.datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").astimezone()
                    print(f"{int(at.timestamp() * 1e9) - offset_ns},{rest}", file=file)

    @contextmanager
    def window(self, name: str) -> Iterator[dict[str, Any]]:
        """Meter a block; the row that is given may be added to."""
        go_on()
        path = self._place.output / f"{re.sub('[^a-z0-9.]+', '-', name)}.parquet"
        row: dict[str, Any] = {"window": name, "samples": path.name}
        with llenergymeasure.meter(samples=path) as energy:
            if self._zeus is not None:
                self._zeus.begin_window(name, sync_execution=False)
            row["start_ns"] = time.monotonic_ns()
            yield row
            row["end_ns"] = time.monotonic_ns()
            if self._zeus is not None:
                measured = self._zeus.end_window(name, sync_execution=False)
                row["zeus_j"] = float(measured.total_energy)
        row.update(_meter_figures(energy))
        self.windows.append(row)
        write_json(self._place.output / WINDOWS, self.windows)
        power = (
            "no energy" if energy.energy_j is None else f"{energy.energy_j / row['meter_s']:.1f} W"
        )
        line = f"{self._place.figures.get('line', '')} {name}: {power}.".strip()
        self._place.save(windows=len(self.windows), line=line)

    def end(self) -> None:
        """Stop nvidia-smi."""
        if self._smi is not None:
            self._smi.terminate()
            self._smi.wait(10)


def _meter_figures(energy: llenergymeasure.Metered) -> dict[str, Any]:
    """Return what our meter made of a window; Zeus's own calls at its ends are in it."""
    return {
        "meter_s": energy.window_s,
        "meter_j": energy.energy_j,
        "meter_u95_j": energy.energy_u95_j,
        "validity": dict(energy.validity),
        "channels": {
            reading.channel: {"j": reading.gross_j, "u95_j": reading.u95_j}
            for reading in energy.readings
            if reading.sensor == "nvml"
        },
    }


def _zeus() -> tuple[Any, str | None]:
    try:
        from zeus.monitor import ZeusMonitor

        return ZeusMonitor(gpu_indices=[0]), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def pulses(place: Place) -> None:
    """Meter rest, a steady load, pulses and bursts."""
    setting = Setting.now()
    meters = Meters(place)
    with meters.window("rest, no context"):
        setting.sleep(6)
    work = make_work(setting)
    setting.sleep(3)
    with meters.window("rest, context open"):
        setting.sleep(5)
    with meters.window("steady"):
        hold(work, setting.seconds(8))
    for on_ms, off_ms in ((10, 10), (50, 50), (12, 28)):
        setting.sleep(0.5)
        with meters.window(f"pulses {on_ms}/{off_ms} ms") as row:
            share = pulse(work, on_ms / 1e3, off_ms / 1e3, setting.seconds(5))
            row["busy_share"] = round(share, 4)
    for seconds in (0.5, 1.0, 2.0):
        setting.sleep(0.6)
        with meters.window(f"burst {seconds:g} s"):
            hold(work, setting.seconds(seconds))
    meters.end()


def engine(place: Place) -> None:
    """Load one model with transformers; meter batches of it, and what our meter costs it."""
    setting = Setting.now()
    start_s = time.monotonic()
    generate = _model()
    place.save(load_s=round(time.monotonic() - start_s, 2))
    usual, out, long_prompt = (16, 8, 64) if setting.simulated else (512, 128, 4096)
    loads = {f"batch {size}": (size, usual, out) for size in (1, 8, 64)}
    loads["long prompt, batch 8"] = (8, long_prompt, out // 2)
    for load in loads.values():
        generate(*load)
    meters = Meters(place)
    for name, load in loads.items():
        with meters.window(name) as row, simulated_busy(setting):
            row["tokens"], row["tokens_per_s"] = _several(generate, load, setting.seconds(7))
    meters.end()
    _cost(place, setting, generate, (1, usual, out if setting.simulated else 32))


def _several(generate: Generate, load: tuple[int, int, int], seconds: float) -> tuple[int, float]:
    """Generate until the time is over; return tokens, and tokens/s."""
    start_s, tokens = time.monotonic(), 0
    while True:
        tokens += generate(*load)
        spent_s = time.monotonic() - start_s
        if spent_s >= seconds:
            return tokens, tokens / spent_s


def _cost(place: Place, setting: Setting, generate: Generate, load: tuple[int, int, int]) -> None:
    """Take tokens/s with our meter running and not, alternating, in pairs of turned order."""
    pairs: list[dict[str, float]] = []
    for number in range(3 if setting.scale < 1 else 12):
        pair = {}
        for on in (True, False) if number % 2 else (False, True):
            with llenergymeasure.meter() if on else contextlib.nullcontext():
                pair["on" if on else "off"] = _several(generate, load, setting.seconds(1.6))[1]
            go_on()  # this one's recorder may have been asked to end too
        pairs.append(pair)
        ratios = [watts["on"] / watts["off"] for watts in pairs]
        place.save(meter_cost_tokens_per_s=pairs, meter_on_over_off=ratios)


def _model() -> Generate:
    """Return what generates with the model of the first stage's study."""
    from llenergymeasure.backends.pytorch.engine import PyTorchEngine
    from llenergymeasure.config.experiment import ExperimentConfig
    from llenergymeasure.workload.requests import Request

    names = ("model", "weights", "precision", "decoder")
    settings = {key: value for key, value in study_of("first").items() if key in names}
    config = ExperimentConfig.model_validate({**settings, "pytorch": {"batch_size": 64}})
    loaded = PyTorchEngine(config)
    chance = random.Random(1)

    @functools.cache
    def asked(batch: int, length: int, out: int) -> list[Request]:
        prompts = [tuple(chance.choices(range(1, 256), k=length)) for _ in range(batch)]
        return [Request(index, prompt, out) for index, prompt in enumerate(prompts)]

    def generate(batch: int, length: int, out: int) -> int:
        return sum(answer.output_tokens for answer in loaded.generate(asked(batch, length, out)))

    return generate
