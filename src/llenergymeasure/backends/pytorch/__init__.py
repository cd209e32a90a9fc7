"""transformers on PyTorch, in this process, or in one a device."""

import sys

from llenergymeasure.backends.base import Backend, Engine
from llenergymeasure.backends.common import passthrough_problems
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.pytorch.checks import find_problems
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem


class _PyTorch(EnginePackage):
    """transformers, of which several processes may work together."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        return [*find_problems(config), *passthrough_problems(config, self.named)]

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed; CUDA and cuDNN once torch is imported."""
        return super().versions() | _cuda_versions()

    def load(self, config: ExperimentConfig) -> Engine:
        """Load the model.

        Raises:
            BackendError: the engine refused a setting or the model.
            ConfigurationError: the model's name means nothing.
        """
        from llenergymeasure.backends.pytorch.engine import load_engine
        from llenergymeasure.backends.pytorch.parallel import ParallelEngine

        settings = config.pytorch or PyTorchConfig()
        slices, replicas = settings.tensor_parallel_size or 1, settings.num_processes or 1
        if slices == replicas == 1:
            return load_engine(config)
        return ParallelEngine(config, max(slices, replicas), sliced=slices > 1)


def _cuda_versions() -> dict[str, str]:
    torch = sys.modules.get("torch")
    if torch is None or torch.version.cuda is None:
        return {}
    found = {"cuda": str(torch.version.cuda)}
    if torch.backends.cudnn.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    return found


BACKEND: Backend = _PyTorch(
    name="pytorch",
    engine="PyTorchEngine",
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
    named={name: f"pytorch.{name}" for name in PyTorchConfig.model_fields},
)
