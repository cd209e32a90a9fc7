"""The study that a Snakemake process has open: its plan, its files and its hooks."""

import atexit
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.containers.images import sif_image
from llenergymeasure.errors import LlemError, PreflightError, Problem, ResultsError, as_message
from llenergymeasure.files import locked
from llenergymeasure.installation import workflow_root
from llenergymeasure.machine.cpu_share import AT_ONCE_VARIABLE
from llenergymeasure.machine.gpus.allotment import gpus_needed
from llenergymeasure.machine.scheduler import without_filters
from llenergymeasure.plan import Plan
from llenergymeasure.plan.trust import trust_lines
from llenergymeasure.processes import safe_path_variables
from llenergymeasure.results.layout import RUNS_NAME, TABLE_NAMES, WILDCARD, StudyFolder
from llenergymeasure.run.circuit_breaker import Circuit
from llenergymeasure.run.gpu_reservation import restore_leftover_limits
from llenergymeasure.run.pin import pin_options
from llenergymeasure.run.preflight.model_checks import check_models_available
from llenergymeasure.screen import printable, say
from llenergymeasure.units import BackendName
from llenergymeasure.workflow.executor_patches import guard_executors
from llenergymeasure.workflow.manifest import write_manifest
from llenergymeasure.workflow.notify import notify_of_end, warn_of_missing_variables
from llenergymeasure.workflow.precision_target import precision
from llenergymeasure.workflow.recovery import mark_lost
from llenergymeasure.workflow.run_commands import RunCommands, ShellCommand
from llenergymeasure.workflow.slurm_jobs import (
    EARLIER_JOBS_PREFIX,
    QueueWatch,
    cancel_jobs_and_wait,
    has_squeue,
    queued_jobs,
)
from llenergymeasure.workflow.storage import Storage

DRIVEN_VARIABLE = "LLEM_DRIVEN"
"""Set for Snakemake by ``llem``, which offers Apptainer by itself where a study asks for it."""

OWNER = "a Snakemake workflow"

SERVERS_NOT_SHARED = "Servers are not shared here: several runs go at a time, or on other machines"

QUEUE_NOT_WATCHED = (
    "The queue is not watched, as squeue is not here: a job that vanishes may be waited for"
)


@contextmanager
def as_workflow_error() -> Iterator[None]:
    """Turn our errors into one of Snakemake's, which it prints without where it was raised."""
    try:
        yield
    except (LlemError, OSError) as error:
        from snakemake.exceptions import WorkflowError

        class StudyError(WorkflowError):  # type: ignore[misc]
            """The reason why a study cannot be run."""

            __traceback__ = property(lambda _: None, lambda _, _traceback: None)

        raise StudyError(printable(as_message(error))) from None


