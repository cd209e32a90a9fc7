"""vLLM's own account of each step: how full its batch and its cache were."""

from collections import Counter
from typing import Any

from vllm.v1.metrics.loggers import AggregateStatLoggerBase


class StepCounter(AggregateStatLoggerBase):  # type: ignore[misc]
    """Sums over the engine's steps since the last account.

    vLLM hands each step's statistics to every logger it has; their fields are no stable interface
    of its, so each is read with care and left out where it is not there.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sums = Counter({"steps": 0})
        self._running = 0
        self._cache_share = 0.0
        self._maxima = {"running_max": 0.0, "waiting_max": 0.0, "kv_cache_share_max": 0.0}

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int | None = None,
    ) -> None:
        """Take one step's statistics."""
        del mm_cache_stats, engine_idx
        if scheduler_stats is not None:
            self._add_scheduler_stats(scheduler_stats)
        if iteration_stats is not None:
            self._add("prompt_tokens", iteration_stats, "num_prompt_tokens")
            self._add("generated_tokens", iteration_stats, "num_generation_tokens")
            self._add("preemptions", iteration_stats, "num_preempted_reqs")

    def _add_scheduler_stats(self, stats: Any) -> None:
        running = getattr(stats, "num_running_reqs", 0)
        waiting = getattr(stats, "num_waiting_reqs", 0)
        share = getattr(stats, "kv_cache_usage", 0.0)
        if running:
            self._sums["steps"] += 1
            self._running += running
            self._cache_share += share
        observed = {"running_max": running, "waiting_max": waiting, "kv_cache_share_max": share}
        self._maxima = {name: max(value, observed[name]) for name, value in self._maxima.items()}
        prefixes = getattr(stats, "prefix_cache_stats", None)
        self._add("prefix_cache_queried_tokens", prefixes, "queries")
        self._add("cached_prompt_tokens", prefixes, "hits")
        drafts = getattr(stats, "spec_decoding_stats", None)
        self._add("draft_tokens", drafts, "num_draft_tokens")
        self._add("accepted_draft_tokens", drafts, "num_accepted_tokens")

    def _add(self, name: str, stats: Any, attribute: str) -> None:
        value = getattr(stats, attribute, None)
        if value is not None:
            self._sums[name] += int(value)

    def log_engine_initialized(self) -> None:
        """Do nothing: there is nothing to say."""

    def pop_totals(self) -> dict[str, Any]:
        """Return the account and begin another.

        ``steps`` are those that leave a sequence in progress: the means go over them.
        """
        totals: dict[str, Any] = dict(self._sums)
        if steps := self._sums["steps"]:
            totals |= {
                **self._maxima,
                "running_mean": self._running / steps,
                "kv_cache_share_mean": self._cache_share / steps,
            }
        self._clear()
        return totals
