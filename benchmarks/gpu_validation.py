"""What a real card's sensor does, and what a known architecture costs on it: a page of figures.

    python benchmarks/gpu_validation.py --out docs/validation
    make nvml-sim && python benchmarks/gpu_validation.py --simulated --out build/validation

For the first NVIDIA GPU that a CUDA process sees: its characterised periods and windows, both
channels at rest and under a steady load, and the Llama-3.1-8B architecture with random weights at
batches of 1, 8 and 32. Takes about an hour, needs PyTorch with CUDA and 20 GB on the card, and
downloads nothing. ``--simulated`` tries all of it out on a simulated card with the tiny model: its
page says so, and proves nothing of a real one.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import llenergymeasure
from llenergymeasure.errors import LlemError, MeterError
from llenergymeasure.meter.account import Account, account
from llenergymeasure.meter.characters import load_known
from llenergymeasure.meter.client import RecorderProcess
from llenergymeasure.meter.probe import OWN_LOAD, Probed, probe
from llenergymeasure.meter.samples import read_samples
from llenergymeasure.meter.stepping_load import LONGEST_S, SHORTEST_S, STEPS, STEPS_FILE

MODEL = "meta-llama/Llama-3.1-8B"
BATCHES = (1, 8, 32)
WATCH_S = 30.0
SETTLE_S = 5.0
"""Load before its power is looked at."""
READY_S, STOP_S = 90.0, 20.0


@dataclass(frozen=True)
class Kind:
    """What is validated: a real card, or the simulation of one as a trial of this command.

    Attributes:
        study: settings of the study, batches apart.
        batches: batch sizes.
        watch_s: how long rest and load are watched.
        load: what steps for the probe; empty for the project's own.
        hold: what works steadily; seconds are added.
        simulated: whether the card is.
    """

    study: Mapping[str, Any]
    batches: Sequence[int]
    watch_s: float
    load: Sequence[str]
    hold: Sequence[str]
    simulated: bool


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the page; return 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the pages")
    parser.add_argument("--simulated", action="store_true", help="a trial on a simulated card")
    parser.add_argument("--play", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hold", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.play is not None:
        play(options.play, options.hold, options.steps)
        return 0
    if options.out is None:
        parser.error("--out is required")
    try:
        with tempfile.TemporaryDirectory(prefix="llem-validation-") as name:
            folder = Path(name)
            with _card(folder, simulated=options.simulated) as kind:
                page, figures = validate(kind, folder)
    except (LlemError, subprocess.CalledProcessError) as error:
        print(f"not validated: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    stem = "simulated" if options.simulated else _file_name(figures)
    (options.out / f"{stem}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (options.out / f"{stem}.md").write_text(page)
    print(options.out / f"{stem}.md")
    return 0


def validate(kind: Kind, folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the page and its figures."""
    found = probe(command=kind.load)[0]
    print("characterised", file=sys.stderr)
    rest = watch(folder, found.info.device, kind.watch_s)
    load = watch(folder, found.info.device, kind.watch_s, kind.hold)
    print("rest and load watched", file=sys.stderr)
    runs = run_study(kind, folder)
    figures = {
        "simulated": kind.simulated,
        "card": {"name": found.info.name, "uuid": found.info.device, "driver": found.info.driver},
        "power_limit_w": dict(found.info.power_limit_w or {}),
        "llenergymeasure": llenergymeasure.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "characterised": found.known.as_dict(),
        "rest": rest,
        "load": load,
        "runs": runs,
        "study": {**kind.study, "batches": list(kind.batches)},
    }
    return _page(figures, found, kind), figures


def watch(folder: Path, device: str, seconds: float, command: Sequence[str] = ()) -> dict[str, Any]:
    """Return both channels' mean power over a stretch, at rest or beside a load."""
    stream, ticks, steps = folder / "watch.arrows", folder / "ticks", folder / "steps"
    recorder = RecorderProcess.start(stream, ticks=ticks, devices=device, sensors="nvml")
    try:
        recorder.wait_ready(READY_S)
        with _working(command, steps, seconds + 2 * SETTLE_S):
            start_ns = time.monotonic_ns()
            time.sleep(seconds)
            end_ns = time.monotonic_ns()
            time.sleep(1.0)
    finally:
        recorder.stop(STOP_S)
    samples = read_samples(stream)
    known = load_known(samples.header.sensors)
    return _channels(account(samples, (start_ns, end_ns), devices={device}, known=known))


