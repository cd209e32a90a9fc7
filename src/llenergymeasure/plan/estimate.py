"""How long runs take: one estimate, for the plan, for the time left, and for a run's limit.

The waits of a protocol are known; loading and computing follow from the model's size and the
device's speed, which whoever asks passes in. What is not known is named, and the estimate is then
the least that a run takes. The limit is the same computation for a machine many times as slow: it
ends what hangs, and hurries nobody.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llenergymeasure.config.experiment import SYNTHETIC, ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings, resolve_protocol
from llenergymeasure.config.servers import READY_LIMIT_S
from llenergymeasure.plan.plan import Plan, PlannedRun

START_S = {"pytorch": 8.0, "openai": 4.0}
"""Imports, the recorder, the end; from runs on an H100. An engine with processes of its own:"""
ENGINE_START_S = 40.0
FINISH_S = 4.0
"""A run's own job where that of another has measured it, on the same server."""
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

JUDGING_TIME = "how long the quality takes to judge"

LIMIT_FACTOR = 20.0
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


class Work(NamedTuple):
    """A pass over an experiment's requests.

    Attributes:
        requests: how many.
        input_tokens: of the longest prompt.
        output_tokens: of the longest answer.
        at_once: sequences in a batch.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    at_once: int

    @classmethod
    def from_config(cls, config: ExperimentConfig, content: Mapping[str, Any]) -> "Work":
        """Return what the settings say, without making the requests.

        Args:
            config: the settings, or those of an experiment that differs in sizes alone.
            content: the settings as plain values.
        """
        at_once = SEQUENCES_AT_ONCE
        if config.backend == "pytorch":
            at_once = (content.get("pytorch") or {}).get("batch_size") or 1
        requests, input_tokens, output_tokens = _sizes(content).values()
        dataset = config.dataset
        if isinstance(dataset, str):
            return cls(requests, input_tokens, output_tokens, at_once)
        return cls(dataset.n or requests, dataset.input_len, dataset.output_len, at_once)


@dataclass(frozen=True)
class ModelAndDevice:
    """What is known of an experiment in addition to its settings; words name what is not."""

    model: ModelSize | str = "the model's size"
    device: Device | str = "the device's speed"


@dataclass(frozen=True)
class Estimate:
    """How long something takes.

    Attributes:
        seconds: in all.
        unknown: what is not known and not counted: it takes at least so long.
        longest: whether prompts or answers were counted at their limits, and may be shorter.
    """

    seconds: float
    unknown: tuple[str, ...] = ()
    longest: bool = False

    def __str__(self) -> str:
        """Return it in words."""
        qualifier = "at least" if self.unknown else "up to about" if self.longest else "about"
        return f"{qualifier} {duration(self.seconds)}"


_LARGE_MODEL = ModelSize(1e10, 4e10, 64, to_fetch_bytes=2e10)
_SLOW_GPU = Device("a slow GPU", 1e13, 1e11)
"""What a limit takes for what is not known."""

Lookup = Callable[[ExperimentConfig], ModelAndDevice]
"""Returns what is known of an experiment."""


def run_estimate(
    config: ExperimentConfig,
    protocol: ProtocolSettings,
    known: ModelAndDevice,
    work: Work,
    *,
    starts: bool = True,
) -> Estimate:
    """Return how long one run takes, without the study's rest before it.

    One that ``starts`` nothing is measured on the server of the run before it.
    """
    # A running server's speed is nobody's to know, and the window's length does not hang on it.
    inputs = () if config.external_server else (known.model, known.device)
    unknown = tuple(item for item in inputs if isinstance(item, str))
    is_text_dataset = isinstance(config.dataset, str) and config.dataset != SYNTHETIC
    may_be_shorter = is_text_dataset or config.answer_length == "natural"
    longest = may_be_shorter and not config.external_server
    seconds = _run_s(config, protocol, known, work, slowdown=1.0, starts=starts)
    return Estimate(seconds, unknown, longest)


def limit_s(
    config: ExperimentConfig,
    protocol: ProtocolSettings,
    known: ModelAndDevice,
    work: Work,
    gap_s: float = 0.0,
) -> float:
    """Return a generous wall-clock limit of one run after its rest, in whole minutes as seconds.

    Of a model and a device that are not known, a large one and a slow one are assumed.
    """
    if isinstance(known.model, str):
        known = replace(known, model=_LARGE_MODEL)
    if isinstance(known.device, str):
        known = replace(known, device=_SLOW_GPU)
    most_s = LIMIT_SPARE_S + gap_s + _run_s(config, protocol, known, work, slowdown=LIMIT_FACTOR)
    if config.openai is not None and not config.external_server:
        most_s += READY_LIMIT_S  # of a program that nothing is known of
    if config.serving is not None:
        most_s += 2 * config.serving.timeout_s
    return math.ceil(most_s / 60) * 60.0


class Estimates:
    """How long a plan's runs take.

    What checking a configuration, its model and its device costs is spent once for all experiments
    that differ in sizes, seeds and the like alone.
    """

    def __init__(self, look_up: Lookup = lambda _config: ModelAndDevice()) -> None:
        """Take who knows models and devices."""
        self._look_up = look_up
        self._shapes: dict[str, _Shape] = {}
        self._estimates: dict[tuple[str, bool, bool], Estimate] = {}

    def plan(self, plan: Plan, measured: bool = True, *, share: bool = True) -> Estimate:
        """Return how long all runs take, one after the other, with the rests between them."""
        runs_s, unknown, longest = 0.0, dict[str, None](), False
        for estimate in self.jobs(plan.runs, measured, share=share):
            runs_s += estimate.seconds
            unknown |= dict.fromkeys(estimate.unknown)
            longest |= estimate.longest
        if "quality" in plan.sections and (unknown or not longest):  # else it is the most
            unknown = {JUDGING_TIME: None} | unknown
        return Estimate(runs_s, tuple(unknown), longest)

    def jobs(
        self, runs: Iterable[PlannedRun], measured: bool = True, *, share: bool = True
    ) -> list[Estimate]:
        """Return how long each run's job takes, with the rest before it.

        The job of a session's first measures all of the session, where servers are shared.
        """
        jobs: list[Estimate] = []
        leaders: dict[tuple[int, int], int] = {}
        for index, run in enumerate(runs):
            leader = index
            if share and run.session is not None:
                leader = leaders.setdefault((run.session, run.cycle), index)
            starts = leader == index
            key = run.experiment, measured, starts
            if key not in self._estimates:
                self._estimates[key] = self.run(run.config, measured, starts=starts)
            job = replace(self._estimates[key], seconds=self._estimates[key].seconds + run.gap_s)
            if not starts:
                session_s = jobs[leader].seconds + job.seconds
                jobs[leader] = replace(jobs[leader], seconds=session_s)
                job = Estimate(FINISH_S)
            jobs.append(job)
        return jobs

    def run(
        self, content: Mapping[str, Any], measured: bool = True, *, starts: bool = True
    ) -> Estimate:
        """Return how long a run takes, with the protocol for where a sensor measures or not."""
        shape = self._shape(content)
        work = Work.from_config(shape.config, content)
        return run_estimate(
            shape.config, shape.protocol[measured], shape.known, work, starts=starts
        )

    def config(self, content: Mapping[str, Any]) -> ExperimentConfig:
        """Return an experiment's settings; those that cost nothing may be another one's."""
        config, sizes = self._shape(content).config, dict[str, Any](_sizes(content))
        if config.pytorch is not None:
            batch_size = (content.get("pytorch") or {}).get("batch_size")
            sizes["pytorch"] = config.pytorch.model_copy(update={"batch_size": batch_size})
        return config.model_copy(update=sizes)

    def memory_key(self, content: Mapping[str, Any]) -> tuple[int, int, int]:
        """Return what experiments have in common that need the same memory."""
        config = self._shape(content).config
        work = Work.from_config(config, content)
        longest = work.input_tokens + work.output_tokens
        return id(config), min(work.requests, work.at_once), longest

    def _shape(self, content: Mapping[str, Any]) -> "_Shape":
        shared = {key: value for key, value in content.items() if key not in _NOT_IN_SHAPE}
        if "pytorch" in shared:
            shared["pytorch"] = {**shared["pytorch"], "batch_size": None}
        key = repr(shared)
        if key not in self._shapes:
            # A server's command may hold any setting.
            config = ExperimentConfig.model_validate(content if "openai" in content else shared)
            protocol = {measured: resolve_protocol(config, measured) for measured in (False, True)}
            self._shapes[key] = _Shape(config, protocol, self._look_up(config))
        return self._shapes[key]


class _Shape(NamedTuple):
    """What experiments have in common that differ in sizes alone, as the first of them has it."""

    config: ExperimentConfig
    protocol: Mapping[bool, ProtocolSettings]
    known: ModelAndDevice


_SIZES = {
    name: ExperimentConfig.model_fields[name].default
    for name in ("n", "max_input_tokens", "max_output_tokens")
}
_COST_NOTHING = ("random_seed", "decoder", "energy", "dataset_order", "output_dir", "slo")
_NOT_IN_SHAPE = frozenset((*_SIZES, *_COST_NOTHING))


def _sizes(content: Mapping[str, Any]) -> dict[str, int]:
    return {name: content.get(name, default) for name, default in _SIZES.items()}


def duration(seconds: float) -> str:
    """Return a length of time in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _run_s(
    config: ExperimentConfig,
    protocol: ProtocolSettings,
    known: ModelAndDevice,
    work: Work,
    *,
    slowdown: float,
    starts: bool = True,
) -> float:
    """Return the length of a run whose guessed parts take ``slowdown`` times as long."""
    wait_share = min(1.0, WAITED_SHARE * slowdown)
    batch_s, batches = _batch(config, known, work)
    batch_s *= slowdown
    start_s = START_S.get(config.backend, ENGINE_START_S) + _load_s(config, known)
    idle_s = 2 * protocol.idle_before_s + protocol.idle_after_s
    if not starts:
        start_s, idle_s = 0.0, idle_s - protocol.idle_before_s
    settle_s = wait_share * protocol.settle_max_s if protocol.settle_enabled else 0.0
    warmup_s = _warmup_s(config, protocol, batch_s, settle_s) if protocol.warmup_enabled else 0.0
    if config.served:
        window_s = protocol.window_min_s + batch_s
        if config.serving is not None:
            window_s = protocol.window_min_s + min(batch_s, config.serving.timeout_s)
            window_s += wait_share * config.serving.ramp_up_max_s
    else:
        pass_s = batches * batch_s
        passes = max(1, math.ceil(protocol.min_batches / batches))
        if pass_s > 0:
            passes = max(passes, math.ceil(protocol.window_min_s / pass_s))
        window_s = max(protocol.window_min_s, passes * pass_s)
    return slowdown * start_s + settle_s + idle_s + warmup_s + window_s


