"""How long runs take: one estimate, for the plan, for the time left, and for a run's limit.

The waits of a protocol are known; loading and computing follow from the model's size and the
device's speed, which whoever asks passes in. What is not known is named, and the estimate is then
the least that a run takes. The limit is the same reckoning for a machine many times as slow: it
ends what hangs, and hurries nobody.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.plan.model import Plan

START_S = {"pytorch": 8.0, "openai": 4.0}
"""Imports, the recorder, the end; from runs on an H100. An engine with processes of its own:"""
ENGINE_START_S = 40.0
COMPILE_S = 180.0
FETCH_BYTES_PER_S = 5e7
READ_BYTES_PER_S = 1e9
PREFILL_SHARE, DECODE_SHARE = 0.4, 0.6
"""Of a device's peak operations and memory rate, what engines reach."""
LAYER_S = 0.6e-3
"""What a layer costs in each step however small: Python, and the starts of kernels."""
CAPTURED_SHARE = 0.1
"""Of that, for engines which capture their kernels' starts once."""
SEQUENCES_AT_ONCE = 64
"""That an engine with its own scheduler works on."""
WAITED_SHARE = 0.25
"""Of the longest wait for a steady temperature or steady traffic, what is needed on average."""

LIMIT_TIMES = 20.0
LIMIT_SPARE_S = 600.0
"""A run's limit: for a machine so many times as slow, and so much on top."""


@dataclass(frozen=True)
class Device:
    """What a run computes on: its peak operations, and bytes of memory, a second."""

    name: str
    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class ModelSize:
    """What of a model costs time.

    Attributes:
        parameters: that work on each token.
        weights_bytes: in memory.
        layers: how many it has.
        to_fetch_bytes: what is still to come from the hub.
    """

    parameters: float
    weights_bytes: float
    layers: int
    to_fetch_bytes: float = 0.0


@dataclass(frozen=True)
class Work:
    """A pass over an experiment's requests: how many, and the longest of them in tokens."""

    requests: int
    input_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, config: ExperimentConfig) -> "Work":
        """Return what the configuration says, without making the requests."""
        synthetic = config.synthetic()
        if synthetic is None:
            return cls(config.n, config.max_input_tokens, config.max_output_tokens)
        return cls(synthetic.n or config.n, synthetic.input_len, synthetic.output_len)


@dataclass(frozen=True)
class Known:
    """What is known of an experiment besides its settings; words name what is not."""

    model: ModelSize | str = "the model's size"
    device: Device | str = "the device's speed"
    work: Work | None = None


@dataclass(frozen=True)
class Estimate:
    """How long something takes; where ``unknown`` names anything, at least so long."""

    seconds: float
    unknown: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """Whether it is the length or the least one, as a word."""
        return "at least" if self.unknown else "about"

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.about} {duration(self.seconds)}"


_LARGE = ModelSize(1e10, 4e10, 64, to_fetch_bytes=2e10)
_SLOW_GPU = Device("a slow GPU", 2e13, 3e11)
"""What a limit takes for what is not known."""

Knows = Callable[[ExperimentConfig], Known]
"""Returns what is known of an experiment."""


def nothing_known(_config: ExperimentConfig) -> Known:
    """Know nothing besides the settings."""
    return Known()


def run_estimate(config: ExperimentConfig, protocol: ProtocolSettings, known: Known) -> Estimate:
    """Return how long one run takes, without the study's rest before it."""
    # A running server's speed is nobody's to know, and the window's length does not hang on it.
    needed = () if config.backend == "openai" else (known.model, known.device)
    unknown = tuple(each for each in needed if isinstance(each, str))
    return Estimate(_run_s(config, protocol, known, slower=1.0), unknown)


def limit_s(
    config: ExperimentConfig, protocol: ProtocolSettings, known: Known, gap_s: float = 0.0
) -> float:
    """Return a generous wall-clock limit of one run, in whole minutes as seconds.

    Args:
        config: the experiment.
        protocol: its phases' lengths.
        known: its model and device; without them a large one and a slow one are assumed.
        gap_s: the study's rest before it.
    """
    if isinstance(known.model, str):
        known = replace(known, model=_LARGE)
    if isinstance(known.device, str):
        known = replace(known, device=_SLOW_GPU)
    most_s = LIMIT_SPARE_S + gap_s + _run_s(config, protocol, known, slower=LIMIT_TIMES)
    if config.serving is not None:
        most_s += 2 * config.serving.timeout_s
    return math.ceil(most_s / 60) * 60.0


