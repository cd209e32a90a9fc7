"""transformers on PyTorch, in this process, or in one a device."""

import sys

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.common import passthrough_problems
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.pytorch.checks import find_problems
from llenergymeasure.backends.pytorch.server import server_command
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem


class _PyTorchPackage(EnginePackage):
    """transformers, which puts adapters on models and needs other packages for some settings."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        return [*find_problems(config), *passthrough_problems(config, self.study_keys)]

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed; CUDA and cuDNN once torch is imported."""
        return super().versions() | _cuda_versions()


def _cuda_versions() -> dict[str, str]:
    torch = sys.modules.get("torch")
    if torch is None or torch.version.cuda is None:
        return {}
    versions = {"cuda": str(torch.version.cuda)}
    if torch.backends.cudnn.is_available():
        versions["cudnn"] = str(torch.backends.cudnn.version())
    return versions


BACKEND: Backend = _PyTorchPackage(
    name="pytorch",
    engine="start_engine",
    checks=find_problems,
    command=server_command,
    packages=(
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "accelerate",
        "peft",
        "bitsandbytes",
        "flash-attn",
    ),
    study_keys={name: f"pytorch.{name}" for name in PyTorchConfig.model_fields},
)
