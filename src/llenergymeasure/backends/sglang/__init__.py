"""SGLang: batches through its engine in processes of its own, or its own server."""

import os

from llenergymeasure.backends.base import Backend, Engine, ServerCommand
from llenergymeasure.backends.common import installed_versions
from llenergymeasure.backends.sglang.checks import find_problems
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem

_PACKAGES = (
    "sglang",
    "sglang-kernel",
    "sgl-kernel",
    "flashinfer-python",
    "torch",
    "transformers",
    "triton",
    "xgrammar",
)


class SGLangBackend:
    """The backend ``sglang``."""

    name: str = "sglang"

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
        from llenergymeasure.backends.sglang.arguments import environment

        os.environ.update(environment(config))
        from llenergymeasure.backends.sglang.engine import SGLangEngine

        return SGLangEngine(config)

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how SGLang's own server is started for ``config``; starts nothing.

        Raises:
            BackendError: a sampling parameter has no name in the server's interface.
            ConfigurationError: the model's name means nothing.
        """
        from llenergymeasure.backends.sglang.server import server_command

        return server_command(config, port)


BACKEND: Backend = SGLangBackend()
