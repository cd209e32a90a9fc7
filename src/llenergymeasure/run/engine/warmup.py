"""Warm-up: the batch plan's own batches until engine and GPUs no longer change.

Latency settles long before the chip does: it continues to warm, and a warmer chip draws more for
the same work. So where GPUs can be watched, their temperature and power must settle too, by the
same rule as for the rest before a run. A study that sets its own warm-up gets exactly that: passes,
latency and a time.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from llenergymeasure.backends.base import Engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.run.engine.settle import POLL_S, Reading, Watch
from llenergymeasure.workload.requests import Request

EndReason = Literal["not asked for", "passes made", "settled", "passes exhausted", "time exhausted"]


class WarmUp:
    """Generates until enough passes are done, latency has settled and the floor has passed.

    A pass is one batch: an engine that takes one prompt at a time warms up prompt by prompt.

    With convergence asked for, latency has settled when the coefficient of variation of the
    latest ``warmup_window_size`` passes' latencies is below ``warmup_cv_threshold``; it is judged
    from ``warmup_min_prompts`` on and given up at ``warmup_max_prompts``. The GPUs are watched
    for as long as a rest may take, ``settle_max_s``, and given up then.

    Args:
        engine: loaded.
        batches: the batch plan.
        protocol: how many, how long.
        read_gpus: reads temperature and power; None where they are not to be watched.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        engine: Engine,
        batches: Sequence[Sequence[Request]],
        protocol: ProtocolSettings,
        read_gpus: Callable[[], Reading] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._batches = batches
        self._protocol = protocol
        self._latencies_s: list[float] = []
        self._clock = clock
        is_watched = read_gpus is not None and protocol.warmup_convergence and not read_gpus().empty
        self._read_gpus = read_gpus if is_watched else None
        self._gpu_watch = Watch()
        self._sampled_s = float("-inf")

    def run(self) -> dict[str, Any]:
        """Warm up and return what happened.

        Returns:
            ``passes``, ``duration_s``; ``ended``: why; ``converged``: whether all that was asked
            to settle did, None where nothing was; ``latency_cv`` of the latest batches (None if
            too few); ``gpus_steady`` and ``slope_celsius_per_s``, None where they were not watched
            (long enough); ``latencies_s``.
        """
        self._start_s = self._clock()
        if self._protocol.warmup_enabled:
            while (reason := self._end_reason()) is None:
                self._generate_batch()
                self._sample_gpus()
        else:
            reason = "not asked for"
        return {
            "passes": len(self._latencies_s),
            "duration_s": self._clock() - self._start_s,
            "ended": reason,
            "converged": self._converged(),
            "latency_cv": latency_cv(self._latencies_s, self._protocol.warmup_window_size),
            "gpus_steady": None if self._read_gpus is None else self._gpu_watch.settled(),
            "slope_celsius_per_s": self._gpu_watch.slope_celsius_per_s(),
            "latencies_s": self._latencies_s,
        }

    def _generate_batch(self) -> None:
        batch = self._batches[len(self._latencies_s) % len(self._batches)]
        start_s = self._clock()
        self._engine.generate(batch)
        self._latencies_s.append(self._clock() - start_s)

    def _sample_gpus(self) -> None:
        now_s = self._clock()
        if self._read_gpus is not None and now_s - self._sampled_s >= POLL_S:
            self._sampled_s = now_s
            self._gpu_watch.add(now_s, self._read_gpus())

    def _end_reason(self) -> EndReason | None:
        passes, elapsed_s = len(self._latencies_s), self._clock() - self._start_s
        if passes < self._protocol.warmup_n or elapsed_s < self._protocol.warmup_floor_s:
            return None
        if not self._protocol.warmup_convergence:
            return "passes made"
        settled = self._latency_settled()
        if not settled and passes < self._protocol.warmup_max_prompts:
            return None
        if self._read_gpus is not None and not self._gpu_watch.settled():
            return "time exhausted" if elapsed_s >= self._protocol.settle_max_s else None
        return "settled" if settled else "passes exhausted"

    def _converged(self) -> bool | None:
        if not self._protocol.warmup_convergence or not self._protocol.warmup_enabled:
            return None
        return self._latency_settled() and (self._read_gpus is None or self._gpu_watch.settled())

    def _latency_settled(self) -> bool:
        if len(self._latencies_s) < self._protocol.warmup_min_prompts:
            return False
        cv = latency_cv(self._latencies_s, self._protocol.warmup_window_size)
        return cv is not None and cv < self._protocol.warmup_cv_threshold


def study_sets_warmup(config: ExperimentConfig) -> bool:
    """Return whether the study sets how to warm up."""
    return bool(config.warmup.model_dump(exclude={"enabled"}, exclude_none=True))


def latency_cv(latencies_s: Sequence[float], window_size: int) -> float | None:
    """Return the coefficient of variation of the latest ``window_size`` latencies, if so many."""
    if len(latencies_s) < window_size:
        return None
    latest = latencies_s[-window_size:]
    return statistics.stdev(latest) / statistics.fmean(latest)
