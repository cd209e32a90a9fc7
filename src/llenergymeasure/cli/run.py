"""``llem run``: a study, or one model, to its printed result."""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llenergymeasure.cli.live import Live
from llenergymeasure.cli.output import Level, ProfileOption, level, note
from llenergymeasure.cli.plan import plan_lines
from llenergymeasure.config import strict_yaml
from llenergymeasure.config.backends.facts import parameter_names
from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.merge_settings import NotASectionError, assign
from llenergymeasure.config.preferences import FOLDER_VARIABLE
from llenergymeasure.config.study import Study
from llenergymeasure.config.study_document import (
    check_document,
    document_from,
    parse_overrides,
    read_document,
    with_overrides,
)
from llenergymeasure.containers.runner_choice import choose_runners
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, Problem
from llenergymeasure.files import locked, write_text
from llenergymeasure.machine.folders import why_not_writable
from llenergymeasure.plan import left_out_lines
from llenergymeasure.report.formatting import count_text
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.workflow.complete_study import complete_study
from llenergymeasure.workflow.manifest import open_runs, write_manifest
from llenergymeasure.workflow.precision_target import plan_study, precision
from llenergymeasure.workflow.recovery import damage_messages
from llenergymeasure.workflow.resume import StudyCall, store_call
from llenergymeasure.workflow.snakemake_process import LOG_NAME, OWNER, Call
from llenergymeasure.workflow.snakemake_profile import forecast_for, job_request, misfits
from llenergymeasure.workload.arrivals import trace_lines
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from llenergymeasure.workload.prompts import check_files

SINGLE_MODEL_PROMPTS = 10
"""For one number on the spot: a study's default of 100 would take minutes on a CPU."""


def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY.yaml", help="the study file")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="measure one model instead of a study")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="pytorch, vllm, …")] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", help="number of prompts; default for one model: 10")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="requests per batch")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16")] = None,
    dataset: Annotated[str | None, typer.Option(help="synthetic, a file, or a data set ID")] = None,
    max_input_tokens: Annotated[
        int | None, typer.Option(help="limit of a prompt, in tokens")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(help="length of an answer, in tokens")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="pretrained or random")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="auto, quick, standard or publication")
    ] = None,
    cycles: Annotated[int | None, typer.Option(help="repetitions of each experiment")] = None,
    order: Annotated[
        str | None,
        typer.Option(
            help="order of the runs: sequential, interleaved, shuffled, reverse or latin_square"
        ),
    ] = None,
    no_gaps: Annotated[bool, typer.Option("--no-gaps", help="no pauses between runs")] = False,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="set any key of a study, also one that its file sets"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what would run, without running it")
    ] = False,
    profile: ProfileOption = None,
) -> int:
    """Run a study, or one model.

    A completed run is never measured again: after a failure or an interruption, the same command
    runs only what is missing. For one number: llem run --model tiny-llama
    """
    settings = {
        "model": model,
        "backend": backend,
        "n": n,
        "precision": precision,
        "dataset": dataset,
        "max_input_tokens": max_input_tokens,
        "max_output_tokens": max_output_tokens,
        "weights": weights,
        "protocol": protocol,
        "execution.n_cycles": cycles,
        "execution.cycle_order": order,
    }
    set_values = parse_overrides(more or ())
    if no_gaps:
        set_keys = dict(leaves(set_values))
        gaps = ("execution.experiment_gap_seconds", "execution.cycle_gap_seconds")
        settings |= {key: 0 for key in gaps if key not in set_keys}
    overrides = {key: value for key, value in settings.items() if value is not None}
    if batch_size is not None:
        overrides |= _batch_sizes(batch_size, study, overrides | set_values)
    for key in overrides.keys() & set_values.keys():
        raise ConfigurationError(Problem("is given by an option and by --set; keep one", key=key))
    overrides |= set_values
    if study is not None and model is not None:
        raise ConfigurationError("give either a study file or --model, not both")
    if study is None and "model" not in overrides:
        raise ConfigurationError("say what to run: a STUDY.yaml, or --model with a model's name")
    if study is not None:
        call = StudyCall(study, overrides, profile)
        return run_call(call, load_study(study, overrides), dry_run=dry_run)
    model_study = study_from_mapping(_single_model_study(overrides))
    call = StudyCall(StudyFolder.for_study(model_study).path / "study.yaml", {}, profile)
    if "name" not in overrides:
        _refuse_another_model(call.study_file, model_study)
    return run_call(call, model_study, dry_run=dry_run, write=True)


def experiment_ids(study: Study) -> set[str]:
    """Return the ids of a study's experiments."""
    return {experiment.id for experiment in study.experiments}


