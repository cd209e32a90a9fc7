"""Whether the engine installed here is the release that the study's settings were checked against.

A study is checked where it is planned, against a catalogue of one release; it may run in an image
or environment with another. What that one does not know fails here, before any GPU time, and what
it has otherwise stands in the run's record.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from llenergymeasure.config.catalogue.comparing import running_differences
from llenergymeasure.config.catalogue.reading.engines import PACKAGES
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError, Problem

SHOWN = 8
_WHATS = {"added": "more", "removed": "missing", "altered": "altered"}


def check_engine_version(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield what the engine installed here has otherwise; nothing where it is the catalogue's."""
    package = PACKAGES.get(config.backend)
    if package is None or find_spec(package) is None:
        return  # The backend itself says what is missing.
    try:
        differences: Mapping[str, Any] | None = running_differences(config.backend)
    except ConfigurationError as error:
        message = f"which settings it knows could not be read: {error}"
        yield Problem(message, key="backend", fatal=False)
        return
    if differences is None or not any(differences[what] for what in _WHATS):
        return
    here = f"{package} {differences['engine_version']}, installed here,"
    yield _summary(here, differences)
    for key, name in _set(config):
        if name in differences["removed"]:
            version = differences["catalogue_version"]
            yield Problem(
                f"{here} has no such setting; remove it, or install {package} {version}", key=key
            )
        elif name in differences["altered"]:
            message = f"{here} has it otherwise: {differences['altered'][name]}"
            yield Problem(message, key=key, fatal=False)


def _summary(here: str, differences: Mapping[str, Any]) -> Problem:
    parts = [
        f"{len(differences[what])} {words}{_names(list(differences[what]))}"
        for what, words in _WHATS.items()
        if differences[what]
    ]
    return Problem(
        f"{here} is not the {differences['catalogue_version']} that settings were checked "
        f"against: {'; '.join(parts)}",
        key="backend",
        fatal=False,
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f" ({', '.join(names[:SHOWN])}{more})"


def _set(config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    """Yield each setting of the backend's section: its key in a study, its name in a catalogue."""
    section: Any = getattr(config, config.backend)
    if section is None:
        return
    given = section.model_dump(exclude_none=True)
    for part in ("engine", "sampling"):
        for name in given.get(part) or ():
            yield f"{config.backend}.{part}.{name}", f"{part}.{name}"
    if config.backend == "pytorch":
        for name in given:
            yield from ((f"pytorch.{name}", f"{part}.{name}") for part in ("loading", "generation"))
