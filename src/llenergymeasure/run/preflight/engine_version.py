"""Whether the engine installed here is the release that the study's settings were checked against.

A study is checked where it is planned, against one release's parameters; it may run in an image or
environment with another. What that one does not know it refuses itself, in its own words, before
it loads a model.
"""

from collections.abc import Iterator
from importlib.metadata import packages_distributions, version

from llenergymeasure.config.engine_parameters import ENGINES, load
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem


def check_engine_version(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that the engine installed here is another release than the one checked against."""
    if config.backend not in ENGINES:
        return
    checked = load(config.backend)
    package = checked["x-package"]
    distributions = packages_distributions().get(package)
    if not distributions:
        return  # The backend itself says what is missing.
    here = version(distributions[0]).partition("+")[0]
    if here != checked["x-version"]:
        yield Problem(
            f"{package} {here}, installed here, is not the {checked['x-version']} that settings "
            "were checked against",
            key="backend",
            fatal=False,
        )