@contextmanager
def _working(command: Sequence[str], steps: Path, seconds: float) -> Iterator[None]:
    """Have a steady load run meanwhile; without a command nothing runs."""
    if not command:
        yield
        return
    steps.unlink(missing_ok=True)
    variables = {**os.environ, STEPS_FILE: str(steps)}
    with subprocess.Popen([*command, str(seconds)], env=variables) as process:
        try:
            while not (steps.exists() and steps.read_text().endswith("\n")):
                if process.poll() is not None:
                    raise MeterError(f"the load ended with {process.returncode}; see above")
                time.sleep(0.1)
            time.sleep(SETTLE_S)
            yield
        finally:
            process.terminate()


def _channels(made: Account) -> dict[str, Any]:
    span_s = (made.window[1] - made.window[0]) / 1e9
    found: dict[str, Any] = {"seconds": span_s, "validity": dict(made.validity)}
    for reading in made.readings:
        if reading.sensor != "nvml":
            continue
        known = reading.gross_j is not None and reading.u95_j is not None
        found[reading.channel] = {
            "power_w": None if reading.gross_j is None else reading.gross_j / span_s,
            "u95_w": None if not known or reading.u95_j is None else reading.u95_j / span_s,
            "unavailable": reading.unavailable,
        }
    found["disagreement_rel"] = made.gpus[0]["channel_disagreement_rel"] if made.gpus else None
    return found


def run_study(kind: Kind, folder: Path) -> list[dict[str, Any]]:
    """Run the architecture at each batch size; return what the table says of each run."""
    study = {**kind.study, "name": "validation", "sweep": {"pytorch.batch_size": [*kind.batches]}}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    llem = [sys.executable, "-c", "from llenergymeasure.cli import main; main()"]
    subprocess.run([*llem, "run", str(path), "--quiet"], cwd=folder, check=True, stdout=sys.stderr)
    runs = []
    for row in pq.read_table(folder / "results" / "validation" / "runs.parquet").to_pylist():
        place = folder / "results" / "validation" / "runs" / row["experiment"] / str(row["cycle"])
        record = json.loads((place / "result.json").read_text())
        sensed = [gpu for gpu in record["environment"]["gpus"] if "channel_disagreement_rel" in gpu]
        runs.append(
            {
                "batch_size": row["pytorch.batch_size"],
                "cycle": row["cycle"],
                "energy_per_output_token_j": row["energy_per_output_token_j"],
                "power_mean_w": row["power_mean_w"],
                "output_tokens_per_s": row["output_tokens_per_s"],
                "u95_rel": _ratio(row["energy_u95_j"], row["energy_gross_j"]),
                "u_sys_rel": _ratio(row["energy_u_sys_j"], row["energy_gross_j"]),
                "window_s": row["window_s"],
                "channel_disagreement_rel": sensed[0]["channel_disagreement_rel"],
                "validity": row["validity"],
            }
        )
    return sorted(runs, key=lambda run: (run["batch_size"], run["cycle"]))


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


@contextmanager
def _card(folder: Path, *, simulated: bool) -> Iterator[Kind]:
    """Give the card to validate, and how."""
    workload = {"dataset": {"n": 64, "input_len": 512, "output_len": 128}, "precision": "bf16"}
    if not simulated:
        study = {"model": MODEL, "weights": "random", **workload, "protocol": "standard"}
        yield Kind(study, BATCHES, WATCH_S, (), (*OWN_LOAD, "--hold"), simulated=False)
        return
    load_file = folder / "load"
    os.environ.update(_simulated(folder, load_file))
    own = (sys.executable, str(Path(__file__).resolve()), "--play", str(load_file))
    tiny = {"dataset": {"n": 8, "input_len": 16, "output_len": 8}, "precision": "fp32"}
    study = {
        "model": "tiny-llama",
        **tiny,
        "protocol": "quick",
        "window": {"min_seconds": 3},
        "execution": {"n_cycles": 1},
    }
    yield Kind(study, BATCHES, 5.0, (*own, "--steps", "26"), (*own, "--hold"), simulated=True)


def _simulated(folder: Path, load_file: Path) -> dict[str, str]:
    """Return the environment of a simulated card whose power follows a load file."""
    from nvml_sim import sim

    library, reason = sim.library_or_reason()
    if library is None:
        raise MeterError(f"no simulated card: {reason}")
    load_file.write_text("")
    sensor = sim.Sensor(window_ms=25, phase_ms=13, counter_phase_ms=41)
    keys = {"load_file": str(load_file), "idle_w": 75, "max_w": 600}
    trace = sim.Trace([sim.Device(sensor=sensor, keys=keys)]).write(folder)
    return {**sim.environment(trace), "LLEM_CACHE": str(folder / "cache")}


