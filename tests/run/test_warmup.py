"""Warm-up ends when engine and GPUs no longer change, or at its bounds, and says which."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.run.engine.settle import Reading
from llenergymeasure.run.engine.warmup import WarmUp
from llenergymeasure.workload.requests import Request

STANDARD = resolve_protocol(
    ExperimentConfig.model_validate({"model": "tiny-llama", "protocol": "standard"}), measured=True
)
REQUESTS = [Request(index=0, prompt_token_ids=(1, 2), max_output_tokens=2)]


class Paced:
    """An engine whose passes take as long as it is told, on a clock of its own."""

    batch_size: int | None = 1
    devices: tuple[str, ...] = ()

    def __init__(self, pass_s: Callable[[int], float]) -> None:
        self._pass_s = pass_s
        self.passes = 0
        self.now_s = 1000.0

    def generate(self, requests: Sequence[Request]) -> list[Any]:  # noqa: ARG002 - the protocol
        self.now_s += self._pass_s(self.passes)
        self.passes += 1
        return []

    def synchronize(self) -> None: ...

    def resolved_config(self) -> dict[str, Any]:
        return {}

    def peak_memory_bytes(self) -> int | None:
        return None

    def close(self) -> None: ...


def warm(
    engine: Paced, protocol: ProtocolSettings, celsius: Callable[[float], float] | None = None
) -> dict[str, Any]:
    began_s = engine.now_s

    def look() -> Reading:
        if celsius is None:
            return Reading()
        return Reading({"GPU-a": round(celsius(engine.now_s - began_s))}, {"GPU-a": 400.0})

    return WarmUp(engine, [REQUESTS], protocol, look, clock=lambda: engine.now_s).run()


def test_without_gpus_latency_decides() -> None:
    result = warm(Paced(lambda _: 1.0), STANDARD)
    assert result["ended"] == "settled"
    assert result["converged"] is True
    assert result["passes"] == 10, "the floor of 10 s"
    assert result["gpus_steady"] is None


def test_a_chip_that_still_warms_is_waited_for() -> None:
    result = warm(Paced(lambda _: 1.0), STANDARD, lambda t: 70 - 30 * math.exp(-t / 15))
    assert result["ended"] == "settled"
    assert result["gpus_steady"] is True
    assert result["duration_s"] > 30
    assert result["slope_celsius_per_s"] <= 0.04


def test_a_chip_that_never_settles_is_given_up() -> None:
    result = warm(Paced(lambda _: 1.0), STANDARD, lambda t: 30 + 0.3 * t)
    assert result["ended"] == "time exhausted"
    assert result["converged"] is False
    assert result["duration_s"] == STANDARD.settle_max_s


def test_latency_that_never_settles_is_given_up() -> None:
    result = warm(Paced(lambda number: 1.0 + number % 2), STANDARD, lambda _: 50.0)
    assert result["ended"] == "passes exhausted"
    assert result["converged"] is False
    assert result["passes"] == STANDARD.warmup_max_prompts


def test_fixed_passes_are_kept_to() -> None:
    fixed = replace(STANDARD, warmup_convergence=False, warmup_n=3, warmup_floor_s=0.0)
    result = warm(Paced(lambda _: 1.0), fixed, lambda t: 30 + t)
    assert (result["ended"], result["passes"], result["converged"]) == ("passes made", 3, None)


def test_none_is_none() -> None:
    result = warm(Paced(lambda _: 1.0), replace(STANDARD, warmup_enabled=False))
    assert (result["ended"], result["passes"], result["converged"]) == ("not asked for", 0, None)
