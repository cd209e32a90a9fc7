"""What each step of the protocol does for repeatability: run-to-run CV of tokens/s, on and off.

The demo's largest experiment is run over and over, with all steps and with one left out at a
time. The variants take turns, so that whatever else the machine does falls on all of them alike.
Ten cycles are 50 runs of some ten seconds each on a quiet machine. An interrupt ends it early with
the table of what there is. Run:

    python benchmarks/protocol_steps.py --cycles 10
"""

import argparse
import contextlib
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from single_runs import make_spec, run_spec

from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import study_from_mapping

WINDOW_S, SHORT_WINDOW_S = 2.0, 0.2
GAP_S = 1.0
FEWEST_RUNS = 3
WARM = {"n_warmup": 5, "convergence_detection": True, "thermal_floor_seconds": 0.5}


def main() -> None:
    """Run the variants in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10)
    cycles = parser.parse_args().cycles
    largest = _largest()
    variants = {
        "all steps": _spec(largest),
        "no warm-up": _spec(largest, warm=False),
        "no rest before the run": _spec(largest, gap_s=0.0),
        f"window of {SHORT_WINDOW_S:g} s": _spec(largest, window_s=SHORT_WINDOW_S),
        "none of them": _spec(largest, warm=False, gap_s=0.0, window_s=SHORT_WINDOW_S),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    with contextlib.suppress(KeyboardInterrupt):
        for cycle in range(cycles):
            for name, spec in variants.items():
                with tempfile.TemporaryDirectory() as folder:
                    result = run_spec(spec, Path(folder))
                rates[name].append(result["performance"]["output_tokens_per_s"])
            print(f"cycle {cycle + 1} of {cycles} done", file=sys.stderr, flush=True)
    print("| protocol | runs | output tokens/s, mean | CV | its 95 % interval | MAD |")
    print("|---|---|---|---|---|---|")
    for name, values in rates.items():
        if len(values) >= FEWEST_RUNS:
            print(_row(name, values))


def _row(name: str, values: Sequence[float]) -> str:
    """Return one variant's row; MAD is the median absolute deviation over the median."""
    mean, middle = statistics.fmean(values), statistics.median(values)
    spread = statistics.median(abs(value - middle) for value in values) / middle
    cv = statistics.stdev(values) / mean
    low, high = _interval(cv, len(values))
    return (
        f"| {name} | {len(values)} | {mean:.0f} | {cv:.1%} | {low:.1%} to {high:.1%} "
        f"| {spread:.1%} |"
    )


def _interval(cv: float, runs: int) -> tuple[float, float]:
    """Return the 95 % interval of a coefficient of variation, by the variance's chi-square.

    Right for normal values and a CV well below a third (Vangel 1996, The American Statistician 50,
    21): two variants whose intervals overlap widely are not told apart.
    """
    from scipy.stats import chi2

    freedom = runs - 1
    low, high = chi2.ppf([0.975, 0.025], freedom)
    return cv * math.sqrt(freedom / low), cv * math.sqrt(freedom / high)


def _largest() -> dict[str, Any]:
    """Return the settings of the demo's experiment that asks for most at once."""
    study = study_from_mapping(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    configs = [run.config for run in make_plan(study).runs]
    return max(configs, key=lambda config: (config.get("pytorch") or {}).get("batch_size") or 1)


def _spec(
    config: dict[str, Any], *, warm: bool = True, gap_s: float = GAP_S, window_s: float = WINDOW_S
) -> dict[str, Any]:
    warmup = WARM if warm else {"enabled": False}
    settings = {**config, "warmup": warmup, "window": {"min_seconds": window_s}}
    return make_spec(settings, gap_s)


if __name__ == "__main__":
    main()
