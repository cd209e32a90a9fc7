"""Whether the streaming client tells the truth: against a server that takes a known time.

    python benchmarks/serving_client_truth.py [--rates 1 10 100 500] [--seconds 30]

The server (``tests/support/serving_server.py``) is told how long the first token and each further
one take, and writes down when it took each request and sent each token. Both processes share the
machine. "service" compares with what the server was told, "served" with what it did: where the
machine itself is late, both the server's and the client's own lateness stand in the first.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import harness
import numpy as np
from numpy.typing import NDArray

from llenergymeasure.run.result.run_validity import traffic_codes
from llenergymeasure.run.result.traffic_result import ServedRun
from support import serving_runs

FIRST_MS, NEXT_MS, TOKENS = 100.0, 10.0, 32
RELATIVE, ABSOLUTE_S = 0.02, 0.001
LATENESS_MAX_S = 0.005
SHARES = (50, 90, 95, 99)
NAMES = ("first token", "inter-token", "end to end")


def main() -> int:
    """Print the table; return 1 if a latency is off, a request fails or its lateness is unsaid."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 10, 100, 500])
    parser.add_argument("--seconds", type=float, default=30.0)
    options = harness.begin(parser)
    print(f"first token {FIRST_MS:g} ms, then {NEXT_MS:g} ms, {TOKENS} tokens an answer\n")
    print("| requests/s | latency | p50 | p90 | p95 | p99 | off service | off served | within |")
    print("|---|---|---|---|---|---|---|---|---|")
    within = True
    for rate in options.rates:
        within &= measure(rate, options.seconds)
    return 0 if within else 1


def measure(rate: float, seconds: float) -> bool:
    """Print one rate's rows; return whether all were within what was promised."""
    config = serving_runs.experiment(
        {"arrivals": "constant", "rate_per_s": rate}, seconds, max_output_tokens=TOKENS
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "served.jsonl"
        run, _ = serving_runs.run(
            folder,
            config,
            *("--first-ms", str(FIRST_MS), "--next-ms", str(NEXT_MS), "--log", str(log)),
        )
        served = truth(run, [json.loads(line) for line in log.read_text().splitlines()])
    measured = (
        run.latency("time_to_first_token_s"),
        run.inter_token_latency(),
        run.latency("latency_s"),
    )
    last_ms = FIRST_MS + (TOKENS - 1) * NEXT_MS
    service = dict(zip(NAMES, (FIRST_MS / 1e3, NEXT_MS / 1e3, last_ms / 1e3), strict=True))
    good = True
    for latency, percentiles in zip(NAMES, measured, strict=True):
        values = [getattr(percentiles, f"p{share}_s") for share in SHARES]
        off_service = max(_off(value, service[latency]) for value in values)
        off_served = max(
            _off(value, float(np.percentile(served[latency], share)))
            for value, share in zip(values, SHARES, strict=True)
        )
        good &= off_served <= 1
        row = " | ".join(f"{value * 1e3:.2f} ms" for value in values)
        print(
            f"| {rate:g} | {latency} | {row} | {off_service:.2f} | {off_served:.2f} | "
            f"{'yes' if off_served <= 1 else 'NO'} |",
            flush=True,
        )
    lateness_s = [row["lateness_s"] for row in run.requests.to_pylist() if row["in_window"]]
    late_p99_s = float(np.percentile(lateness_s, 99))
    flagged = "late_sends" in traffic_codes(run)
    failed = sum(row["failure"] is not None for row in run.requests.to_pylist())
    cpu_us = 1e6 * run.report["client_cpu_s"] / (len(lateness_s) * TOKENS)
    print(
        f"| {rate:g} | sent late | p50 {np.median(lateness_s) * 1e3:.2f} ms, p99 "
        f"{late_p99_s * 1e3:.2f} ms{', flagged' if flagged else ''}; {failed} failed; client "
        f"{run.report['client_cpu_s'] / run.window_s:.2f} of a core, {cpu_us:.0f} µs a token"
        " | | | | | | |",
        flush=True,
    )
    return good and failed == 0 and (late_p99_s < LATENESS_MAX_S or flagged)


def truth(run: ServedRun, log: list[dict[str, list[int]]]) -> Mapping[str, NDArray[np.float64]]:
    """Return what the server did for the window's requests, as the client's clock would see it.

    Both clocks are CLOCK_MONOTONIC of one machine. The server numbers requests in the order in
    which it took them, the client in the order in which it sent them: nearly always the same, and
    percentiles do not know the difference.
    """
    rows = [row for row in run.requests.to_pylist() if row["in_window"]]
    planned = np.array([row["planned_monotonic_ns"] for row in rows])
    times = {entry["times_ns"][0]: np.array(entry["times_ns"][1:]) for entry in log}
    taken_ns = np.array(sorted(times))
    # The request that the server took next after it was sent.
    sent = np.array([row["start_monotonic_ns"] for row in rows])
    first, gaps, last = [], [], []
    for index, at_ns in enumerate(taken_ns[np.searchsorted(taken_ns, sent)]):
        tokens = times[int(at_ns)]
        first.append((tokens[0] - planned[index]) / 1e9)
        last.append((tokens[-1] - planned[index]) / 1e9)
        gaps.append(np.diff(tokens) / 1e9)
    return dict(zip(NAMES, (np.array(first), np.concatenate(gaps), np.array(last)), strict=True))


def _off(value: float, expected: float) -> float:
    """Return how far off a value is, in parts of what is promised."""
    return abs(value - expected) / max(RELATIVE * expected, ABSOLUTE_S)


if __name__ == "__main__":
    sys.exit(main())
