"""Windows of the real ``llem meter``, in real time, on the simulated card.

Each is one command of 5 s in a process of its own, over a card drawn at random. Half of the
commands only wait beside a load that goes on by itself, before and after them too; half make the
load themselves, from rest to rest, by the times and powers that they write for the simulated card
to follow.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import meter_adversary_judge as judge
import meter_adversary_loads as loads
import numpy as np
from harness import Criterion
from meter_adversary_cards import MODELS, DrawnCard
from meter_adversary_loads import Trace
from meter_adversary_windows import ASKED, BRACKETED, Energy, Window

from nvml_sim import sim

COMMAND_S = 5.0
LIMIT_S = 120.0
LEAST = 24
AT_ONCE = 2
REST_W, MOST_W = 95.0, 1000.0
STEP_S = 0.001
"""Loads that a command makes are held for this long at least: lines of a file, not ramps."""

_LLEM = "import sys; from llenergymeasure.cli import main; sys.exit(main())"
_WORK = """
import sys, time
lines = [line.split(",") for line in open(sys.argv[1])]
start_ns = time.monotonic_ns()
with open(sys.argv[2], "a") as out:
    out.writelines(f"{start_ns + int(offset_ns)},{load}" for offset_ns, load in lines)
time.sleep(max(0.0, (start_ns + int(lines[-1][0]) - time.monotonic_ns()) / 1e9))
"""


@dataclass(frozen=True)
class Real:
    """One command to be metered."""

    load: str
    card: DrawnCard
    cut: str
    seed: tuple[int, ...]


def run(count: int, seed: int) -> tuple[list[object], list[Criterion]]:
    """Meter ``count`` commands; print the tables, return the windows and what must hold."""
    rng = np.random.default_rng((seed, 7))
    names = list(loads.LOADS)
    turns = itertools.cycle(MODELS[index] for index in rng.permutation(len(MODELS)))
    plan = [
        Real(
            names[int(rng.integers(len(names)))],
            next(turns).card(rng),
            (ASKED, BRACKETED)[number % 2],
            (seed, 8, number),
        )
        for number in range(count)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        windows = list(pool.map(_meter, plan))
    for window in windows:
        print(_line(window))
    print()
    judge.print_table(windows)
    judge.print_codes(windows)
    return [asdict(window) for window in windows], list(_criteria(windows))


def _meter(real: Real) -> Window:
    rng = np.random.default_rng(real.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = _made_load if real.cut == BRACKETED else _given_load
        command, keys, trace = make(real, folder, rng)
        device = real.card.device(trace or _resting_trace(), loads.SPIKE_LIMIT_W, **keys)
        t0_ns = time.monotonic_ns()
        variables = sim.environment(sim.Trace([device]).write(folder), t0_ns=t0_ns)
        variables["XDG_CACHE_HOME"] = str(folder / "cache")
        written = folder / "meter.json"
        result = subprocess.run(
            [sys.executable, "-c", _LLEM, "meter", "--json", str(written), "--", *command],
            env=variables,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        if not written.exists():
            raise RuntimeError(
                f"llem meter ended with {result.returncode}: {result.stderr[-2000:]}"
            )
        document = json.loads(written.read_text())
        if trace is None:
            trace = _trace_of(folder / "load.csv", t0_ns)
    return _window(real, document, trace, t0_ns)


def _given_load(
    real: Real, _: Path, rng: np.random.Generator
) -> tuple[Sequence[str], dict[str, Any], Trace | None]:
    """A load that goes on by itself for as long as the whole may take."""
    t_s, power_w = loads.LOADS[real.load](LIMIT_S, rng)
    return ["sleep", str(COMMAND_S)], {}, Trace(real.load, t_s, power_w)


def _made_load(
    real: Real, folder: Path, rng: np.random.Generator
) -> tuple[Sequence[str], dict[str, Any], Trace | None]:
    """A load of the command's own: it writes when which power begins, and waits until the end."""
    t_s, power_w = loads.LOADS[real.load](COMMAND_S, rng)
    # Plateaus alone: what is linear is held at its mean for a moment each.
    at_s, watts = [], []
    for (from_s, to_s), (from_w, to_w) in zip(
        itertools.pairwise(t_s), itertools.pairwise(power_w), strict=True
    ):
        parts = 1 if from_w == to_w else max(1, round((to_s - from_s) / (10 * STEP_S)))
        for part in range(parts if to_s > from_s else 0):
            at_s.append(from_s + (to_s - from_s) * part / parts)
            watts.append(from_w + (to_w - from_w) * (part + 0.5) / parts)
    lines = [
        f"{round(1e9 * moment_s)},{(power - REST_W) / (MOST_W - REST_W):.9f}\n"
        for moment_s, power in zip(at_s, np.maximum(watts, REST_W), strict=True)
    ]
    lines.append(f"{round(1e9 * COMMAND_S)},0\n")
    (folder / "work.csv").write_text("".join(lines))
    (folder / "load.csv").write_text("")
    command = [sys.executable, "-c", _WORK, str(folder / "work.csv"), str(folder / "load.csv")]
    keys = {"load_file": "load.csv", "idle_w": REST_W, "max_w": MOST_W}
    return command, keys, None


def _resting_trace() -> Trace:
    return Trace("rest", np.array([0.0, 1.0]), np.full(2, REST_W))


def _trace_of(path: Path, t0_ns: int) -> Trace:
    """Return the power that the lines of a load file stand for."""
    lines = [line.split(",") for line in path.read_text().splitlines()]
    at_s = np.array([(int(t_ns) - t0_ns) / 1e9 for t_ns, _ in lines])
    watts = np.array([REST_W + float(load) * (MOST_W - REST_W) for _, load in lines])
    t_s = np.concatenate(([0.0], np.repeat(at_s, 2), [at_s[-1] + LIMIT_S]))
    power_w = np.concatenate(([REST_W, REST_W], np.repeat(watts, 2)))
    return Trace("made", t_s, power_w)


def _window(real: Real, document: dict[str, Any], trace: Trace, t0_ns: int) -> Window:
    span = document["window"]
    ends_s = [(span[key] - t0_ns) / 1e9 for key in ("start_monotonic_ns", "end_monotonic_ns")]
    headline = [reading for reading in document["readings"] if reading["headline"]]
    total = headline[0] if len(headline) == 1 else {}
    energies_j = {name: total.get(name) for name in ("gross_j", "gross_u95_j", "bound_j")}
    return Window(
        real.load,
        real.card.model.name,
        real.card.model.kind,
        COMMAND_S,
        real.cut,
        trace.energy_j(*ends_s),
        Energy(tuple(document["validity"]), **energies_j),
    )


def _line(window: Window) -> str:
    error, width = window.error, window.half_width
    figures = "no number" if error is None or width is None else f"{error:+9.4f} % +- {width:.4f} %"
    state = "inside" if window.covered else "SILENT" if window.silent else "outside"
    return (
        f"{window.load:16} {window.sensor:17} {window.cut:10} {window.true_j:8.1f} J {figures:26} "
        f"{state:8} {', '.join(window.energy.codes)}"
    )


def _criteria(windows: Sequence[Window]) -> Iterator[Criterion]:
    yield len(windows) >= LEAST, f"windows of the real llem meter: {len(windows)} >= {LEAST}"
    covered = sum(window.covered for window in windows)
    yield covered >= judge.LEAST_COVERED * len(windows), f"covered: {covered} of {len(windows)}"
    yield from judge.silent(windows)
    yield from judge.widths_and_errors([window for window in windows if window.kind == "true"])
    yield from judge.bounds(windows)
