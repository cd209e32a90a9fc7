"""Whether a run's files are still those that its experiment's id was taken from."""

import math
from collections.abc import Iterator
from contextlib import suppress

from llenergymeasure.config.identity import Identifier, local_files
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.results.layout import RunFolder

_NAMED = 5
_LOGS = ("nohup.out", "slurm-*.out", "*.log")
"""What may grow in a model's folder that is the working folder."""


def check_unchanged(spec: RunSpec, folder: RunFolder) -> Iterator[Problem]:
    """Yield that a data set or another file has changed since the study was planned.

    Asked once they have been read. Nothing is hashed where no file is newer than the plan, nor
    where that is not seen, as from a container of the engine alone. One that is newer
    may have other rights alone. What goes away, or changes once it was read, is not found; nor
    is a log in a folder by itself.
    """
    plan = folder.study.plan
    planned_ns = plan.stat().st_mtime_ns if plan.is_file() else math.inf
    with suppress(ConfigurationError, OSError):  # one that is gone is found by who reads it
        read = local_files(spec.config, inside=True)
        newer = [path for path in read if path.stat().st_ctime_ns > planned_ns]
        named = set(local_files(spec.config))
        logs = [path for path in newer if path not in named and any(map(path.match, _LOGS))]
        changed = [path for path in newer if path not in logs]
        if not changed:
            return
        identify = Identifier()
        same = identify.experiment_id(spec.config) == spec.experiment
        identify.save()
        if not same:
            names = ", ".join(map(str, changed[:_NAMED]))
            kept = f"; logs count too, keep them elsewhere: {logs[0]}" if logs else ""
            yield Problem(
                "what this experiment reads has changed since the study was planned, which makes "
                f"another experiment of it; start the study again; newer than the plan: {names}"
                f"{kept}"
            )
