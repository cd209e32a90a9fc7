"""Runs on machines that share no folder with this one: their files pass through a storage.

Snakemake's storage plugins carry what the rule ``measure`` declares. This process keeps the same
results folder as without a storage: a run's files are copied into it when its job ends.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llenergymeasure.config.identity import local_files
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import replacing
from llenergymeasure.plan import Plan
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.complete import is_complete
from llenergymeasure.results.layout import RunFolder, StudyFolder
from llenergymeasure.screen import say


class Storage:
    """Snakemake's ``--default-storage-provider``."""

    def __init__(self, workflow: Any, folder: StudyFolder) -> None:
        self._provider = workflow.storage_registry.default_storage_provider
        self._prefix = (workflow.storage_settings.default_storage_prefix or "").rstrip("/")
        self._folder = folder

    @classmethod
    def of(cls, workflow: Any, folder: StudyFolder) -> "Storage | None":
        """Return the storage that runs' files pass through; None where folders are shared."""
        is_set = workflow.storage_settings.default_storage_provider is not None
        return cls(workflow, folder) if is_set else None

    def fetch(self, runs: Iterable[Mapping[str, Any]]) -> None:
        """Copy runs' files from the storage, unless the runs are complete here."""
        for state in runs:
            run = self._folder.run(state["experiment"], state["cycle"])
            try:
                if not is_complete(run):
                    self._fetch(run)
            except Exception as error:  # a plugin may raise anything; the next call tries again
                reason = without_secrets(str(error))
                say(f"{run.path}: is not brought from the storage: {reason}")

    def _fetch(self, run: RunFolder) -> None:
        record = self._object(run.result)
        has_record = record.exists()
        # The record last, as when it is written: it holds the others' hashes.
        for path in (
            run.log,
            run.attempts,
            run.outcome,
            *reversed(run.products if has_record else ()),
        ):
            stored = self._object(path)
            if stored.exists():
                with TemporaryDirectory() as temporary_folder, replacing(path) as temporary:
                    stored.set_local_path(Path(temporary_folder, path.name))
                    stored.retrieve_object()
                    shutil.copyfile(stored.local_path(), temporary)
        if has_record and not is_complete(run):
            say(f"{record.query}: not whole in the storage; removed, and its run is measured again")
            record.remove()
            run.result.unlink(missing_ok=True)

    def _object(self, path: Path) -> Any:
        return self._provider.object(f"{self._prefix}/{os.path.normpath(path)}")


def send_inputs(workflow: Any, plan: Plan, folder: StudyFolder) -> None:
    """Send the plan and the files that runs read to other machines, with the workflow's sources.

    Raises:
        ConfigurationError: something could not be sent, or is for one machine alone.
    """
    local = {path for run in plan.runs for path in local_files(run.config)}
    files = [folder.plan, *sorted(path for path in local if not path.is_absolute())]
    problems = [
        Problem(
            "without a shared folder only what is below the working folder reaches the jobs; "
            "work in a clone of the workflow, with study and results in it",
            found=str(path),
        )
        for path in (workflow.main_snakefile, *workflow.overwrite_configfiles, *files)
        if not Path(path).resolve().is_relative_to(Path.cwd().resolve())
    ]
    runners = sorted({run.runner for run in plan.runs} - {"local"})
    if runners:
        problems.append(
            Problem(
                "without a shared folder a run is in the container that its job is in: leave the "
                "runners out, and give the executor the image",
                key="runners",
                found=", ".join(runners),
            )
        )
    if problems:
        raise ConfigurationError(problems)
    workflow.configfiles += [str(path) for path in files]
