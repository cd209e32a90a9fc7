"""Opens the study that Snakemake was called with, and writes its plan."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from llenergymeasure.config.strict_yaml import parse
from llenergymeasure.containers.runner_choice import choose_runners
from llenergymeasure.errors import ConfigurationError, StudyLockedError
from llenergymeasure.files import read_bytes, write_if_changed
from llenergymeasure.installation import workflow_root
from llenergymeasure.plan import Plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import say
from llenergymeasure.workflow.manifest import states, write_manifest
from llenergymeasure.workflow.precision_target import plan_study
from llenergymeasure.workflow.recovery import (
    clear_leftovers,
    correct_times,
    damage_messages,
    keep_finished,
)
from llenergymeasure.workflow.resume import StudyCall, store_call
from llenergymeasure.workflow.snakemake_study import (
    DRIVEN_VARIABLE,
    SnakemakeStudy,
    apptainer_offered,
    as_workflow_error,
    study_lock,
)
from llenergymeasure.workflow.storage import Storage, send_inputs
from llenergymeasure.workload.load_study import load_study, study_from_mapping

PLAN_VARIABLE = "LLEM_PLAN"
"""Path of the plan, for Snakemake processes that this one starts on other machines."""

OVERRIDES_VARIABLE = "LLEM_OVERRIDES"
"""Overrides from ``llem``, as JSON: Snakemake's ``--config`` takes no dotted keys."""


@as_workflow_error()
def open_study(workflow: Any, config: Mapping[str, Any]) -> SnakemakeStudy:
    """Load the study that Snakemake was called with and make its plan.

    Only the main process writes the plan; those it starts on other machines read it. Snakemake's
    ``config`` is the study itself under ``module:``.

    Raises:
        WorkflowError: the study cannot be used; the message says why, and nothing was written.
    """
    plan_path = os.environ.get(PLAN_VARIABLE)
    if not workflow.is_main_process and plan_path:
        plan = Plan.read(Path(plan_path))
        return SnakemakeStudy(plan, StudyFolder(Path(plan_path).parent), workflow)
    # What llem adds by itself, for a study that asks for it, offers it to no other backend.
    is_offered = apptainer_offered(workflow) and not os.environ.get(DRIVEN_VARIABLE)
    study = choose_runners(_load_study(workflow, config), apptainer_offered=is_offered)
    folder = StudyFolder.for_study(study)
    plan = plan_study(study, folder)
    opened = SnakemakeStudy(plan, folder, workflow, study.notify)
    if workflow.is_main_process:
        if runs_nothing(sys.argv):
            for line in damage_messages(states(plan, folder)):
                say(line)
        else:
            if study.origin is not None and not os.environ.get(DRIVEN_VARIABLE):
                for line in store_call(folder, StudyCall(study.origin)):
                    say(line)
            prepare(plan, folder, opened.storage)
        if opened.storage is not None or not _is_module(workflow):  # there may be two studies
            os.environ[PLAN_VARIABLE] = str(folder.plan)
        if opened.storage is not None:
            send_inputs(workflow, plan, folder)
            workflow.register_envvars(PLAN_VARIABLE)
    return opened


def runs_nothing(arguments: Sequence[str]) -> bool:
    """Return whether Snakemake was called without running anything, as for a dry run.

    While the Snakefile is read, Snakemake does not yet know how it will execute.
    """
    # Letters may be combined, up to one that takes a value, as in ``-call``. Words with other
    # characters before that are values, as in ``--apptainer-args "-B /mnt/lustre"``.
    letter_groups = (
        re.match(r"-([^\W\d_scjCdeRPUOqwT]*)(?:[scjCdeRPUOqwT]|$)", word) for word in arguments
    )
    return not _READ_ONLY_OPTIONS.isdisjoint(word.partition("=")[0] for word in arguments) or any(
        match is not None and not set("nlSD").isdisjoint(match[1]) for match in letter_groups
    )


_READ_ONLY_OPTIONS = frozenset(
    {
        *("--dry-run", "--dryrun", "--lint", "--list-rules", "--list", "--list-target-rules"),
        *("--summary", "--detailed-summary", "--dag", "--rulegraph", "--filegraph", "--d3dag"),
        *("--list-changes", "--list-input-changes", "--list-params-changes", "--containerize"),
        *("--export-cwl", "--print-compilation", "--unlock", "--cleanup-metadata", "--archive"),
    }
)
"""Source: Snakemake 9, ``snakemake --help``."""


def _load_study(workflow: Any, config: Mapping[str, Any]) -> Any:
    """Return the study from ``--configfile``, from a module's config, or the default one."""
    overrides = config_settings(workflow.config_settings.config)
    overrides |= json.loads(os.environ.get(OVERRIDES_VARIABLE, "{}"))
    config_files = list(workflow.overwrite_configfiles)
    if _is_module(workflow):
        return study_from_mapping(dict(config), origin=None)
    if len(config_files) > 1:
        names = ", ".join(str(path) for path in config_files)
        raise ConfigurationError(f"one study at a time: --configfile names {names}")
    if config_files:
        # Snakemake makes it absolute; the plan's paths must be valid on other machines too.
        path = Path(config_files[0])
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return load_study(path, overrides)
    default = Path("config/config.yaml")
    if not default.is_file():
        default = workflow_root() / "config" / "config.yaml"
    return load_study(default, overrides)


def config_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``--config`` sets.

    ``--config`` accepts no name of one letter, so ``np`` stands for ``n``, the number of prompts.
    """
    return {"n" if key == "np" else key: _typed(value) for key, value in settings.items()}


def _typed(value: Any) -> Any:
    """Return a value of ``--config`` with its type: Snakemake passes plain scalars as text."""
    if isinstance(value, Mapping):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if isinstance(value, str):
        with suppress(ConfigurationError):
            return parse(value.encode())[0]
    return value


def _is_module(workflow: Any) -> bool:
    """Return whether this workflow is used as a module of another one."""
    main = Path(str(workflow.main_snakefile)).resolve()
    root = workflow_root().resolve()
    return main not in {root / "Snakefile", root / "workflow" / "Snakefile"}


def prepare(plan: Plan, folder: StudyFolder, storage: Storage | None = None) -> None:
    """Write the plan if its bytes changed, keep runs that finished before a crash, and clean up.

    While another workflow runs, the same plan is accepted and another one refused.
    """
    content = plan.to_json_bytes()
    with ExitStack() as stack:
        try:
            stack.enter_context(study_lock(folder))
        except StudyLockedError:
            if folder.plan.is_file() and read_bytes(folder.plan) == content:
                return
            raise
        write_if_changed(folder.plan, content)
        # Before Snakemake builds its DAG: it takes every record that exists for a finished run.
        runs = write_manifest(plan, folder)
        keep_finished(runs, folder)
        correct_times(runs, folder)
        for line in damage_messages(runs):
            say(line)
        clear_leftovers(runs, folder)
        if storage is not None:
            storage.fetch(run for run in runs if run["status"] != "completed")
