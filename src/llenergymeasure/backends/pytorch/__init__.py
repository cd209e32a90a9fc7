"""transformers on PyTorch, in this process or in one process a device."""

import sys
from importlib.metadata import PackageNotFoundError, version

from llenergymeasure.backends.base import Backend, Engine
from llenergymeasure.backends.pytorch.checks import find_problems
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem

_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "peft",
    "bitsandbytes",
    "flash-attn",
)


class PyTorchBackend:
    """The backend ``pytorch``."""

    name: str = "pytorch"

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        return find_problems(config)

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed; CUDA and cuDNN once torch is imported."""
        found = {}
        for package in _PACKAGES:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found | _cuda_versions()

    def load(self, config: ExperimentConfig) -> Engine:
        """Load the model.

        Raises:
            BackendError: the engine refused a setting or the model.
            ConfigurationError: the model's name means nothing.
        """
        from llenergymeasure.backends.pytorch.engine import load_engine
        from llenergymeasure.backends.pytorch.replicas import load_replicas

        processes = (config.pytorch and config.pytorch.num_processes) or 1
        return load_engine(config) if processes == 1 else load_replicas(config, processes)


def _cuda_versions() -> dict[str, str]:
    torch = sys.modules.get("torch")
    if torch is None or torch.version.cuda is None:
        return {}
    found = {"cuda": str(torch.version.cuda)}
    if torch.backends.cudnn.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


BACKEND: Backend = PyTorchBackend()
