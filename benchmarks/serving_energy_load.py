"""Energy against load on the simulated card, whose power follows the test server's load.

    .venv/bin/python benchmarks/serving_energy_load.py [--seconds 20] [--rates 0 5 10 20 30]

The card draws ``idle_w`` and, for each busy slot of the server, its share of what is left up to
``max_w``: so what a request adds is known, and what the server draws when it waits. The recorder
samples the card as in any run; the line through power and
load is the one of the report. Needs a C compiler (``make nvml-sim``).
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llenergymeasure.analysis.load_curve import COVERAGE_FACTOR, LoadPoint, load_curve
from llenergymeasure.energy.account import account
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.run.result.traffic_result import ServedRun
from nvml_sim import sim
from support import recording, serving_runs

IDLE_W, MAX_W = 100.0, 700.0
SLOTS, FIRST_MS, NEXT_MS, TOKENS = 16, 100.0, 10.0, 32
WITHIN = 0.02


@dataclass(frozen=True)
class Recovered:
    """What was found and what was so: watts at no load, joules a request."""

    intercept_w: float
    intercept_half_w: float
    slope_j: float
    slope_half_j: float
    true_slope_j: float

    @property
    def intercept_off(self) -> float:
        """How far the intercept is off, relative."""
        return self.intercept_w / IDLE_W - 1

    @property
    def slope_off(self) -> float:
        """How far the slope is off, relative."""
        return self.slope_j / self.true_slope_j - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 5, 10, 20, 30])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        found = recover(Path(name), options.rates, options.seconds, tell=True)
    print(
        f"\nintercept {found.intercept_w:.2f} ± {found.intercept_half_w:.2f} W, "
        f"true {IDLE_W:.2f} W: {found.intercept_off:+.2%}"
    )
    print(
        f"slope {found.slope_j:.3f} ± {found.slope_half_j:.3f} J a request, "
        f"true {found.true_slope_j:.3f} J: {found.slope_off:+.2%}"
    )
    return 0 if max(abs(found.intercept_off), abs(found.slope_off)) <= WITHIN else 1


def recover(folder: Path, rates: list[float], seconds: float, *, tell: bool = False) -> Recovered:
    """Serve at each rate with the card recorded, and fit the line."""
    load_file = folder / "load.csv"
    load_file.write_text("t_ns,load\n")
    uuid = recording.uuid(1)
    card = sim.Device(
        uuid=uuid, keys={"load_file": str(load_file), "idle_w": IDLE_W, "max_w": MAX_W}
    )
    variables = recording.card_environment(folder, [card])
    with recording.recorder(folder, variables):
        runs = [_serve(folder, load_file, rate, seconds) for rate in rates]
        time.sleep(1.0)
    samples = read_samples(folder / "samples.arrows")
    points = []
    for rate, run in zip(rates, runs, strict=True):
        made = account(samples, run.window, devices={uuid})
        assert made.total is not None
        assert made.total.gross_u95_j is not None
        load = run.tokens("").requests / run.window_s
        power_w = made.total.gross_j / run.window_s
        points.append(
            LoadPoint(load, power_w, made.total.gross_u95_j / COVERAGE_FACTOR / run.window_s)
        )
        if tell:
            print(
                f"{rate:g}/s: {load:.2f} answered a second, {power_w:.2f} W "
                f"{sorted(made.validity)}",
                flush=True,
            )
    curve = load_curve(points)
    assert curve is not None
    return Recovered(
        curve.intercept_w,
        curve.intercept_half_w,
        curve.slope_j,
        curve.slope_half_j,
        (MAX_W - IDLE_W) * _busy_s(load_file) / sum(run.requests.num_rows for run in runs),
    )


def _serve(folder: Path, load_file: Path, rate: float, seconds: float) -> ServedRun:
    config = serving_runs.experiment(
        {"arrivals": "poisson", "rate_per_s": rate}, seconds, max_output_tokens=TOKENS
    )
    run, _ = serving_runs.run(
        folder,
        config,
        *("--first-ms", str(FIRST_MS), "--next-ms", str(NEXT_MS), "--slots", str(SLOTS)),
        *("--load-file", str(load_file)),
    )
    return run


def _busy_s(load_file: Path) -> float:
    """Return the integral of the load, in s: what the server did, by its own account."""
    lines = np.loadtxt(load_file, delimiter=",", skiprows=1)
    return float(np.diff(lines[:, 0]) @ lines[:-1, 1]) / 1e9


if __name__ == "__main__":
    sys.exit(main())