def run_call(
    call: StudyCall, study: Study, *, dry_run: bool, write: bool = False, root: Path | None = None
) -> int:
    """Run a study.

    Args:
        call: how it is started.
        study: what to run.
        dry_run: only show it.
        write: whether there is no file of it yet.
        root: where its results go whatever it says; None for where it says.
    """
    request = job_request(call.profile)
    study = choose_runners(study, apptainer_offered=False)
    environment = {} if root is None else {FOLDER_VARIABLE: str(root)}
    if root is not None:
        study = replace(study, results_root=root)
    file_notes = check_files(experiment.model for experiment in study.experiments)
    folder = StudyFolder.for_study(study)
    plan = plan_study(study, folder)
    plan = replace(plan, notes=(*plan.notes, *file_notes))
    if dry_run:
        print("\n".join(plan_lines(plan, call.profile, study.notify)))
        return EXIT_OK
    reason = why_not_writable(Path())
    if reason is not None:
        message = (
            f"{reason}: Snakemake keeps its state where you are; go to a folder of yours that "
            "has room"
        )
        raise ConfigurationError(Problem(message, file=Path.cwd()))
    with locked(folder.lock, OWNER) as lock:
        if write:
            write_text(call.study_file, strict_yaml.dump(study.written))
        reuse_notes = store_call(folder, call)
        runs = write_manifest(plan, folder)
        to_do = sum(run["status"] != "completed" for run in runs)
        note(
            f"{study.name}: {count_text(len(plan.runs), 'run')}, {to_do} to do, into {folder.path}"
        )
        notes = [f"Note: {text}" for text in plan.notes]
        configs = (experiment.config for experiment in study.experiments) if to_do else ()
        traces = trace_lines(configs)
        for line in (*reuse_notes, *damage_messages(runs), *left_out_lines(plan), *traces, *notes):
            note(line)
        if request is not None and to_do:
            note(f"  {request.description}")
            for problem in misfits(plan, request, forecast_for(request)):
                note(f"Does not fit: {problem}")
        snakemake_call = Call(call.settings, call.profile, environment=environment)
        tables = folder.path / SUMMARY_NAME
        old_version = _file_version(tables)
        view = Live(folder)
        code, complaint = complete_study(study, call.study_file, folder, view, snakemake_call, lock)
    last_line = ""
    if level() == Level.VERBOSE and (folder.path / LOG_NAME).is_file():
        sys.stderr.write((folder.path / LOG_NAME).read_text(errors="replace"))
    else:
        start = max(0, f"\n{complaint}".rfind("\nllem: "))  # of our own words, which come last
        sys.stderr.write(complaint[:start])
        last_line = complaint[start:].lstrip("\n")
    if to_do == 0 and code == EXIT_OK:
        note("Nothing to be done: every run is complete.")
    final_plan = plan_study(study, folder)
    precision_state = precision(final_plan, folder, open_runs(final_plan, folder))
    if precision_state is not None:
        note(str(precision_state))
    # After a failure those that are there may be of an earlier call.
    if not complaint or _file_version(tables) not in (None, old_version):
        code = _print_results(folder, code)
    sys.stderr.write(last_line)
    return code


def _file_version(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written, by no clock of ours; None if there is none."""
    state = path.stat() if path.is_file() else None
    return state and (state.st_ino, state.st_ctime_ns)


def _batch_sizes(size: int, study: Path | None, overrides: Mapping[str, Any]) -> dict[str, int]:
    """Return the batch size of each engine that is used, by what the engine calls it."""
    backend = overrides.get("backend", "pytorch")
    backends = backend if isinstance(backend, list) else [backend]
    if study is not None:
        backends = check_document(with_overrides(read_document(study), overrides)).used_backends
        if dict(leaves(overrides)).keys() & {
            parameter_names(name).requests_at_once for name in backends
        }:
            # What is left out needs none, so it may be set there.
            experiments = load_study(study, overrides).experiments
            backends = [experiment.model.backend for experiment in experiments]
    keys = {parameter_names(name).requests_at_once: size for name in map(str, backends)}
    return {key or "pytorch.batch_size": size for key in keys}


def _single_model_study(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study file that says the same as the command line, one cycle unless asked."""
    name = "run-" + re.sub(r"[^A-Za-z0-9._-]+", "-", str(settings["model"])).strip("-.")[:60]
    defaults = {"name": name, "n": SINGLE_MODEL_PROMPTS, "execution": {"n_cycles": 1}}
    defaults |= {"base": settings["base"]} if "base" in settings else {}
    overrides = {key: value for key, value in settings.items() if key != "base"}
    document = with_overrides(document_from(defaults, None), overrides)
    values = {key: value for key, value in document.values.items() if key != "base"}
    try:
        return assign(values, document.overrides)
    except NotASectionError as error:
        raise ConfigurationError(Problem(str(error), key=".".join(error.path))) from None


def _refuse_another_model(study_file: Path, new_study: Study) -> None:
    """Refuse a folder that another model's name made: its tables would become this one's."""
    if not study_file.is_file():
        return
    model = new_study.written["model"]
    old_model = (strict_yaml.read(study_file)[0] or {}).get("model")
    with suppress(ConfigurationError):
        old_study = study_from_mapping({**new_study.written, "model": old_model})
        if experiment_ids(old_study) == experiment_ids(new_study):
            return
    place = study_file.parent
    message = f"{place} holds the results of {old_model}; --set name=NAME keeps {model} apart"
    raise ConfigurationError(Problem(message, key="--model"))


def _print_results(folder: StudyFolder, code: int) -> int:
    """Print the study's text and return the exit code: 1 too if every run was disqualified."""
    from llenergymeasure.parquet import read_parquet
    from llenergymeasure.report.plain_text import study_text

    tables = [folder.path / name for name in (RUNS_NAME, SUMMARY_NAME)]
    if not all(path.is_file() for path in tables):
        return code
    print(study_text(folder.path), flush=True)
    if (page := folder.path / "report.html").is_file():
        print(f"Report: {page}", flush=True)
    if code != EXIT_OK:
        return code
    summary = read_parquet(folder.path / SUMMARY_NAME, ["n", "n_disqualified"]).to_pydict()
    if sum(summary["n_disqualified"]) and not sum(summary["n"]):
        print("llem: every run was disqualified; the report says why", file=sys.stderr)
        return EXIT_FAILED
    return code
