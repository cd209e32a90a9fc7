"""How long a run may take at most, where the study does not say: to end what hangs, not to hurry.

Everything is reckoned for a machine slower than any that is used in earnest; a run that takes
longer than this is stuck.
"""

import math

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.run.preflight.memory_need import bytes_per_weight
from llenergymeasure.run.preflight.model_checks import weights_here
from llenergymeasure.workload.models.resolve import ModelSource
from llenergymeasure.workload.requests import Workload

START_UP_S = 600.0
"""Imports from a slow disk, preflight, the recorder's start, the end."""

COMPILE_S = 1800.0
FETCH_BYTES_PER_S = 5e6
READ_BYTES_PER_S = 5e7
STEP_S = 0.03
"""What a token's step costs however small the model: Python, and the starts of kernels."""

MARGIN = 3.0

_GPU_SPEED = (5e12, 1e11)
_CPU_SPEED = (1e10, 4e9)
"""Operations and bytes of memory a second."""

_UNKNOWN_PARAMETERS = 1e10
_SEQUENCES_OF_A_SERVER = 16
"""Sequences at once that any engine with its own scheduler reaches."""


def estimated_limit_s(
    config: ExperimentConfig,
    protocol: ProtocolSettings,
    *,
    source: ModelSource | None,
    workload: Workload | None,
    on_gpu: bool,
    gap_s: float = 0.0,
) -> float:
    """Return a generous wall-clock limit of one run, in whole minutes as seconds.

    Args:
        config: the experiment.
        protocol: its phases' lengths.
        source: its model; without it the weights are reckoned as 10 billion.
        workload: its requests; without them as many and as long as the configuration says.
        on_gpu: whether it computes on a GPU.
        gap_s: the study's rest before it.
    """
    rests_s = gap_s + 2 * protocol.settle_max_s + 2 * protocol.idle_before_s + protocol.idle_after_s
    batch_s, batches = _batches(config, source, workload, on_gpu)
    warmups = max(protocol.warmup_n, protocol.warmup_max_prompts)
    work_s = (warmups + batches + protocol.min_batches) * batch_s
    phases_s = protocol.warmup_floor_s + protocol.window_min_s
    limit_s = START_UP_S + rests_s + _load_s(config, source) + phases_s + MARGIN * work_s
    if config.serving is not None:
        limit_s += config.serving.ramp_up_max_s + 2 * config.serving.timeout_s
    return math.ceil(limit_s / 60) * 60.0


def _parameters(source: ModelSource | None) -> float:
    shape = None if source is None else source.architecture
    return _UNKNOWN_PARAMETERS if shape is None else float(shape.parameters())


def _load_s(config: ExperimentConfig, source: ModelSource | None) -> float:
    stored = _parameters(source) * 2
    fetched = 0.0 if source is not None and weights_here(config, source) else stored
    compiles = config.backend != "pytorch" or bool(config.pytorch and config.pytorch.torch_compile)
    return (
        fetched / FETCH_BYTES_PER_S + stored / READ_BYTES_PER_S + (COMPILE_S if compiles else 0.0)
    )


def _batches(
    config: ExperimentConfig, source: ModelSource | None, workload: Workload | None, on_gpu: bool
) -> tuple[float, int]:
    """Return the longest time a batch can take and how many a pass over the workload has."""
    flops_per_s, bytes_per_s = _GPU_SPEED if on_gpu else _CPU_SPEED
    parameters = _parameters(source)
    weights = parameters * (4.0 if source is None else bytes_per_weight(config, source))
    synthetic = config.synthetic()
    if workload is not None and workload.requests:
        requests = len(workload.requests)
        longest_in = max(len(request.prompt_token_ids) for request in workload.requests)
        longest_out = max(request.max_output_tokens for request in workload.requests)
    elif synthetic is not None:
        requests, longest_in = synthetic.n or config.n, synthetic.input_len
        longest_out = synthetic.output_len
    else:
        requests, longest_in = config.n, config.max_input_tokens
        longest_out = config.max_output_tokens
    size = min(requests, _batch_size(config))
    beams = (config.pytorch and config.pytorch.num_beams) or 1
    token_s = 2 * parameters * size * beams / flops_per_s
    batch_s = longest_in * token_s + longest_out * max(token_s, weights / bytes_per_s)
    batch_s += longest_out * STEP_S
    return batch_s, math.ceil(requests / size)


def _batch_size(config: ExperimentConfig) -> int:
    if config.backend == "pytorch":
        return (config.pytorch and config.pytorch.batch_size) or 1
    return _SEQUENCES_OF_A_SERVER
