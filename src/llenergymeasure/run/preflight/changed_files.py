"""Whether a run's files are still those that its experiment's id was taken from."""

import math
from collections.abc import Iterator
from contextlib import suppress

from llenergymeasure.config.identity import Identifier, local_files
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.results.layout import RunFolder


def check_unchanged(spec: RunSpec, folder: RunFolder) -> Iterator[Problem]:
    """Yield that a data set or another file has changed since the study was planned.

    Asked once they have been read. Nothing is hashed where no file is newer than the plan, nor
    where that is not seen, as from a container of the engine alone. One that is newer
    may have other rights alone.
    """
    plan = folder.study.plan
    planned_ns = plan.stat().st_mtime_ns if plan.is_file() else math.inf
    with suppress(ConfigurationError):  # one that is gone is found by who reads it
        newer = [path for path in local_files(spec.config) if path.stat().st_ctime_ns > planned_ns]
        if newer and Identifier().experiment_id(spec.config) != spec.experiment:
            names = ", ".join(map(str, newer))
            yield Problem(
                "what this experiment reads has changed since the study was planned, which makes "
                "another experiment of it; start the study again (a folder of it may be what has "
                f"changed); newer than the plan: {names}"
            )
