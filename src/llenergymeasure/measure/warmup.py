"""Warm-up: the batch plan's own batches until the engine's latency no longer moves."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from llenergymeasure.backends.base import Engine
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.workload.requests import Request


class WarmUp:
    """Generates until enough passes are done, latency has settled and the floor has passed.

    A pass is one batch: an engine that takes one prompt at a time warms up prompt by prompt.

    With convergence asked for, latency has settled when the coefficient of variation of the
    latest ``warmup_window_size`` passes' latencies is below ``warmup_cv_threshold``; it is judged
    from ``warmup_min_prompts`` on and given up at ``warmup_max_prompts``.
    """

    def __init__(
        self, engine: Engine, batches: Sequence[Sequence[Request]], protocol: ProtocolSettings
    ) -> None:
        self._engine = engine
        self._batches = batches
        self._protocol = protocol
        self._latencies_s: list[float] = []

    def run(self) -> dict[str, Any]:
        """Warm up and return what happened.

        Returns:
            ``passes``, ``duration_s``, ``converged`` (null where not asked for),
            ``latency_cv`` of the latest batches (null if too few) and ``latencies_s``.
        """
        started = time.monotonic()
        if self._protocol.warmup_enabled:
            while not self._enough() or time.monotonic() - started < self._protocol.warmup_floor_s:
                self._one_batch()
        return {
            "passes": len(self._latencies_s),
            "duration_s": time.monotonic() - started,
            "converged": self._settled() if self._protocol.warmup_convergence else None,
            "latency_cv": latency_cv(self._latencies_s, self._protocol.warmup_window_size),
            "latencies_s": self._latencies_s,
        }

    def _one_batch(self) -> None:
        batch = self._batches[len(self._latencies_s) % len(self._batches)]
        before = time.monotonic()
        self._engine.generate(batch)
        self._latencies_s.append(time.monotonic() - before)

    def _enough(self) -> bool:
        passes = len(self._latencies_s)
        if passes < self._protocol.warmup_n:
            return False
        if not self._protocol.warmup_convergence:
            return True
        return self._settled() or passes >= self._protocol.warmup_max_prompts

    def _settled(self) -> bool:
        if len(self._latencies_s) < self._protocol.warmup_min_prompts:
            return False
        cv = latency_cv(self._latencies_s, self._protocol.warmup_window_size)
        return cv is not None and cv < self._protocol.warmup_cv_threshold


def latency_cv(latencies_s: Sequence[float], window_size: int) -> float | None:
    """Return the coefficient of variation of the latest ``window_size`` latencies, if so many."""
    if len(latencies_s) < window_size:
        return None
    latest = latencies_s[-window_size:]
    return statistics.stdev(latest) / statistics.fmean(latest)
