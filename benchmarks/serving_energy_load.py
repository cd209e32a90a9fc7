"""Energy against load on the simulated card, whose power follows the test server's load.

    python benchmarks/serving_energy_load.py [--seconds 20] [--rates 0 5 10 20 30]

The card draws ``idle_w`` and, for each busy slot of the server, its share of what is left up to
``max_w``: so what a request adds is known, and what the server draws when it waits. The recorder
samples the card as in any run; the line through power and load is the one of the report. Ends with
1 where intercept or slope is off by more than 2 %. Needs a C compiler (``make nvml-sim``).
"""

import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np

from llenergymeasure.analysis.load_curve import LoadCurve, LoadPoint, load_curve
from llenergymeasure.energy.account import account
from llenergymeasure.energy.window import quadrature_difference
from llenergymeasure.recording.samples import read_samples
from llenergymeasure.run.result.traffic_result import ServedRun
from llenergymeasure.units import COVERAGE_FACTOR
from nvml_sim import sim
from support import recording, serving_runs

IDLE_W, MAX_W = 100.0, 700.0
SLOTS, FIRST_MS, NEXT_MS, TOKENS = 16, 100.0, 10.0, 32
WITHIN = 0.02


def main() -> int:
    """Print the points and the line; return 1 if the line is not the card's."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 5, 10, 20, 30])
    parser.add_argument("--seconds", type=float, default=20.0)
    options = harness.begin(parser)
    with tempfile.TemporaryDirectory() as name:
        curve, true_slope_j = _recover(Path(name), options.rates, options.seconds)
    intercept_off, slope_off = curve.intercept_w / IDLE_W - 1, curve.slope_j / true_slope_j - 1
    intercept = (
        f"intercept {curve.intercept_w:.2f} ± {curve.intercept_half_w:.2f} W, "
        f"true {IDLE_W:.2f} W: {intercept_off:+.2%}"
    )
    slope = (
        f"slope {curve.slope_j:.3f} ± {curve.slope_half_j:.3f} J a request, "
        f"true {true_slope_j:.3f} J: {slope_off:+.2%}"
    )
    return harness.report_criteria(
        [(abs(intercept_off) <= WITHIN, intercept), (abs(slope_off) <= WITHIN, slope)]
    )


def _recover(folder: Path, rates: list[float], seconds: float) -> tuple[LoadCurve, float]:
    """Serve at each rate with the card recorded; return the fitted line and the true slope."""
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
        energy = account(samples, run.window, devices={uuid})
        assert energy.total is not None
        assert energy.total.gross_u95_j is not None
        load = run.tokens("").requests / run.window_s
        power_w = energy.total.gross_j / run.window_s
        shared_j = energy.total.shared_u95_j or 0.0
        u_w = (
            quadrature_difference(energy.total.gross_u95_j, shared_j)
            / COVERAGE_FACTOR
            / run.window_s
        )
        points.append(
            LoadPoint(
                load, power_w, u_w, shared_w=shared_j / run.window_s, experiment=f"{rate:g}/s"
            )
        )
        print(
            f"{rate:g}/s: {load:.2f} answered a second, {power_w:.2f} W {sorted(energy.validity)}"
        )
    curve = load_curve(points)
    assert curve is not None
    requests = sum(run.requests.num_rows for run in runs)
    return curve, (MAX_W - IDLE_W) * _busy_s(load_file) / requests


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
