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
from llenergymeasure.config.backends.facts import names_of
from llenergymeasure.config.dotted import leaves
from llenergymeasure.config.merging import NotASectionError, assigned
from llenergymeasure.config.preferences import FOLDER_VARIABLE
from llenergymeasure.config.study import Study
from llenergymeasure.config.study_document import (
    checked,
    document_from,
    overridden,
    parse_overrides,
    read_document,
)
from llenergymeasure.containers.runner_choice import with_runners
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, Problem
from llenergymeasure.files import locked, write_text
from llenergymeasure.machine.folders import why_not_writable
from llenergymeasure.plan import left_out_lines
from llenergymeasure.report.formatting import counted
from llenergymeasure.results.layout import RUNS_NAME, SUMMARY_NAME, StudyFolder
from llenergymeasure.workflow.complete_study import complete_study
from llenergymeasure.workflow.manifest import open_runs, write_manifest
from llenergymeasure.workflow.precision_target import plan_study, precision
from llenergymeasure.workflow.profile import forecast_for, job_request, misfits
from llenergymeasure.workflow.recovery import damage_messages
from llenergymeasure.workflow.resume import (
    StudyCall,
    remember,
)
from llenergymeasure.workflow.snakemake_process import LOG_NAME, OWNER, Call
from llenergymeasure.workload.arrivals import trace_lines
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from llenergymeasure.workload.prompts import check_files

PROMPTS_OF_ONE = 10
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
    named = parse_overrides(more or ())
    if no_gaps:
        own = dict(leaves(named))
        gaps = ("execution.experiment_gap_seconds", "execution.cycle_gap_seconds")
        settings |= {key: 0 for key in gaps if key not in own}
    given = {key: value for key, value in settings.items() if value is not None}
    sizes = {} if batch_size is None else _batch_sizes(batch_size, study, given | named)
    for key in (given | sizes).keys() & named.keys():
        raise ConfigurationError(Problem("is given by an option and by --set; keep one", key=key))
    given |= sizes | named
    if study is not None and model is not None:
        raise ConfigurationError("give either a study file or --model, not both")
    if study is None and "model" not in given:
        raise ConfigurationError("say what to run: a STUDY.yaml, or --model with a model's name")
    if study is not None:
        call = StudyCall(study, given, profile)
        return run_call(call, load_study(study, given), dry_run=dry_run)
    one = study_from_mapping(_study_of_one(given))
    call = StudyCall(StudyFolder.of(one).path / "study.yaml", {}, profile)
    if "name" not in given:
        _refuse_another_model(call.study_file, one)
    return run_call(call, one, dry_run=dry_run, write=True)


def experiment_ids(study: Study) -> set[str]:
    """Return the ids of a study's experiments."""
    return {each.id for each in study.experiments}


def run_call(
    call: StudyCall,
    study: Study,
    *,
    dry_run: bool,
    write: bool = False,
    root: Path | None = None,
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
    study = with_runners(study, apptainer_offered=False)
    place = {} if root is None else {FOLDER_VARIABLE: str(root)}
    if root is not None:
        study = replace(study, results_root=root)
    found = check_files(each.model for each in study.experiments)
    folder = StudyFolder.of(study)
    plan = plan_study(study, folder)
    if dry_run:
        shown = replace(plan, notes=(*plan.notes, *found))
        print("\n".join(plan_lines(shown, call.profile, study.notify)))
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
            write_text(call.study_file, strict_yaml.written(study.written))
        shared = remember(folder, call)
        runs = write_manifest(plan, folder)
        to_do = sum(run["status"] != "completed" for run in runs)
        note(f"{study.name}: {counted(len(plan.runs), 'run')}, {to_do} to do, into {folder.path}")
        notes = [f"Note: {each}" for each in (*plan.notes, *found)]
        traces = trace_lines(each.config for each in study.experiments) if to_do else ()
        for line in (*shared, *damage_messages(runs), *left_out_lines(plan), *traces, *notes):
            note(line)
        if request is not None and to_do:
            note(f"  {request.description}")
            for problem in misfits(plan, request, forecast_for(request)):
                note(f"Does not fit: {problem}")
        how = Call(call.settings, call.profile, environment=place)
        tables = folder.path / SUMMARY_NAME
        before = _version(tables)
        code, complaint = complete_study(study, call.study_file, folder, Live(folder), how, lock)
    last = ""
    if level() == Level.VERBOSE and (folder.path / LOG_NAME).is_file():
        sys.stderr.write((folder.path / LOG_NAME).read_text(errors="replace"))
    else:
        words, mark, last = f"\n{complaint}".rpartition("\nllem: ")
        sys.stderr.write(f"{words}\n".removeprefix("\n") if mark else "")
        last = mark.lstrip() + last.lstrip("\n")
    if to_do == 0 and code == EXIT_OK:
        note("Nothing to be done: every run is complete.")
    longest = plan_study(study, folder)
    reached = precision(longest, folder, open_runs(longest, folder))
    if reached is not None:
        note(str(reached))
    # After a failure those that are there may be of an earlier call.
    if not complaint or _version(tables) not in (None, before):
        code = _print_results(folder, code)
    sys.stderr.write(last)
    return code


def _version(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written, by no clock of ours; None if there is none."""
    state = path.stat() if path.is_file() else None
    return state and (state.st_ino, state.st_ctime_ns)


def _batch_sizes(size: int, study: Path | None, given: Mapping[str, Any]) -> dict[str, int]:
    """Return the batch size of each engine that is used, by what the engine calls it."""
    one = given.get("backend", "pytorch")
    used = one if isinstance(one, list) else [one]
    if study is not None:
        used = checked(overridden(read_document(study), given)).used_backends
        if dict(leaves(given)).keys() & {names_of(name).requests_at_once for name in used}:
            # What is left out needs none, so it may be set there.
            used = [each.model.backend for each in load_study(study, given).experiments]
    found = {names_of(name).requests_at_once: size for name in map(str, used)}
    return {key or "pytorch.batch_size": size for key in found}


def _study_of_one(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study file that says the same as the command line, one cycle unless asked."""
    name = "run-" + re.sub(r"[^A-Za-z0-9._-]+", "-", str(settings["model"])).strip("-.")[:60]
    start = {"name": name, "n": PROMPTS_OF_ONE, "execution": {"n_cycles": 1}}
    start |= {"base": settings["base"]} if "base" in settings else {}
    given = {key: value for key, value in settings.items() if key != "base"}
    document = overridden(document_from(start, None), given)
    values = {key: value for key, value in document.values.items() if key != "base"}
    try:
        return assigned(values, document.overrides)
    except NotASectionError as error:
        raise ConfigurationError(Problem(str(error), key=".".join(error.path))) from None


def _refuse_another_model(study_file: Path, one: Study) -> None:
    """Refuse a folder that another model's name made: its tables would become this one's."""
    if not study_file.is_file():
        return
    model, held = one.written["model"], (strict_yaml.read(study_file)[0] or {}).get("model")
    with suppress(ConfigurationError):
        if experiment_ids(study_from_mapping({**one.written, "model": held})) == experiment_ids(
            one
        ):
            return
    message = (
        f"{study_file.parent} holds the results of {held}; --set name=NAME keeps {model} apart"
    )
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
