"""When requests arrive: times settled before the first is sent, from a seed.

Open-loop traffic never waits for an answer: that a slow server delays the next question, and so
hides how slow it is ("coordinated omission"), cannot happen.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import resolve_protocol
from llenergymeasure.config.serving import MAX_RATE_PER_S, ServingConfig
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.workload.arrivals_trace import Trace, read_trace
from llenergymeasure.workload.random_draws import Draws

ARRIVALS_STREAM = 1
"""Which of a seed's streams arrivals are drawn from."""

Offsets = NDArray[np.float64]

_MIN_RAMP_S = 2.0
"""The window opens a second of traffic and as long again after the first request, or later."""


def arrival_offsets(
    config: ServingConfig, duration_s: float, seed: int, trace: Trace | None = None
) -> Offsets:
    """Return the arrivals of open-loop traffic in seconds from its start, rising.

    Args:
        config: what traffic.
        duration_s: how much of it; a ramp reaches its end rate then.
        seed: the same seed gives the same times.
        trace: the recorded one, for arrivals ``trace``; one that is shorter starts over.

    Raises:
        ValueError: the traffic is closed, so its times are not known beforehand.
    """
    draws = Draws(seed, ARRIVALS_STREAM)
    if config.arrivals == "trace":
        assert trace is not None
        return _replay(trace, duration_s, config.trace_speed or 1.0)
    rate = config.rate_per_s
    if rate is None:
        raise ValueError(f"arrivals {config.arrivals} have no times settled beforehand")
    if config.arrivals == "ramp":
        assert config.rate_end_per_s is not None
        return _ramp(rate, config.rate_end_per_s, duration_s, draws)
    if rate == 0:
        return np.zeros(0)
    if config.arrivals == "constant":
        # A phase of its own, or the arrivals would beat with whatever else is periodic.
        first = float(draws.uniform(1)[0])
        return np.asarray((np.arange(math.ceil(rate * duration_s)) + first) / rate)
    shape = config.burstiness if config.arrivals == "gamma" else None
    if shape is None:
        return _renewals(lambda count: draws.exponential(count) / rate, rate, duration_s)
    return _renewals(lambda count: draws.gamma(shape, count) / (shape * rate), rate, duration_s)


def _renewals(gaps: Callable[[int], Offsets], rate: float, duration_s: float) -> Offsets:
    """Return a renewal process: sums of independent gaps."""
    times = np.zeros(0)
    last_s = 0.0
    while last_s <= duration_s:
        count = max(64, math.ceil(rate * (duration_s - last_s) * 1.1))
        times = np.concatenate((times, last_s + np.cumsum(gaps(count))))
        last_s = float(times[-1])
    return times[times < duration_s]


def _ramp(start: float, end: float, duration_s: float, draws: Draws) -> Offsets:
    """Return a Poisson process whose rate changes evenly from ``start`` to ``end``.

    By inversion of its mean function (E. Çinlar 1975, Introduction to Stochastic Processes,
    ch. 4.7): arrivals of a process of rate 1, at m(t) = start·t + (end - start)·t² / (2·T).
    """
    expected = (start + end) / 2 * duration_s
    unit = _renewals(draws.exponential, 1.0, expected)
    slope = (end - start) / duration_s
    if slope == 0:
        return unit / start
    return np.asarray((np.sqrt(start * start + 2 * slope * unit) - start) / slope)


def _replay(trace: Trace, duration_s: float, speed: float) -> Offsets:
    offsets = trace.offset_s / speed
    # Between the last arrival and the first of the next round, the mean gap.
    round_s = float(offsets[-1]) * (1 + 1 / max(1, len(offsets) - 1)) or duration_s
    rounds = math.ceil(duration_s / round_s)
    times = np.concatenate([offsets + number * round_s for number in range(rounds)])
    return times[times < duration_s]


def recorded_trace(config: ExperimentConfig) -> Trace | None:
    """Return the trace that an experiment replays or draws from.

    Raises:
        ConfigurationError: it cannot be read, or nothing of it arrives within the window.
    """
    serving = config.serving
    if serving is None or serving.trace is None:
        return None
    path, speed = Path(serving.trace).expanduser(), serving.trace_speed or 1.0
    trace = read_trace(path, serving.trace_start_seconds or 0.0, speed)
    if serving.arrivals == "trace":
        reason = _why_unfit(config, serving, trace)
        lengths = (serving.input_tokens, serving.output_tokens)
        imposed = any(length is not None and length.distribution != "data" for length in lengths)
        if reason is None and trace.has_sessions and (imposed or config.synthetic() is None):
            reason = (
                "the trace has sessions, whose prompts are made of their own lengths: remove "
                "dataset, or serving.input_tokens and serving.output_tokens"
            )
        if reason is not None:
            raise ConfigurationError(Problem(reason, "serving.trace", str(serving.trace)))
    return trace


def trace_lines(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return how many requests each replayed trace has a second: a wrong unit of time is seen."""
    lines: dict[str, None] = {}
    for config in configs:
        serving = config.get("serving") or {}
        if serving.get("arrivals") == "trace":
            path, speed = Path(serving["trace"]).expanduser(), serving.get("trace_speed") or 1.0
            trace = read_trace(path, serving.get("trace_start_seconds") or 0.0, speed)
            span_s, count = float(trace.offset_s[-1]) / speed, len(trace.offset_s)
            noun = "sessions begin" if trace.has_sessions else "requests come"
            rate = f", {count / span_s:,.4g} a second" if span_s else ""
            lines[f"Trace {path}: {count:,} {noun} in {span_s:,.4g} s as replayed{rate}"] = None
    return list(lines)


def _why_unfit(config: ExperimentConfig, serving: ServingConfig, trace: Trace) -> str | None:
    """Return why a replay cannot be measured: nothing arrives in its window, or too much."""
    # Where a sensor measures windows are no shorter than elsewhere.
    window_s = resolve_protocol(config, measured=True).window_min_s
    longest_s = serving.ramp_up_max_s + window_s
    span_s, speed = float(trace.offset_s[-1]), serving.trace_speed or 1.0
    if 0 < span_s < len(trace.offset_s) * speed / MAX_RATE_PER_S:
        return (
            f"the trace has {len(trace)} requests in {span_s:.3g} s, more than "
            f"{MAX_RATE_PER_S:g} a second at the speed asked for (serving.trace_speed)"
        )
    if np.any(arrival_offsets(serving, longest_s, config.random_seed, trace) > 0):
        return None
    if not np.any(trace.gap_s < longest_s):
        return (
            f"nothing comes in the {longest_s:g} s of ramp-up and window after the trace's first "
            "moment; begin later in it (serving.trace_start_seconds), replay it faster "
            "(serving.trace_speed), or measure for longer (window.min_seconds)"
        )
    gaps_s = np.where(trace.gap_s < math.inf, trace.gap_s, 0)
    pauses_s = np.add.reduceat(gaps_s, trace.first_requests[:-1])
    if pauses_s.max() >= _MIN_RAMP_S:
        return None
    return (
        f"all sessions begin at once, and the pauses of none add up to {_MIN_RAMP_S:g} s: "
        "they may end before the window opens; let users take them one after the other "
        "(serving.arrivals: closed, with input_tokens and output_tokens from data)"
    )