class SnakemakeStudy:
    """What the Snakefile and its rules use. Paths are relative to Snakemake's working directory.

    Snakemake calls a function once for every job, which takes time, so what all runs share is given
    as a value.
    """

    def __init__(
        self, plan: Plan, folder: StudyFolder, workflow: Any, notify: NotifyConfig | None = None
    ) -> None:
        self._plan = plan
        self._notify = notify
        self._folder = folder
        self._workflow = workflow
        self._runs = {(run.experiment, str(run.cycle)): run for run in plan.runs}
        self._backends = {run.experiment: run.backend for run in plan.runs}
        self._lock = ExitStack()
        self._circuit = Circuit(folder.circuit)
        self.storage = Storage.of(workflow, folder)
        self.python = sys.executable
        self.folder = str(folder.path)
        self.plan_file = str(folder.plan)
        self._apptainer_offered = apptainer_offered(workflow)
        self._parallel_runs = _parallel_runs(workflow)
        if workflow.is_main_process:
            os.environ.update(safe_path_variables())
        # Runs that go in parallel, or on several machines, cannot share a server.
        self._is_sequential = self._parallel_runs == 1 and workflow.resource_settings.nodes is None
        self._commands = RunCommands(plan, folder, apptainer_offered=self._apptainer_offered)
        self.image_pattern = self._local_file(self._commands.image_pattern())

    def file(self, name: str) -> str:
        """Return the path of one of the study's own files, which is on this machine."""
        return self._local_file(f"{self.folder}/{name}")

    def _local_file(self, path: str) -> str:
        """Return a path marked as local: Snakemake would otherwise look for it in the storage."""
        from snakemake.io import local

        return path if self.storage is None else local(path)

    def run_file(self, name: str) -> str:
        """Return the pattern of a run's file, with wildcards ``experiment`` and ``cycle``."""
        return f"{self.folder}/runs/{{experiment}}/{{cycle}}/{name}"

    def run_files(self) -> list[str]:
        """Return the patterns of a run's files next to its record, which a storage has to transfer.

        On a shared folder only the record is declared; it holds the others' hashes.
        """
        files = self._folder.run("{experiment}", "{cycle}")
        return [] if self.storage is None else [str(path) for path in files.products[1:]]

    def run_logs(self) -> list[str]:
        """Return the patterns of the files that even a failed run leaves, for a storage."""
        files = self._folder.run("{experiment}", "{cycle}")
        return [] if self.storage is None else [str(files.attempts), str(files.log)]

    def results(self) -> list[str]:
        """Return every planned run's record, in the planned order.

        With a storage, records that are already here are not fetched.
        """
        paths = [str(self._folder.run(run.experiment, run.cycle).result) for run in self._plan.runs]
        if self.storage is None:
            return paths
        return [self._local_file(path) if Path(path).is_file() else path for path in paths]

    def plan_input(self) -> list[str]:
        """Return the plan as an input, so that tables are made again after it changed.

        In a dry run there may be no plan yet.
        """
        return [self._local_file(self.plan_file)] if Path(self.plan_file).is_file() else []

    def merged(self, _wildcards: Any) -> list[str]:
        """Return the inputs of the tables."""
        if self._tables_are_older_than_the_plan():
            # Snakemake takes an output of any age for up to date if its inputs have the same
            # checksums as before: after a failure the partial tables would stay although the study
            # is complete again. So time stamps alone decide. This also affects a user's own rules
            # that use this workflow as a module, so it is only done when needed.
            self._workflow.dag.max_checksum_file_size = 0
        return self.results()

    def _tables_are_older_than_the_plan(self) -> bool:
        if not self._folder.plan.is_file():  # a dry run of a study that never ran
            return False
        planned_ns = self._folder.plan.stat().st_mtime_ns
        paths = [self._folder.path / name for name in (*TABLE_NAMES, "report.html")]
        return any(path.is_file() and path.stat().st_mtime_ns < planned_ns for path in paths)

    def tables(self, suffix: str = "") -> list[str]:
        """Return the study's tables, or those whose names end in ``suffix``."""
        return [self.file(name) for name in TABLE_NAMES if name.endswith(suffix)]

    def priority(self, experiment: str, cycle: str) -> int:
        """Return a run's priority: with one core, runs start in the planned order."""
        run = self._runs.get((experiment, cycle))
        return 0 if run is None else len(self._plan.runs) - run.order + 1

    def threads(self) -> int:
        """Return a run's share of the cores: as many runs go at once as have a GPU.

        On a cluster the job's own resources decide.
        """
        return max(1, (self._workflow.resource_settings.cores or 1) // self._parallel_runs)

    def resources(self) -> dict[str, Any]:
        """Return a run's resources: on this machine one slot, on a cluster its GPUs."""
        settings = self._workflow.resource_settings
        if settings.nodes is None:
            return {"gpu": 1}
        gpus = {run.experiment: gpus_needed(run.config) for run in self._plan.runs}
        resources: dict[str, Any] = {"gpu": _one_or_by_experiment(gpus)}
        defaults = {
            name: str(getattr(value, "raw", value)).strip("'\"")
            for name, value in dict(settings.default_resources or {}).items()
        }
        options = pin_options(self._plan, self._folder, defaults.get("slurm_partition"))
        slurm_extra = defaults.get("slurm_extra", "")
        node_options = ("-w", "--nodelist", "-F", "--nodefile")
        has_node = any(word.startswith(node_options) for word in slurm_extra.split())
        if options and not has_node and self._workflow.is_main_process:
            resources["slurm_extra"] = _one_or_by_experiment(
                {run: f"{slurm_extra} {options.get(run, '')}".strip() for run in gpus}
            )
        return resources

    def start(self) -> ShellCommand | Callable[[Any], ShellCommand]:
        """Return the shell command that starts a run, up to the run's name and folder."""
        words = ["--spec", self.plan_file, "--watch", str(os.getpid())]
        if self._plan.execution.get("share_server") and self._is_sequential:
            words.append("--share")
        arguments = shlex.join(words)

        def start_command(backend: BackendName) -> ShellCommand:
            return ShellCommand(f"exec {shlex.join(self._commands.command(backend))} {arguments}")

        backends = set(self._backends.values())
        if len(backends) == 1 and all(run.runner == "local" for run in self._plan.runs):
            return start_command(backends.pop())
        return lambda wildcards: start_command(self._backends[wildcards.experiment])

    def container(self) -> str | Callable[[Any], str | None] | None:
        """Return the image that Snakemake starts a run in; None for none.

        Snakemake ignores it without --use-apptainer.
        """
        if not self._apptainer_offered:
            image = sif_image(self._plan.runs[0].backend, None).location
            return None if WILDCARD.search(image) else image
        return lambda wildcards: self._commands.container(self._backends[wildcards.experiment])

    def image(self) -> list[str] | Callable[[Any], list[str]]:
        """Return the images that have to be built before a run, whatever their time stamps."""
        from snakemake.io import ancient

        images = {name: self._commands.built_image(name) for name in set(self._backends.values())}
        if not any(images.values()):
            return []
        return lambda wildcards: [
            ancient(path) for path in images[self._backends[wildcards.experiment]]
        ]

    def source(self, name: str) -> str:
        """Return a file that came with the workflow, wherever it is installed."""
        return str(workflow_root() / name)

    @as_workflow_error()
    def begin(self) -> None:
        """Lock the study for this process, check what runs need, and write the manifest.

        Containers are checked here, before the first run; each run checks its own machine.

        Raises:
            StudyLockedError: another workflow is running on the same folder.
            PreflightError: a container that runs need cannot be used.
        """
        self._lock.enter_context(study_lock(self._folder))
        atexit.register(self._lock.close)
        if self.storage is not None and self._workflow.local_exec:
            text = "a storage is for runs on other machines; leave it out, or name an executor"
            raise PreflightError(Problem(text, key="--default-storage-provider"))
        named_jobs = guard_executors(self._workflow, self._folder, self.storage)
        os.environ.pop(AT_ONCE_VARIABLE, None)
        if not self._workflow.local_exec:  # a job on a cluster has its own share
            self._prepare_cluster(named_jobs=named_jobs)
        elif self._parallel_runs > 1:
            os.environ[AT_ONCE_VARIABLE] = str(self._parallel_runs)
        if not os.environ.get(DRIVEN_VARIABLE):
            warn_of_missing_variables(self._notify, say)
            for line in trust_lines(self._plan, self._notify):
                say(line)
        if self._plan.execution.get("share_server") and not self._is_sequential:
            say(SERVERS_NOT_SHARED)
        states = self._update_states()
        if any(state["status"] == "completed" for state in states):
            self._circuit.remove()
        else:
            self._circuit.close(len({state["experiment"] for state in states}))
        to_do = {state["experiment"] for state in states if state["status"] != "completed"}
        if to_do and not self._plan.execution.get("skip_preflight"):
            runs = {run.experiment: run for run in self._plan.runs if run.experiment in to_do}
            backends = dict.fromkeys(run.backend for run in runs.values())
            self._commands.check(backends, runs_here=bool(self._workflow.local_exec))
            if not os.environ.get(DRIVEN_VARIABLE):
                configs = [run.config for run in runs.values()]
                for line in check_models_available(configs, in_jobs=not self._workflow.local_exec):
                    say(line)

    def _update_states(self) -> list[dict[str, Any]]:
        """Return every run's state while none is running, and write the manifest."""
        states = write_manifest(self._plan, self._folder)
        lost = mark_lost(states, self._folder)
        return write_manifest(self._plan, self._folder) if lost else states

    def _prepare_cluster(self, *, named_jobs: bool) -> None:
        """End the jobs that a killed workflow left in the queue, and watch the new ones."""
        if getattr(self._workflow.executor_settings, "array_jobs", None):
            text = (
                "all tasks of a job array get the first one's resources, and most are never "
                "submitted where jobs are submitted at a rate; leave it out"
            )
            raise PreflightError(Problem(text, key="--slurm-array-jobs"))
        unfiltered = without_filters(os.environ)  # Snakemake's executor asks SLURM too
        for name in os.environ.keys() - unfiltered.keys():
            del os.environ[name]
        os.environ.update(unfiltered)
        earlier_jobs = queued_jobs(self._folder, in_cluster=named_jobs)
        if earlier_jobs:
            say(
                f"{EARLIER_JOBS_PREFIX} are ended first, as they would measure next to new ones: "
                f"{len(earlier_jobs)} in SLURM's queue"
            )
            cancel_jobs_and_wait(earlier_jobs)
        if named_jobs and has_squeue():  # without squeue all jobs would seem to be gone
            QueueWatch(self._folder).start()
        elif named_jobs:
            say(QUEUE_NOT_WATCHED)
        if "gpu" in dict(self._workflow.resource_settings.resources):
            say(
                f"The whole cluster has {self._parallel_runs} GPU of work at a time, for resources "
                "say so: take the profile with --workflow-profile, or --resources without gpu"
            )

    def _tables_are_stale(self) -> bool:
        from llenergymeasure.analysis.tables import outdated_reason

        if not (self._folder.path / RUNS_NAME).is_file():
            return True
        try:
            return outdated_reason(self._folder.path) is not None
        except ResultsError:  # damaged
            return True

    @as_workflow_error()
    def end(self, _log: Any = None) -> None:
        """Bring manifest and tables up to date, and print the results.

        GPU limits of a run whose supervisor was killed are put back first.

        If runs are missing, the tables are still written from the completed ones, with a time stamp
        so old that the next call makes them again.
        """
        from llenergymeasure.analysis.tables import write_tables
        from llenergymeasure.report.page import PAGE_NAME, write_report
        from llenergymeasure.report.plain_text import study_text

        restore_leftover_limits()
        open_count = sum(run["status"] != "completed" for run in self._update_states())
        # After an interruption in the last run Snakemake starts no further rule.
        if open_count or self._tables_are_stale():
            write_tables(self._folder.path, partial=True)
            write_report(self._folder.path, partial=True)
        if not os.environ.get(DRIVEN_VARIABLE):  # ``llem`` prints it itself
            say(study_text(self._folder.path))
            broken = self._circuit.broken_reason()
            for message in (precision(self._plan, self._folder, open_count), broken):
                if message is not None:
                    say(str(message))
            if (page := self._folder.path / PAGE_NAME).is_file():
                say(f"Report: {page}")
            notify_of_end(self._notify, self._plan, self._folder, broken, say)
        self._circuit.remove()


def _one_or_by_experiment(values: Mapping[str, Any]) -> Any:
    """Return the experiments' value if they share one; otherwise a function of the wildcards."""
    distinct = set(values.values())
    return distinct.pop() if len(distinct) == 1 else lambda wildcards: values[wildcards.experiment]


def _parallel_runs(workflow: Any) -> int:
    """Return how many runs may go at once on this machine: K of ``--resources gpu=K``."""
    limit = dict(workflow.resource_settings.resources).get("gpu")
    value = getattr(limit, "value", limit)
    return max(1, value) if isinstance(value, int) else 1


def apptainer_offered(workflow: Any) -> bool:
    """Return whether ``--use-apptainer`` was given, by one of its names."""
    from snakemake_interface_executor_plugins.settings import DeploymentMethod

    return DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method


def study_lock(folder: StudyFolder) -> AbstractContextManager[Any]:
    """Return the study's lock as a context; an empty one if ``llem``, our parent, holds it."""
    if os.environ.get(DRIVEN_VARIABLE):
        return nullcontext()
    return locked(folder.lock, OWNER)
