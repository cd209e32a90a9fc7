"""Why a configuration cannot run here, found without importing the engine."""

import contextlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from llenergymeasure.backends.common import Capability, bfloat16_problems, has_compiler
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.installation import install_command
from llenergymeasure.machine.gpus.allotment import GpuAllotmentError, allotted_cards
from llenergymeasure.machine.gpus.state import cuda_driver_version

MIN_TRANSFORMERS = "5.18"
"""The first whose continuous batching takes the settings given to it here; as in pyproject.toml."""


def find_problems(config: ExperimentConfig) -> list[Problem]:
    """Return all reasons at once; none if it can run."""
    settings = config.pytorch or PyTorchConfig()
    gpus = _compute_capabilities(config)
    return [
        *_packages(config, settings, gpus),
        *bfloat16_problems(config, gpus),
        *_quantization(config, settings, gpus),
        *_attention(config, settings, gpus),
        *_placement(config, settings, gpus),
        *_cpu_build_problems(settings, gpus),
        *_compiler(settings, gpus),
        *_adapter(config),
    ]


def _compute_capabilities(config: ExperimentConfig) -> list[Capability]:
    """Return the compute capability of each GPU of the experiment; none without a driver."""
    with contextlib.suppress(GpuAllotmentError):  # the preflight's own look reports it
        cards = allotted_cards(config.model_dump(exclude_none=True))
        return [card.compute_capability for card in cards if card.compute_capability]
    return []


def _packages(
    config: ExperimentConfig, settings: PyTorchConfig, gpus: list[Capability]
) -> Iterator[Problem]:
    required = ["torch", "transformers"]
    if gpus or settings.device_map is not None:
        required.append("accelerate")
    if config.lora is not None:
        required.append("peft")
    missing = [package for package in required if find_spec(package) is None]
    if missing:
        yield Problem(
            f"{' and '.join(missing)} not installed: {install_command('pytorch')}",
            key="backend",
            found="pytorch",
        )
    elif config.served or (settings.tensor_parallel_size or 1) > 1:
        with contextlib.suppress(PackageNotFoundError):  # a build of it may have another name
            yield from _version_problems(version("transformers"))
    if settings.trust_remote_code and config.weights == "random" and "/" not in config.model:
        yield Problem(
            "a built-in architecture has no code of its own; remove trust_remote_code",
            key="pytorch.trust_remote_code",
        )


def _version_problems(transformers: str) -> Iterator[Problem]:
    """Yield that older releases generate batches in one process, and no more than that."""
    from packaging.version import Version  # transformers needs it too

    if Version(transformers) < Version(MIN_TRANSFORMERS):
        yield Problem(
            f"serving and tensor_parallel_size need transformers {MIN_TRANSFORMERS} or newer: "
            f"{install_command('pytorch')}",
            key="backend",
            found=f"transformers {transformers}",
        )


def _quantization(
    config: ExperimentConfig, settings: PyTorchConfig, gpus: list[Capability]
) -> Iterator[Problem]:
    name = "load_in_4bit" if settings.load_in_4bit else "load_in_8bit"
    if not (settings.load_in_4bit or settings.load_in_8bit):
        return
    if find_spec("bitsandbytes") is None:
        yield Problem("needs bitsandbytes: pip install bitsandbytes", key=f"pytorch.{name}")
    if not gpus:
        yield Problem(
            "needs an NVIDIA GPU, and none is visible here; a CPU would only emulate it",
            key=f"pytorch.{name}",
        )
    if config.weights == "random":
        yield Problem(
            "quantises a checkpoint's weights, and weights: random has none; save the model to a "
            "folder, or use pretrained weights",
            key=f"pytorch.{name}",
        )


def _attention(
    config: ExperimentConfig, settings: PyTorchConfig, gpus: list[Capability]
) -> Iterator[Problem]:
    kernel = settings.attn_implementation
    packages = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
    if kernel not in packages:
        return
    key = "pytorch.attn_implementation"
    if find_spec(packages[kernel]) is None:
        yield Problem(
            f"needs the package {packages[kernel]}; use sdpa, which ships with torch",
            key=key,
            found=kernel,
        )
    if not gpus:
        yield Problem("needs an NVIDIA GPU; use sdpa or eager", key=key, found=kernel)
    if config.precision == "fp32":
        yield Problem("computes in fp16 or bf16 alone; set precision", key=key, found=kernel)


def _placement(
    config: ExperimentConfig, settings: PyTorchConfig, gpus: list[Capability]
) -> Iterator[Problem]:
    shards, replicas = settings.tensor_parallel_size or 1, settings.num_processes or 1
    name = "tensor_parallel_size" if shards > 1 else "num_processes"
    processes = max(shards, replicas)
    key, found = f"pytorch.{name}", str(processes)
    if shards > 1 and replicas > 1:
        yield Problem("does not go with pytorch.num_processes; set one", key=key, found=found)
    if processes > 1 and settings.device_map is not None:
        yield Problem(
            "each process takes a GPU of its own; remove pytorch.device_map", key=key, found=found
        )
    if shards > 1 and config.weights == "random":
        yield Problem(
            "slices a checkpoint's weights, and weights: random has none; use device_map: auto",
            key=key,
            found=found,
        )
    if settings.cache_implementation == "offloaded_static" and not gpus:
        yield Problem(
            "offloads a GPU's cache, and no GPU is visible here; use static",
            key="pytorch.cache_implementation",
        )
    name, _, number = (settings.device_map or "").partition(":")
    index = int(number) if number.isdecimal() else 0
    if name == "cuda" and index >= len(gpus):
        yield Problem(
            f"no such GPU: {len(gpus)} are visible",
            key="pytorch.device_map",
            found=settings.device_map,
        )


def _cpu_build_problems(settings: PyTorchConfig, gpus: list[Capability]) -> Iterator[Problem]:
    """Yield that PyTorch would compute on the CPU while the energy of a GPU is measured."""
    on_cpu = (settings.device_map or "").partition(":")[0] == "cpu"
    reason = None if on_cpu or not gpus else why_no_cuda()
    if reason is not None:
        yield Problem(
            f"NVML sees a GPU here, and this PyTorch would compute on the CPU: {reason}. "
            "Install a PyTorch that is built for a CUDA which the driver can run "
            "(https://pytorch.org/get-started/locally), or set pytorch.device_map: cpu to run on "
            "the CPU on purpose: the energy is then the host's",
            key="backend",
        )


def why_no_cuda() -> str | None:
    """Return why PyTorch cannot use a GPU that is there; None if it can, or is not installed.

    It has to be imported for that, which the run does next anyway.
    """
    if find_spec("torch") is None:
        return None
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"{torch.__version__} is built without CUDA"
    driver = cuda_driver_version()
    newest = "" if driver is None else f", and the driver runs CUDA up to {driver}"
    return f"{torch.__version__} is built for CUDA {torch.version.cuda}{newest}"


def _compiler(settings: PyTorchConfig, gpus: list[Capability]) -> Iterator[Problem]:
    uses_inductor = settings.torch_compile_backend in (None, "inductor")
    if not settings.torch_compile or not uses_inductor or gpus:
        return
    if not has_compiler():
        yield Problem(
            "compiling for the CPU needs a C++ compiler: install g++",
            key="pytorch.torch_compile",
        )


def _adapter(config: ExperimentConfig) -> Iterator[Problem]:
    path = config.lora.adapter_path if config.lora else None
    if path is not None and not (Path(path).expanduser() / "adapter_config.json").is_file():
        yield Problem("no folder with an adapter_config.json", key="lora.adapter_path", found=path)
