"""A backend whose engine comes as a package: its checks, arguments and server lie in a folder each.

The folder of the engine ``NAME`` has ``checks.find_problems``, ``engine`` with the class of its
engine, and ``server.server_command``, each imported when it is used: engines are heavy.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llenergymeasure.backends.base import Engine, ServerCommand
from llenergymeasure.backends.common import installed_versions
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem


@dataclass
class EnginePackage:
    """A :class:`~llenergymeasure.backends.base.Backend` with a server of its own.

    Attributes:
        name: of the backend, and of its folder.
        engine: the class in its module ``engine``.
        packages: those whose versions are recorded.
        environment: variables that the engine or torch read when they are imported.
    """

    name: str
    engine: str
    packages: tuple[str, ...]
    environment: Callable[[ExperimentConfig], Mapping[str, str]]

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        found: list[Problem] = self._module("checks").find_problems(config)
        return found

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed."""
        return installed_versions(self.packages)

    def load(self, config: ExperimentConfig) -> Engine:
        """Start the engine and load the model.

        Raises:
            BackendError: the engine refused a setting or the model.
            ConfigurationError: the model's name means nothing.
        """
        os.environ.update(self.environment(config))
        loaded: Engine = getattr(self._module("engine"), self.engine)(config)
        return loaded

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how the engine's own server is started for ``config``; starts nothing.

        Raises:
            BackendError: it cannot serve this configuration.
            ConfigurationError: the model's name means nothing.
        """
        command: ServerCommand = self._module("server").server_command(config, port)
        return command

    def _module(self, part: str) -> Any:
        return import_module(f"llenergymeasure.backends.{self.name}.{part}")
