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
        named: arguments that have a name of their own in a study, and which.
        environment: variables that the engine or torch read when they are imported.
    """

    name: str
    engine: str
    checks: Callable[[ExperimentConfig], Iterable[Problem]]
    command: Callable[[ExperimentConfig, int], ServerCommand]
    packages: tuple[str, ...]
    named: Mapping[str, str] = field(default_factory=dict)
    environment: Callable[[ExperimentConfig], Mapping[str, str]] = lambda _: {}

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; looks, but imports neither engine nor model."""
        return [
            *self._missing(),
            *self.checks(config),
            *passthrough_problems(config, self.named),
        ]

    def versions(self) -> dict[str, str]:
        """Return the versions of what is installed; nothing is imported for it."""
        found = {}
        for package in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def load(self, config: ExperimentConfig) -> Engine:
        """Start the engine and load the model."""
        os.environ.update(self.environment(config))
        loaded: Engine = getattr(self._part("engine"), self.engine)(config)
        return loaded

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how the engine's own server is started for ``config``; starts nothing."""
        return self.command(config, port)

    def _missing(self) -> Iterator[Problem]:
        facts = ENGINES[self.name]
        missing = [module for module in facts.modules if find_spec(module) is None]
        if missing:
            how = (
                f"{facts.install()}; it wants an environment of its own, or"
                if facts.install
                else "it comes as a container image alone;"
            )
            yield Problem(
                f"{' and '.join(missing)} not installed: {how} use runner: docker or apptainer",
                key="backend",
                found=self.name,
            )

    def _part(self, name: str) -> Any:
        return import_module(f"llenergymeasure.backends.{self.name}.{name}")


@dataclass
class AskedPackage(EnginePackage):
    """One whose engine also judges settings without a model: ``ask`` in its module ``refusal``.

    Attributes:
        about_settings: what the engine raises of settings alone. Any other error may be a driver's,
            a hub's or a version's: it counts where the engine takes the experiment without them.
    """

    about_settings: tuple[type[Exception], ...] = ()

    def refusal(self, config: ExperimentConfig) -> str | None:
        """Return why the engine refuses ``config``, in its own words; None if it takes it.

        Raises:
            BackendError: the model is not here.
        """
        os.environ.update(self.environment(config))
        ask = self._part("refusal").ask
        bare = {self.name: None, "passthrough_kwargs": None, "decoder": DecoderConfig()}
        try:
            ask(config)
        except LlemError:
            raise
        except OSError:
            return None  # A hub or a disk that does not answer judges no setting.
        except Exception as error:
            if not isinstance(error, self.about_settings):
                try:
                    ask(config.model_copy(update=bare))
                except Exception:
                    return None
            return _words(error)
        return None


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
    plain = isinstance(error, ValueError | TypeError | NotImplementedError)
    return str(error) if plain else f"{type(error).__name__}: {error}"
