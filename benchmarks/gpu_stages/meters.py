"""The same windows by our meter, by Zeus and by nvidia-smi; and what our meter costs."""

import contextlib
import datetime
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llenergymeasure
from gpu_stages.card import Setting, hold, make_work, pulse, simulated_busy
from gpu_stages.keeping import Place, write_json

WINDOWS = "windows.json"
_SMI = (
    "nvidia-smi",
    "-i",
    "0",
    "--query-gpu=timestamp,power.draw,power.draw.instant,power.draw.average",
    "--format=csv,noheader,nounits",
    "-lms",
    "100",
)


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
        with (self._place.kept / "nvidia_smi.csv").open("w", buffering=1) as file:
            for line in smi.stdout:
                stamp, _, rest = line.strip().partition(", ")
                with contextlib.suppress(ValueError):
                    at = datetime.datetime.strptime(stamp, "%Y/%m/%d %H:%M:%S.%f").astimezone()
                    print(f"{int(at.timestamp() * 1e9) - offset_ns},{rest}", file=file)

    @contextmanager
    def window(self, name: str) -> Iterator[dict[str, Any]]:
        """Meter a block; the row that is given may be added to."""
        path = self._place.kept / f"{re.sub('[^a-z0-9.]+', '-', name)}.parquet"
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
        row.update(_said(energy))
        self.windows.append(row)
        write_json(self._place.kept / WINDOWS, self.windows)
        self._place.save(windows=len(self.windows), line=", ".join(map(_short, self.windows)))

    def end(self) -> None:
        """Stop nvidia-smi."""
        if self._smi is not None:
            self._smi.terminate()
            self._smi.wait(10)


def _said(energy: llenergymeasure.Metered) -> dict[str, Any]:
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


def _short(row: dict[str, Any]) -> str:
    power = "no energy" if row["meter_j"] is None else f"{row['meter_j'] / row['meter_s']:.1f} W"
    return f"{row['window']}: {power}"


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
    began = time.monotonic()
    generate = _model(setting)
    place.save(load_s=round(time.monotonic() - began, 2))
    long = 64 if setting.simulated else 4096
    usual, out = (16, 8) if setting.simulated else (512, 128)
    loads = {f"batch {size}": (size, usual, out) for size in (1, 8, 64)}
    loads["long prompt, batch 8"] = (8, long, out // 2)
    for load in loads.values():
        generate(*load)
    meters = Meters(place)
    for name, load in loads.items():
        with meters.window(name) as row, simulated_busy(setting):
            row["tokens"], row["tokens_per_s"] = _several(generate, load, setting.seconds(7))
    meters.end()
    _cost(place, setting, generate, loads["batch 1"][:2])


def _several(
    generate: Callable[[int, int, int], int], load: tuple[int, int, int], seconds: float
) -> tuple[int, float]:
    """Generate until the time is over; return tokens, and tokens/s."""
    began, tokens = time.monotonic(), 0
    while True:
        tokens += generate(*load)
        spent_s = time.monotonic() - began
        if spent_s >= seconds:
            return tokens, tokens / spent_s


def _cost(
    place: Place,
    setting: Setting,
    generate: Callable[[int, int, int], int],
    load: tuple[int, int],
) -> None:
    """Take tokens/s with our meter running and not, alternating, in pairs of turned order."""
    pairs: list[dict[str, float]] = []
    short = (*load, 8 if setting.simulated else 32)
    for number in range(3 if setting.scale < 1 else 12):
        pair = {}
        for on in (True, False) if number % 2 else (False, True):
            metered = llenergymeasure.meter() if on else contextlib.nullcontext()
            with metered:
                pair["on" if on else "off"] = _several(generate, short, setting.seconds(1.6))[1]
        pairs.append(pair)
        ratios = [each["on"] / each["off"] for each in pairs]
        place.save(meter_cost_tokens_per_s=pairs, meter_on_over_off=ratios)


def _model(setting: Setting) -> Callable[[int, int, int], int]:
    """Return what generates with the Llama-3.1-8B architecture, or a tiny one on a simulated card.

    It takes batch size, prompt length and tokens to generate, and returns the tokens generated.
    """
    import torch
    import transformers

    dimensions: dict[str, Any] = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
    }
    if setting.simulated:
        dimensions |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        dimensions |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}
    device = "cpu" if setting.simulated else "cuda"
    config = transformers.LlamaConfig(**dimensions, pad_token_id=0, eos_token_id=None)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if setting.simulated else torch.bfloat16)
    try:
        with torch.device(device):
            model = transformers.LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)

    def generate(batch: int, length: int, out: int) -> int:
        prompt = torch.randint(1, dimensions["vocab_size"], (batch, length), device=device)
        asked = {"max_new_tokens": out, "min_new_tokens": out, "do_sample": False}
        with torch.inference_mode():
            made = model.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)
        if not setting.simulated:
            torch.cuda.synchronize()
        return int(made.numel() - prompt.numel())

    return generate