def _warmup_s(
    config: ExperimentConfig, protocol: ProtocolSettings, batch_s: float, settle_s: float
) -> float:
    batches = max_batches = protocol.warmup_n
    if protocol.warmup_convergence:
        batches = max(batches, protocol.warmup_min_prompts)
        max_batches = protocol.warmup_max_prompts
    warmup_s = batches * batch_s
    if config.serving is not None:  # a request without its answer has failed by then
        warmup_s = min(warmup_s, max_batches * config.serving.timeout_s)
    # The GPUs are watched too, for as long as a rest before the run may take.
    watched_s = settle_s if protocol.warmup_convergence else 0.0
    return max(protocol.warmup_floor_s, warmup_s, watched_s)


def _load_s(config: ExperimentConfig, known: ModelAndDevice) -> float:
    if config.external_server:
        return 0.0
    compiles = config.backend == "tensorrt" or (config.pytorch and config.pytorch.torch_compile)
    load_s = COMPILE_S if compiles else 0.0
    if isinstance(known.model, ModelSize):
        load_s += known.model.weights_bytes / READ_BYTES_PER_S
        load_s += known.model.to_fetch_bytes / FETCH_BYTES_PER_S
    return load_s


def _batch(config: ExperimentConfig, known: ModelAndDevice, work: Work) -> tuple[float, int]:
    """Return how long a batch takes, 0 where that is not known, and how many a pass has."""
    size = min(work.requests, work.at_once)
    batches = math.ceil(work.requests / size)
    model, device = known.model, known.device
    if isinstance(model, str) or isinstance(device, str) or config.external_server:
        return 0.0, batches
    beams = (config.pytorch and config.pytorch.num_beams) or 1
    token_s = 2 * model.parameters * size * beams / (PREFILL_SHARE * device.flops_per_s)
    weights_s = model.weights_bytes / (DECODE_SHARE * device.bytes_per_s)
    layers_s = model.layers * LAYER_S * (1.0 if config.backend == "pytorch" else CAPTURED_SHARE)
    step_s = max(token_s, weights_s) + layers_s
    return work.input_tokens * token_s + work.output_tokens * step_s, batches