def play(load_file: Path, hold_s: float | None, count: int) -> None:
    """Make the simulated card step, or work steadily."""
    chance = random.Random(1)
    lengths_s = [hold_s] if hold_s is not None else []
    lengths_s = lengths_s or [chance.uniform(SHORTEST_S, LONGEST_S) for _ in range(count)]
    told = os.environ.get(STEPS_FILE, os.devnull)
    with load_file.open("a") as load, Path(told).open("a") as steps:
        for number, length_s in enumerate(lengths_s):
            now_ns = time.monotonic_ns()
            print(f"{now_ns},{0.9 * (1 - number % 2)}", file=load, flush=True)
            print(now_ns, file=steps, flush=True)
            time.sleep(length_s)
        print(f"{time.monotonic_ns()},0", file=load, flush=True)


def _file_name(figures: Mapping[str, Any]) -> str:
    card = figures["card"]
    text = f"{card['name']}-{card['driver']}".lower()
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in text)


def _page(figures: Mapping[str, Any], found: Probed, kind: Kind) -> str:
    """Return the figures as a page."""
    card, character = figures["card"], found.known.character
    trial = [
        "**A trial of the command on a simulated card with the tiny model. It proves nothing of "
        "any real card.**",
        "",
    ]
    lines = [
        f"# {card['name']}, driver {card['driver']}",
        "",
        *(trial if kind.simulated else []),
        f"{figures['date']}, LLenergyMeasure {figures['llenergymeasure']}; made by "
        "`python benchmarks/gpu_validation.py`. No external meter was attached: the systematic "
        "band of the sensor's gain stays at ±5 %.",
        "",
        "## The sensor",
        "",
        "| channel | renewed each | mean over | sees |",
        "|---|---|---|---|",
    ]
    counter = {True: "counts for itself", False: "sum of the readings", None: "not told"}
    if character.counter_period_s is not None:
        told = counter[character.counter_independent]
        lines.append(f"| energy counter | {_ms(character.counter_period_s)} | - | {told} |")
    for part in character.power:
        share = "not told" if part.share_seen is None else f"{part.share_seen:.0%} of the time"
        pace, mean = _ms(part.update_period_s), _ms(part.window_s)
        lines.append(f"| `{part.quantity}` | {pace} | {mean} | {share} |")
    lines += [
        "",
        "## Both channels, at rest and under load",
        "",
        "| | s | counter, W | integrated power, W | apart | codes |",
        "|---|---|---|---|---|---|",
        _watched("rest", figures["rest"]),
        _watched("steady load", figures["load"]),
        "",
        f"## {figures['study']['model']}, {figures['study'].get('weights', 'random')} weights",
        "",
        "| batch | cycle | J/output token | W | tokens/s | u95 | u_sys | channels apart | codes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run['batch_size']} | {run['cycle']} | {run['energy_per_output_token_j']:.4g} | "
        f"{run['power_mean_w']:.1f} | {run['output_tokens_per_s']:.1f} | "
        f"{_percent(run['u95_rel'])} | {_percent(run['u_sys_rel'])} | "
        f"{_percent(run['channel_disagreement_rel'])} | {', '.join(run['validity']) or '-'} |"
        for run in figures["runs"]
    ]
    asked = yaml.safe_dump({**figures["study"]}, sort_keys=False).rstrip()
    lines += ["", "The study, with `pytorch.batch_size` swept:", "", "```yaml", asked, "```", ""]
    return "\n".join(lines)


def _watched(name: str, watched: Mapping[str, Any]) -> str:
    codes = ", ".join(watched["validity"]) or "-"
    parts = [_power(watched.get(channel)) for channel in ("counter", "power")]
    apart = _percent(watched["disagreement_rel"])
    return f"| {name} | {watched['seconds']:.0f} | {' | '.join(parts)} | {apart} | {codes} |"


def _power(channel: Mapping[str, Any] | None) -> str:
    if channel is None or channel["power_w"] is None:
        return "-" if channel is None else str(channel["unavailable"])
    spread = "" if channel["u95_w"] is None else f" ± {channel['u95_w']:.2f}"
    return f"{channel['power_w']:.2f}{spread}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _ms(period_s: float | None) -> str:
    return "not found" if period_s is None else f"{period_s * 1000:.3g} ms"


if __name__ == "__main__":
    sys.exit(main())