class Estimates:
    """How long a plan's runs take; experiments that differ in nothing that counts share one."""

    def __init__(self, knows: Knows = nothing_known) -> None:
        """Take who knows models and devices."""
        self._knows = knows
        self._configs: dict[str, ExperimentConfig] = {}
        self._estimates: dict[tuple[str, bool], Estimate] = {}

    def plan(self, plan: Plan, measured: bool = True) -> Estimate:
        """Return how long all runs take, one after the other, with the rests between them."""
        each: dict[str, Estimate] = {}
        seconds = 0.0
        for run in plan.runs:
            if run.experiment not in each:
                each[run.experiment] = self.run(run.config, measured)
            seconds += each[run.experiment].seconds + run.gap_s
        unknown = dict.fromkeys(name for one in each.values() for name in one.unknown)
        return Estimate(seconds, tuple(unknown))

    def run(self, content: Mapping[str, Any], measured: bool = True) -> Estimate:
        """Return how long a run of a resolved configuration takes.

        Args:
            content: the configuration.
            measured: whether a sensor measures, on which ``protocol: auto`` depends.
        """
        key = _key(content), measured
        if key not in self._estimates:
            config = self.config(content)
            protocol = resolve_protocol(config, measured)
            self._estimates[key] = run_estimate(config, protocol, self._knows(config))
        return self._estimates[key]

    def config(self, content: Mapping[str, Any]) -> ExperimentConfig:
        """Return those of an experiment's settings that time or memory depend on."""
        key = _key(content)
        if key not in self._configs:
            timed = {name: value for name, value in content.items() if name not in _COST_NOTHING}
            self._configs[key] = ExperimentConfig.model_validate(timed)
        return self._configs[key]


_COST_NOTHING = ("random_seed", "decoder", "energy", "dataset_order", "output_dir", "slo")


def _key(content: Mapping[str, Any]) -> str:
    return repr([each for each in content.items() if each[0] not in _COST_NOTHING])


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _run_s(
    config: ExperimentConfig, protocol: ProtocolSettings, known: Known, *, slower: float
) -> float:
    """Return the length of a run whose guessed parts take ``slower`` times as long."""
    waited = min(1.0, WAITED_SHARE * slower)
    batch_s, batches = _batch(config, known)
    batch_s *= slower
    start_s = START_S.get(config.backend, ENGINE_START_S) + _load_s(config, known)
    idle_s = 2 * protocol.idle_before_s + protocol.idle_after_s
    settle_s = waited * protocol.settle_max_s if protocol.settle_enabled else 0.0
    warmup_s = 0.0
    if protocol.warmup_enabled:
        least = protocol.warmup_min_prompts if protocol.warmup_convergence else 0
        warmup_s = max(protocol.warmup_floor_s, max(protocol.warmup_n, least) * batch_s)
        # The GPUs are watched too, for as long as a rest before the run may take.
        warmup_s = max(warmup_s, settle_s if protocol.warmup_convergence else 0.0)
    if config.served:
        ramp_s = waited * (config.serving.ramp_up_max_s if config.serving else 0.0)
        window_s = ramp_s + protocol.window_min_s + batch_s
    else:
        pass_s = batches * batch_s
        passes = max(1, math.ceil(protocol.min_batches / batches))
        if pass_s > 0:
            passes = max(passes, math.ceil(protocol.window_min_s / pass_s))
        window_s = max(protocol.window_min_s, passes * pass_s)
    return slower * start_s + settle_s + idle_s + warmup_s + window_s


def _load_s(config: ExperimentConfig, known: Known) -> float:
    if config.backend == "openai":
        return 0.0
    compiles = config.backend == "tensorrt" or (config.pytorch and config.pytorch.torch_compile)
    load_s = COMPILE_S if compiles else 0.0
    if isinstance(known.model, ModelSize):
        load_s += known.model.weights_bytes / READ_BYTES_PER_S
        load_s += known.model.to_fetch_bytes / FETCH_BYTES_PER_S
    return load_s


def _batch(config: ExperimentConfig, known: Known) -> tuple[float, int]:
    """Return how long a batch takes, 0 where that is not known, and how many a pass has."""
    work = known.work or Work.of(config)
    size, beams = SEQUENCES_AT_ONCE, 1
    if config.backend == "pytorch":
        size = (config.pytorch and config.pytorch.batch_size) or 1
        beams = (config.pytorch and config.pytorch.num_beams) or 1
    size = min(work.requests, size)
    batches = math.ceil(work.requests / size)
    model, device = known.model, known.device
    if isinstance(model, str) or isinstance(device, str) or config.backend == "openai":
        return 0.0, batches
    token_s = 2 * model.parameters * size * beams / (PREFILL_SHARE * device.flops_per_s)
    weights_s = model.weights_bytes / (DECODE_SHARE * device.bytes_per_s)
    layers_s = model.layers * LAYER_S * (1.0 if config.backend == "pytorch" else CAPTURED_SHARE)
    step_s = max(token_s, weights_s) + layers_s
    return work.input_tokens * token_s + work.output_tokens * step_s, batches
