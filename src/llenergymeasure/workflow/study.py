"""The study that a Snakemake process has open: its plan, its files and its hooks."""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, LlemError
from llenergymeasure.files import locked, write_if_changed
from llenergymeasure.plan import Plan, make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.manifest import write_manifest
from llenergymeasure.workflow.markers import keep_finished
from llenergymeasure.workflow.source import workflow_root
from llenergymeasure.workload.studies import load_study, study_from_mapping

PLAN_VARIABLE = "LLEM_PLAN"
"""Names the plan to the Snakemake processes that this one starts on other machines."""

OWNER = "a Snakemake workflow"


class OpenStudy:
    """What the rules ask for. Paths are relative to Snakemake's working directory."""

    def __init__(self, plan: Plan, folder: StudyFolder) -> None:
        self._plan = plan
        self._folder = folder
        self._runs = {(run.experiment, str(run.cycle)): run for run in plan.runs}
        self._backends = {run.experiment: run.backend for run in plan.runs}
        self._lock = ExitStack()
        self.python = sys.executable
        self.folder = str(folder.path)
        self.plan_file = str(folder.plan)

    def file(self, name: str) -> str:
        """Return the path of one of the study's own files."""
        return f"{self.folder}/{name}"

    def run_file(self, name: str) -> str:
        """Return the pattern of a run's file, with wildcards ``experiment`` and ``cycle``."""
        return f"{self.folder}/runs/{{experiment}}/{{cycle}}/{name}"

    def run_folder(self, experiment: str, cycle: str) -> str:
        """Return the folder of one run."""
        return f"{self.folder}/runs/{experiment}/{cycle}"

    def results(self) -> list[str]:
        """Return every planned run's record, in the planned order."""
        return [
            f"{self.folder}/runs/{run.experiment}/{run.cycle}/result.json"
            for run in self._plan.runs
        ]

    def tables(self) -> list[str]:
        """Return the study's tables."""
        return [self.file(name) for name in ("runs.parquet", "summary.parquet", "summary.csv")]

    def report(self) -> str:
        """Return the page that a person reads."""
        return self.file("report.html")

    def priority(self, experiment: str, cycle: str) -> int:
        """Return a run's priority: with one core, runs start in the planned order."""
        run = self._runs.get((experiment, cycle))
        return 0 if run is None else len(self._plan.runs) - run.order + 1

    def script(self, experiment: str) -> str:
        """Return the script that measures an experiment's backend."""
        return self.source(f"scripts/measure_{self._backends[experiment]}.py")

    def source(self, name: str) -> str:
        """Return a file that came with the workflow, wherever it is installed."""
        return str(workflow_root() / name)

    def main_pid(self, *_: Any) -> int:
        """Return the process that a run must not outlive."""
        return os.getpid()

    def begin(self) -> None:
        """Take the study for this process: refuse a second workflow, write the manifest.

        Raises:
            StudyLockedError: another workflow is at work on the same folder.
        """
        with _as_workflow_error():
            self._lock.enter_context(locked(self._folder.lock, OWNER))
            write_manifest(self._plan, self._folder)

    def end(self, _log: Any = None) -> None:
        """Bring manifest and tables up to date and say what came out.

        Where runs are missing the tables are written all the same, over what completed, with a
        time stamp so old that the next call makes them anew.
        """
        from llenergymeasure.analysis.tables import write_tables
        from llenergymeasure.report.page import write_report
        from llenergymeasure.report.text import study_text

        runs = write_manifest(self._plan, self._folder)
        if any(run["status"] != "completed" for run in runs):
            write_tables(self._folder.path, partial=True)
            write_report(self._folder.path, partial=True)
        if not os.environ.get("LLEM_QUIET"):
            print(study_text(self._folder.path), file=sys.stderr, flush=True)


def open_study(workflow: Any, config: Mapping[str, Any]) -> OpenStudy:
    """Load the study that Snakemake was given and make its plan.

    The main process alone writes the plan; those it starts on other machines read it.

    Args:
        workflow: Snakemake's workflow object.
        config: its configuration; the study itself under ``module:``.

    Raises:
        WorkflowError: the study cannot be used; the message says why, and nothing was written.
    """
    with _as_workflow_error():
        handed = os.environ.get(PLAN_VARIABLE)
        if not workflow.is_main_process and handed:
            plan = Plan.read(Path(handed))
            return OpenStudy(plan, StudyFolder(Path(handed).parent))
        study = _load(workflow, config)
        plan = make_plan(study)
        folder = StudyFolder(Path(study.results_root) / study.name)
        if workflow.is_main_process:
            _write_plan(plan, folder)
            os.environ[PLAN_VARIABLE] = str(folder.plan)
        return OpenStudy(plan, folder)


def _load(workflow: Any, config: Mapping[str, Any]) -> Any:
    """Return the study from ``--configfile``, from a module's config, or the default one."""
    overrides = dict(workflow.config_settings.config)
    given = list(workflow.overwrite_configfiles)
    if _is_module(workflow):
        return study_from_mapping(dict(config), origin=None)
    if len(given) > 1:
        names = ", ".join(str(path) for path in given)
        raise ConfigurationError(f"one study at a time: --configfile names {names}")
    if given:
        return load_study(Path(given[0]), overrides)
    default = Path("config/config.yaml")
    if not default.is_file():
        default = workflow_root() / "config" / "config.yaml"
    return load_study(default, overrides)


def _is_module(workflow: Any) -> bool:
    """Return whether another workflow's Snakefile is the one that was started."""
    main = Path(str(workflow.main_snakefile)).resolve()
    root = workflow_root().resolve()
    return main not in {root / "Snakefile", root / "workflow" / "Snakefile"}


def _write_plan(plan: Plan, folder: StudyFolder) -> None:
    """Write the plan if its bytes changed, and keep what finished in spite of a crash.

    A plan that is at work is left alone: the same plan passes, another one is refused.
    """
    content = plan.to_json_bytes()
    if folder.plan.is_file() and folder.plan.read_bytes() == content and _is_locked(folder):
        return
    with locked(folder.lock, OWNER):
        write_if_changed(folder.plan, content)
        keep_finished(folder.path)


def _is_locked(folder: StudyFolder) -> bool:
    try:
        with locked(folder.lock, OWNER):
            return False
    except LlemError:
        return True


class _as_workflow_error:  # noqa: N801 - reads as a context manager
    """Turn our errors into Snakemake's, which it prints without a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, LlemError):
            from snakemake.exceptions import WorkflowError

            raise WorkflowError(str(error)) from None
