"""How each run of a plan is started: its command, its image, its checks."""

import atexit
import functools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from llenergymeasure.backends.refusals import write_refusals_in_child
from llenergymeasure.containers.apptainer import call_variables, image_for_snakemake
from llenergymeasure.containers.container_setup import (
    ContainerSetup,
    image_variables,
    nvidia_here,
    worker_command,
)
from llenergymeasure.containers.images import SifImage, docker_image, image_folder, sif_image
from llenergymeasure.containers.mounts import Mount
from llenergymeasure.errors import ConfigurationError, PreflightError, Problem
from llenergymeasure.files import remove
from llenergymeasure.installation import workflow_root
from llenergymeasure.plan import Plan
from llenergymeasure.processes import python_module
from llenergymeasure.results.layout import UNUSABLE_NAME_REASON, WILDCARD, StudyFolder
from llenergymeasure.units import BackendName, RunnerName

IMAGE_LINKS = Path(".snakemake/llem-images")


class ShellCommand:
    """A shell command that holds this process's id.

    Snakemake would compare plain text with that of an earlier call, and measure again unless a
    profile forbids it.
    """

    def __init__(self, command: str) -> None:
        self._command = command

    def __str__(self) -> str:
        """Return the command."""
        return self._command


class RunCommands:
    """How the runs of each backend of a plan are started."""

    def __init__(self, plan: Plan, folder: StudyFolder, *, apptainer_offered: bool) -> None:
        """Take a plan; if it uses Apptainer, set the environment of Snakemake's calls of it.

        Raises:
            ConfigurationError: the plan asks for Apptainer and ``--use-apptainer`` is missing.
        """
        self._plan = plan
        self._folder = folder
        self._runners: dict[BackendName, RunnerName] = {
            run.backend: run.runner for run in plan.runs
        }
        self._sif_images = {
            backend: sif_image(backend, plan.images.get(backend))
            for backend, runner in self._runners.items()
            if runner == "apptainer"
        }
        self._meter_outside = plan.execution.get("meter") == "host"
        self.command = functools.cache(self._command)
        """Return the command of a backend's runs, up to the run's own arguments."""
        if self._sif_images and not apptainer_offered:
            self._refuse_silent_local_run()
        if self._sif_images:
            setup = self._setup
            built = [Mount(path) for path in self._folders_of_images_to_build()]
            mounts = (*setup.mounts, *built)
            os.environ.update(call_variables(mounts, setup.variables, nvidia=nvidia_here()))

    def _command(self, backend: BackendName) -> list[str]:
        runner = self._runners[backend]
        local = [sys.executable, str(workflow_root() / "scripts" / f"measure_{backend}.py")]
        if runner == "docker":
            launcher = self._launcher(backend, self._docker_image(backend))
            return [*local, *_engine_launcher_option(launcher)] if self._meter_outside else launcher
        if runner == "apptainer":
            image = self._sif_images[backend]
            variables = image_variables(image.location, image.digest())
            env = ["env", *(f"{key}={value}" for key, value in variables.items())]
            if not self._meter_outside:
                return [*env, *worker_command(backend)]
            return [*env, *local, *_engine_launcher_option(self._launcher(backend, image.location))]
        return local

    def _docker_image(self, backend: BackendName) -> str:
        return docker_image(backend, self._plan.images.get(backend))

    def _launcher(self, backend: BackendName, image: str) -> list[str]:
        return [
            *python_module("llenergymeasure.containers.launcher"),
            *("--runner", self._runners[backend], "--image", image),
        ]

    def container(self, backend: BackendName) -> str | None:
        """Return the image that Snakemake starts a backend's runs in; None for none."""
        image = self._sif_images.get(backend)
        return (
            None
            if image is None or self._meter_outside
            else image_for_snakemake(image, IMAGE_LINKS)
        )

    def built_image(self, backend: BackendName) -> list[str]:
        """Return the image that has to be built before a backend's first run, if any."""
        image = self._sif_images.get(backend)
        return [image.location] if image is not None and image.built_here else []

    def image_pattern(self) -> str:
        """Return the pattern of images that are built here, with the wildcard ``backend``.

        Raises:
            ConfigurationError: one is, and Snakemake cannot name its folder.
        """
        folder = str(image_folder())
        if WILDCARD.search(folder):
            if any(image.built_here for image in self._sif_images.values()):
                message = f"{folder}: {UNUSABLE_NAME_REASON}: choose another folder for images"
                raise ConfigurationError(Problem(message, key="LLEM_IMAGES"))
            folder = str(IMAGE_LINKS)
        return f"{folder}/{{backend}}.sif"

    def check(self, backends: Iterable[BackendName], *, runs_here: bool) -> None:
        """Check what these backends' runners need; look inside images only where runs will go.

        Raises:
            PreflightError: some cannot run here; all reasons at once.
        """
        from llenergymeasure.containers.container_checks import (
            check_apptainer,
            check_docker,
            check_local,
        )

        problems: list[Problem] = []
        for backend in backends:
            remove(self._folder.refusals_path(backend))  # from an earlier call, or another image
            image = self._sif_images.get(backend)
            if image is not None and not _is_unbuilt(image):
                problems += check_apptainer(backend, image, self._setup, probe=runs_here)
            elif self._runners[backend] == "docker":
                name = self._docker_image(backend)
                problems += check_docker(backend, name, self._setup, probe=runs_here)
            elif self._runners[backend] == "local" and runs_here:
                problems += check_local(backend)
                if not problems:
                    write_refusals_in_child(backend, self._folder)
        if problems:
            raise PreflightError(problems)

    def _folders_of_images_to_build(self) -> set[Path]:
        """Return the folders of images still to be built: their digests will be written there."""
        folders = {
            image.path.parent
            for image in self._sif_images.values()
            if image.path and _is_unbuilt(image)
        }
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    @functools.cached_property
    def _setup(self) -> ContainerSetup:
        configs = [run.config for run in self._plan.runs if run.runner != "local"]
        setup = ContainerSetup.for_runs(
            configs, self._folder.path, meter_inside=not self._meter_outside
        )
        atexit.register(setup.token.close)
        return setup

    def _refuse_silent_local_run(self) -> None:
        names = ", ".join(self._sif_images)
        reasons = self._plan.runner_reasons
        reason = "; ".join(reasons[name] for name in self._sif_images if name in reasons)
        raise ConfigurationError(
            Problem(
                f"{names} is to run in Apptainer ({reason}), but Snakemake was not asked to: add "
                "--use-apptainer, or choose another runner",
                key=f"runners.{next(iter(self._sif_images))}",
            )
        )


def _engine_launcher_option(launcher: list[str]) -> list[str]:
    """Return the option that makes a supervisor on this machine start its engine in a container."""
    return ["--engine-launcher", json.dumps(launcher)]


def _is_unbuilt(image: SifImage) -> bool:
    return image.built_here and image.path is not None and not image.path.exists()
