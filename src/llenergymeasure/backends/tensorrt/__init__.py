"""TensorRT-LLM: on PyTorch or with compiled engines, in process or as its own server.

Written against its published sources and never run: no release was at hand.
"""

from llenergymeasure.backends.base import Backend, Engine, ServerCommand
from llenergymeasure.backends.common import installed_versions
from llenergymeasure.backends.tensorrt.checks import find_problems
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem

_PACKAGES = (
    "tensorrt_llm",
    "tensorrt",
    "torch",
    "transformers",
    "flashinfer-python",
    "nvidia-modelopt",
    "xgrammar",
)


class TensorRTBackend:
    """The backend ``tensorrt``."""

    name: str = "tensorrt"

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        return find_problems(config)

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed."""
        return installed_versions(_PACKAGES)

    def load(self, config: ExperimentConfig) -> Engine:
        """Start the engine and load the model.

        Raises:
            BackendError: the engine refused a setting or the model.
            ConfigurationError: the model's name means nothing.
        """
        from llenergymeasure.backends.tensorrt.engine import TensorRTEngine

        return TensorRTEngine(config)

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how ``trtllm-serve`` is started for ``config``; starts nothing.

        Raises:
            BackendError: it cannot serve this configuration.
            ConfigurationError: the model's name means nothing.
        """
        from llenergymeasure.backends.tensorrt.server import server_command

        return server_command(config, port)


BACKEND: Backend = TensorRTBackend()
