"""Which runner each backend gets, and why: environment > study > user configuration > automatic."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace

from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.config.execution import RunnerChoice
from llenergymeasure.config.preferences import (
    runner_in_environment,
    runner_variable,
    user_configuration,
    user_preferences,
)
from llenergymeasure.config.study import Study
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.units import BackendName, RunnerName


def choose_runners(study: Study, *, apptainer_offered: bool) -> Study:
    """Return the study with a runner, and the reason for it, for each of its backends.

    Raises:
        ConfigurationError: a setting is no runner, or local backends exclude each other.
    """
    backends = dict.fromkeys(experiment.model.backend for experiment in study.experiments)
    preferences = user_preferences().runners.choices()
    chosen = {
        backend: _choose(backend, study, preferences, apptainer_offered=apptainer_offered)
        for backend in backends
    }
    _require_compatible_local_backends(
        [name for name, choice in chosen.items() if choice.runner == "local"]
    )
    return replace(study, runners=chosen)


def _choose(
    backend: BackendName,
    study: Study,
    preferences: Mapping[BackendName, RunnerChoice],
    *,
    apptainer_offered: bool,
) -> RunnerChoice:
    variable = runner_variable(backend)
    if (chosen := runner_in_environment(backend)) is not None:
        choice = replace(chosen, reason=f"{variable} says so")
    elif backend in study.runners:
        choice = replace(study.runners[backend], reason="the study says so")
    elif backend in preferences:
        choice = replace(preferences[backend], reason=f"{user_configuration()} says so")
    else:
        choice = _automatic(backend, apptainer_offered=apptainer_offered)
    if backend == "openai" and choice.runner != "local":
        _check_servers_image(study, choice)
    return choice


def _check_servers_image(study: Study, choice: RunnerChoice) -> None:
    """Refuse a container for a server that runs already, and one of an image nobody named.

    Raises:
        ConfigurationError: it is one of these.
    """
    message = None
    if any(experiment.model.external_server for experiment in study.experiments):
        message = "openai.base_url is of a server that already runs; its runner can only be local"
    elif choice.image is None:
        message = f"name the image that has the server: {choice.runner}:IMAGE"
    if message is not None:
        raise ConfigurationError(Problem(message, key="runners.openai", found=str(choice)))


def _automatic(backend: BackendName, *, apptainer_offered: bool) -> RunnerChoice:
    if backend == "openai":
        return RunnerChoice(reason="automatic: no server is put into an image that nobody names")
    if apptainer_offered:
        return RunnerChoice("apptainer", reason="automatic: --use-apptainer was given")
    modules = ENGINES[backend].modules
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if not missing:
        return RunnerChoice(reason=f"automatic: {' and '.join(modules)} can be imported here")
    because = f"automatic: {', '.join(missing)} cannot be imported here"
    runner = automatic_container_runner()
    command = apptainer_command() if runner == "apptainer" else docker_command()
    if command is None:
        return RunnerChoice(
            reason=f"{because}, and neither is Docker, Podman or Apptainer installed"
        )
    return RunnerChoice(runner, reason=f"{because}, {command} is installed")


def apptainer_command() -> str | None:
    """Return the name of Apptainer's command here; None if there is none."""
    return next((name for name in ("apptainer", "singularity") if shutil.which(name)), None)


def docker_command() -> str | None:
    """Return ``$LLEM_DOCKER``, else ``docker`` or ``podman``, whichever is here; else None."""
    names = [os.environ["LLEM_DOCKER"]] if os.environ.get("LLEM_DOCKER") else ["docker", "podman"]
    return next((name for name in names if shutil.which(name)), None)


def automatic_container_runner() -> RunnerName:
    """Return the runner for an image here: ``apptainer`` where there is only that, or SLURM.

    Where somebody named the command by ``$LLEM_DOCKER``, it is what jobs can use too.
    """
    is_named = bool(os.environ.get("LLEM_DOCKER"))
    prefers_apptainer = docker_command() is None or (shutil.which("sbatch") and not is_named)
    return "apptainer" if apptainer_command() and prefers_apptainer else "docker"


def _require_compatible_local_backends(local: list[BackendName]) -> None:
    clashing = [name for name in local if name in ENGINES and ENGINES[name].needs_own_environment]
    if len(clashing) < 2:
        return
    raise ConfigurationError(
        Problem(
            f"{' and '.join(clashing)} would run in this one environment, but each needs its own "
            f"torch and CUDA libraries; give all but one a container: {clashing[1]}: "
            f"{automatic_container_runner()}",
            key="runners",
        )
    )
