"""What the engines' modules have in common: versions, and what none of their own engines takes."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from llenergymeasure.config.catalogue.reserved import why_reserved
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed; none is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def adapter_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that an engine puts no adapter on its model, if one is asked for."""
    if config.lora is not None:
        yield Problem(
            "adapters are put on a model by the backend pytorch alone; merge it into the model's "
            "folder first",
            key="lora",
        )


def passthrough_problems(config: ExperimentConfig, ours: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what may not be passed through to an engine's arguments.

    Args:
        config: the experiment.
        ours: arguments that have a name of their own in a study, and which.
    """
    for name in config.passthrough_kwargs or {}:
        reason = why_reserved(f"{config.backend}.engine", name)
        if name in ours:
            reason = f"has a name of its own in a study; set {ours[name]}"
        if reason is not None:
            yield Problem(reason, key=f"passthrough_kwargs.{name}")
