"""``llem run`` and ``llem resume``: a study, or one model, to its printed result."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llenergymeasure.cli.live import Live
from llenergymeasure.cli.plan import plan_lines
from llenergymeasure.cli.talk import Level, level, note
from llenergymeasure.config.preferences import preferred_folder
from llenergymeasure.config.study import Study
from llenergymeasure.containers.runner_choice import with_runners
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, Problem
from llenergymeasure.files import locked, write_text
from llenergymeasure.plan import left_out_lines
from llenergymeasure.plan.trust import runs_or_sends
from llenergymeasure.report.wording import counted
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.workflow.calls import StudyCall, last_called, recall, remember
from llenergymeasure.workflow.damaged import damaged
from llenergymeasure.workflow.drive import LOG_NAME, OWNER, Call
from llenergymeasure.workflow.manifest import open_runs, write_manifest
from llenergymeasure.workflow.profile import forecast_for, is_ours, job_request, misfits
from llenergymeasure.workflow.stopping import planned, precision
from llenergymeasure.workflow.whole import drive_study
from llenergymeasure.workload.studies import load_study, study_from_mapping

PROMPTS_OF_ONE = 10
"""For one number on the spot: a study's default of 100 would take minutes on a CPU."""


def run_command(
    study_file: Path | None,
    settings: Mapping[str, Any],
    *,
    dry_run: bool,
    profile: str | None = None,
) -> int:
    """Run a study with overrides, or a study of one made of ``settings``; return the exit code.

    Args:
        study_file: the study; null for one model.
        settings: what the command line sets, by dotted key.
        dry_run: only say what would run.
        profile: the Snakemake profile to run it under.

    Raises:
        ConfigurationError: neither or both were given, or the settings cannot be used.
    """
    if study_file is not None and "model" in settings:
        raise ConfigurationError("give either a study file or --model, not both")
    if study_file is None and "model" not in settings:
        raise ConfigurationError("say what to run: a STUDY.yaml, or --model with a model's name")
    if study_file is not None:
        call = StudyCall(study_file, settings, profile)
        return _run(call, load_study(study_file, settings), dry_run=dry_run)
    mapping = _study_of_one(settings)
    study = study_from_mapping(mapping)
    file = Path(study.results_root) / study.name / "study.yaml"
    return _run(StudyCall(file, {}, profile), study, dry_run=dry_run, mapping=mapping)


def resume_command(path: Path | None, profile: str | None) -> int:
    """Go on with a study: make what is missing and try again what failed; return the exit code.

    Args:
        path: its file or its results folder; null for the one that was started last here.
        profile: another profile than last time.

    Raises:
        ConfigurationError: there is no such study, or it is not for this user to resume unseen.
    """
    if path is None:
        root = preferred_folder(None)
        folder = last_called(root)
        if folder is None:
            raise ConfigurationError(f"no study was run here: there is none in {root}/")
        path = folder.path
    if path.is_dir():
        call = recall(StudyFolder(path))
        if call is None:
            message = "holds no study that `llem run` started; name the study's file"
            raise ConfigurationError(Problem(message, file=path))
    else:
        study = load_study(path)
        try:
            call = recall(StudyFolder(Path(study.results_root) / study.name))
        except ConfigurationError:  # its file has another name now: this one
            call = None
        if call is None or not call.study_file.samefile(path):
            call = StudyCall(path)
    if profile is None and call.profile is not None and not is_ours(call.profile):
        message = (
            f"was run with a profile that is not ours; --profile {call.profile} takes it again"
        )
        raise ConfigurationError(Problem(message, file=path))
    call = StudyCall(call.study_file, call.settings, profile or call.profile)
    note(f"Resuming {call}")
    return _run(call, load_study(call.study_file, call.settings), dry_run=False)


def _run(
    call: StudyCall, study: Study, *, dry_run: bool, mapping: Mapping[str, Any] | None = None
) -> int:
    """Run a study; ``mapping`` is what its file is to hold where there is none yet."""
    study = with_runners(study, apptainer_offered=False)
    folder = StudyFolder(Path(study.results_root) / study.name)
    plan = planned(study, folder)
    if dry_run:
        print("\n".join(plan_lines(plan, call.profile, study.notify)))
        return EXIT_OK
    with locked(folder.lock, OWNER) as lock:
        if mapping is not None:
            content = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True)
            write_text(call.study_file, content)
        remember(folder, call)
        runs = write_manifest(plan, folder)
        to_do = sum(run["status"] != "completed" for run in runs)
        note(f"{study.name}: {counted(len(plan.runs), 'run')}, {to_do} to do, into {folder.path}")
        told = runs_or_sends(plan, study.notify) if to_do else []
        for line in (*damaged(runs), *left_out_lines(plan), *told):
            note(line)
        request = job_request(call.profile)
        if request is not None and to_do:
            for problem in misfits(plan, request, forecast_for(request)):
                note(f"Does not fit: {problem}")
        how = Call(call.settings, call.profile)
        ended = drive_study(study, call.study_file, folder, Live(folder), how, lock)
    if level() == Level.VERBOSE and (folder.path / LOG_NAME).is_file():
        sys.stderr.write((folder.path / LOG_NAME).read_text(errors="replace"))
    else:
        sys.stderr.write(ended.complaint)
    if to_do == 0 and ended.code == EXIT_OK:
        note("Nothing to be done: every run is complete.")
    longest = planned(study, folder)
    reached = precision(longest, folder, open_runs(longest, folder))
    if reached is not None:
        note(str(reached))
    return _tell(folder, ended.code)


def _study_of_one(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study file that says the same as the command line, one cycle unless asked."""
    name = "run-" + re.sub(r"[^A-Za-z0-9._-]+", "-", str(settings["model"])).strip("-.")[:60]
    mapping: dict[str, Any] = {"name": name}
    for key, value in {"n": PROMPTS_OF_ONE, "execution.n_cycles": 1, **settings}.items():
        place = mapping
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return mapping


def _tell(folder: StudyFolder, code: int) -> int:
    """Print the study's text and return the exit code: 1 too if every run was disqualified."""
    from llenergymeasure.report.text import study_text

    tables = [folder.path / name for name in (RUNS_NAME, SUMMARY_NAME)]
    if not all(path.is_file() for path in tables):
        return code
    print(study_text(folder.path), flush=True)
    print(f"Report: {folder.path / 'report.html'}", flush=True)
    if code == EXIT_OK and _every_run_disqualified(folder):
        print("llem: every run was disqualified; the report says why", file=sys.stderr)
        return EXIT_FAILED
    return code


def _every_run_disqualified(folder: StudyFolder) -> bool:
    import pyarrow.parquet as pq

    summary = pq.read_table(folder.path / "summary.parquet", columns=["n", "n_disqualified"])
    in_means: int = sum(summary["n"].to_pylist())
    disqualified: int = sum(summary["n_disqualified"].to_pylist())
    return in_means == 0 and disqualified > 0
