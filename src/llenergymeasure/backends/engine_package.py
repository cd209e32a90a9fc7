"""A backend whose engine comes as a package, and has a folder here.

The folder of the engine ``NAME`` has ``engine`` with the class of its engine, which is imported
when it is used: engines are heavy.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from pydantic import ValidationError

from llenergymeasure.backends.base import Engine, ServerCommand
from llenergymeasure.backends.common import passthrough_problems
from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.config.decoder import DecoderConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError, Problem


@dataclass
class EnginePackage:
    """A :class:`~llenergymeasure.backends.base.Backend` with a server of its own.

    Attributes:
        name: of the backend, and of its folder.
        engine: the class, or the function, in its module ``engine`` that starts it.
        checks: yields why a configuration cannot run here, without the engine.
        command: returns how the engine's own server is started on a port, without the engine.
        packages: those whose versions are recorded.
        study_keys: arguments that have a name of their own in a study, and which.
        environment: variables that the engine or torch read when they are imported.
    """

    name: str
    engine: str
    checks: Callable[[ExperimentConfig], Iterable[Problem]]
    command: Callable[[ExperimentConfig, int], ServerCommand]
    packages: tuple[str, ...]
    study_keys: Mapping[str, str] = field(default_factory=dict)
    environment: Callable[[ExperimentConfig], Mapping[str, str]] = lambda _: {}

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        return [
            *self._missing_packages(),
            *self.checks(config),
            *passthrough_problems(config, self.study_keys),
        ]

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed; nothing is imported for it."""
        versions = {}
        for package in self.packages:
            try:
                versions[package] = version(package)
            except PackageNotFoundError:
                continue
        return versions

    def load(self, config: ExperimentConfig) -> Engine:
        """Start the engine and load the model."""
        os.environ.update(self.environment(config))
        engine: Engine = getattr(self._module("engine"), self.engine)(config)
        return engine

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how the engine's own server is started for ``config``; starts nothing."""
        return self.command(config, port)

    def _missing_packages(self) -> Iterator[Problem]:
        facts = ENGINES[self.name]
        missing = [module for module in facts.modules if find_spec(module) is None]
        if missing:
            remedy = (
                f"{facts.install()}; it wants an environment of its own, or"
                if facts.install
                else "it comes as a container image alone;"
            )
            yield Problem(
                f"{' and '.join(missing)} not installed: {remedy} use runner: docker or apptainer",
                key="backend",
                found=self.name,
            )

    def _module(self, name: str) -> Any:
        return import_module(f"llenergymeasure.backends.{self.name}.{name}")


@dataclass
class ValidatingPackage(EnginePackage):
    """One whose engine judges settings without a model: ``validate`` in its module ``refusal``.

    Attributes:
        settings_errors: what the engine raises of settings alone. Any other error may be a
            driver's, a hub's or a version's: it counts where the engine takes the experiment
            without them.
    """

    settings_errors: tuple[type[Exception], ...] = ()

    def refusal(self, config: ExperimentConfig) -> str | None:
        """Return why the engine refuses ``config``, in its own words; None if it takes it.

        Raises:
            BackendError: the model is not here.
        """
        os.environ.update(self.environment(config))
        validate = self._module("refusal").validate
        without_settings = {self.name: None, "passthrough_kwargs": None, "decoder": DecoderConfig()}
        try:
            validate(config)
        except LlemError:
            raise
        except OSError:
            return None  # A hub or a disk that does not answer judges no setting.
        except Exception as error:
            if not isinstance(error, self.settings_errors):
                try:
                    validate(config.model_copy(update=without_settings))
                except Exception:
                    return None
            return _error_text(error)
        return None


def _error_text(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(str(item["msg"]).removeprefix("Value error, ") for item in error.errors())
    is_plain = isinstance(error, ValueError | TypeError | NotImplementedError)
    return str(error) if is_plain else f"{type(error).__name__}: {error}"
