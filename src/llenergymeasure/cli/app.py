"""The command's entry: every subcommand by name; each imports what it needs when called."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import llenergymeasure
from llenergymeasure.cli.talk import with_verbosity
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK


class App(typer.Typer):
    """Commands that all take ``-q`` and ``-v``."""

    def command(self, *names: Any, **options: Any) -> Callable[[Any], Any]:
        """Register a command, as ``typer.Typer.command`` does, with the two options added."""
        register = super().command(*names, **options)
        return lambda command: register(with_verbosity(command))


app = App(
    name="llem",
    help="Measure what LLM inference costs in energy, with error bars.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ProfileOption = Annotated[
    str | None,
    typer.Option(help="where the runs go: a Snakemake profile, such as slurm", metavar="PROFILE"),
]
StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study file")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"llem {llenergymeasure.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Measure what LLM inference costs in energy, with error bars."""


@app.command()
def run(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.yaml]", help="a study to run to its report")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="one model, in place of a study")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="pytorch, vllm, …")] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", help="how many prompts; for one model 10")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="requests at once (pytorch)")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="synthetic, a file, or a data set's id")
    ] = None,
    max_input_tokens: Annotated[int | None, typer.Option()] = None,
    max_output_tokens: Annotated[int | None, typer.Option()] = None,
    weights: Annotated[str | None, typer.Option(help="pretrained or random")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="auto, quick, standard or publication")
    ] = None,
    cycles: Annotated[int | None, typer.Option(help="repetitions of each experiment")] = None,
    order: Annotated[str | None, typer.Option(help="order of the runs")] = None,
    no_gaps: Annotated[bool, typer.Option("--no-gaps", help="no rests between runs")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would run, and run nothing")
    ] = False,
    profile: ProfileOption = None,
) -> None:
    """Run a study, or one model.

    What is complete is never measured again: the same command after a failure or an
    interruption makes what is missing.
    """
    from llenergymeasure.cli.run import run_command

    settings = {
        "model": model,
        "backend": backend,
        "n": n,
        "pytorch.batch_size": batch_size,
        "precision": precision,
        "dataset": dataset,
        "max_input_tokens": max_input_tokens,
        "max_output_tokens": max_output_tokens,
        "weights": weights,
        "protocol": protocol,
        "execution.n_cycles": cycles,
        "execution.cycle_order": order,
    }
    if no_gaps:
        settings |= {"execution.experiment_gap_seconds": 0, "execution.cycle_gap_seconds": 0}
    given = {key: value for key, value in settings.items() if value is not None}
    raise typer.Exit(run_command(study, given, dry_run=dry_run, profile=profile))


@app.command()
def resume(
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]", help="a study's file or results folder; default: the last one run"
        ),
    ] = None,
    profile: ProfileOption = None,
) -> None:
    """Go on with a study that was interrupted.

    Makes what is missing and tries again what failed, with the options of the last time.
    """
    from llenergymeasure.cli.run import resume_command

    raise typer.Exit(resume_command(study, profile))


@app.command()
def plan(
    study: StudyArgument,
    profile: ProfileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show what a study would run, and what is left out.

    Prints the runs in order, each point that was left out with its reason, and how long it may
    take; with a cluster's profile, also what does not fit into its jobs. Nothing is run.
    """
    from llenergymeasure.cli.plan import plan_command

    plan_command(study, as_json=as_json, profile=profile)


@app.command()
def status(
    study: Annotated[Path, typer.Argument(help="a study's file or its results folder")],
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="read every run's files, changed or not")
    ] = False,
) -> None:
    """Print what is done, running, failed or missing."""
    from llenergymeasure.cli.results import status_command

    status_command(study, as_json=as_json, full=full)


@app.command()
def skip(
    study: Annotated[Path, typer.Argument(help="a study's file or its results folder")],
) -> None:
    """End the rest before the run at work."""
    from llenergymeasure.cli.skip import skip_command

    raise typer.Exit(skip_command(study))


@app.command()
def clean(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY|RESULTS]",
            help="a study, its results, or a folder of results; default: results",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show what killed runs left behind, and remove it.

    Processes, cluster jobs, containers, locks, temporary files and half-written results. What is
    finished and what is at work is never touched.
    """
    from llenergymeasure.cli.clean import clean_command

    raise typer.Exit(clean_command(path, yes=yes, as_json=as_json))


@app.command()
def results(
    studies: Annotated[
        list[Path], typer.Argument(metavar="STUDY …", help="studies' files or results folders")
    ],
    group_by: Annotated[
        str | None, typer.Option(help="columns whose values make a group, comma-separated")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="what is averaged; default energy_per_output_token_j")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(help="average over these all the same: gpu_name, driver_version, …"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="for spreadsheets")] = False,
) -> None:
    """Print the summary table of a study, or means by any factor over one study or several."""
    from llenergymeasure.cli.results import results_command

    results_command(
        studies, group_by=group_by, metric=metric, pool=pool, as_json=as_json, as_csv=as_csv
    )


@app.command()
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="a study; with --study, an experiment's id")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="what is compared with A")],
    study: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="the study that both experiments are of")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="exit with 1 if so, e.g. 'energy_per_output_token_j > 1.02' (B over A)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Compare two studies experiment by experiment, or two experiments of one study."""
    from llenergymeasure.cli.compare import compare_command

    passed = compare_command(a, b, study=study, fail_if=fail_if or [], as_json=as_json)
    raise typer.Exit(EXIT_OK if passed else EXIT_FAILED)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="a study file or results folder")],
) -> None:
    """Make a study's tables and report anew from the runs that are there, and print where."""
    from llenergymeasure.cli.report import report_command

    report_command(path)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="a study file or results folder")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="markdown, latex, citation, energy-score or ro-crate",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="the file to write; else standard output")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="quantities of a table, comma-separated, by their names in summary.csv"),
    ] = None,
) -> None:
    """Write a study's results in the forms that papers and other tools read."""
    from llenergymeasure.cli.export import export_command

    export_command(path, form, out, columns)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="a study file or results folder")],
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Recompute every figure of a study from its raw samples, and say which do not match."""
    from llenergymeasure.cli.verify import verify_command

    raise typer.Exit(EXIT_OK if verify_command(path, as_json=as_json) else EXIT_FAILED)


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False})
def meter(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND …", help="what to measure")],
    json_path: Annotated[
        Path | None, typer.Option("--json", help="write the readings here")
    ] = None,
    samples_path: Annotated[
        Path | None, typer.Option("--samples", help="keep the time series here (Parquet)")
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="GPUs by index or UUID, comma-separated; default all")
    ] = None,
    no_align: Annotated[
        bool, typer.Option("--no-align", help="do not rest before the command and after it")
    ] = False,
    require: Annotated[
        bool, typer.Option("--require", help="exit with 2 if nothing can be measured")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="the GPUs' gains against an external meter"),
    ] = None,
) -> None:
    """Measure the energy of any command, as perf stat does."""
    from llenergymeasure.cli.meter import run_meter

    code = run_meter(
        command,
        json_path=json_path,
        samples_path=samples_path,
        devices=devices,
        align=not no_align,
        require=require,
        calibration_path=calibration,
    )
    raise typer.Exit(code)


@app.command(context_settings={"allow_interspersed_args": False})
def sensors(
    load: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND …]",
            help="with --characterise: what makes the GPUs work in bursts, in place of PyTorch",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    characterise: Annotated[
        bool,
        typer.Option(
            "--characterise",
            help="find how each GPU's sensor behaves, in about 70 s of load, and keep it",
        ),
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option(help="with --characterise: keep the recording here (Parquet)"),
    ] = None,
    devices: Annotated[
        str | None, typer.Option(help="GPUs by index or UUID, comma-separated; default all")
    ] = None,
) -> None:
    """List the sensors of this machine, how well they do, and what is missing and why."""
    from llenergymeasure.cli.sensors import sensors_command

    if load and not characterise:
        raise typer.BadParameter("a COMMAND is for --characterise; to meter one: llem meter")
    if samples is not None and not characterise:
        raise typer.BadParameter("--samples keeps the recording of --characterise")
    code = sensors_command(
        as_json=as_json,
        characterise=characterise,
        devices=devices,
        load=load or (),
        samples=samples,
    )
    raise typer.Exit(code)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Say what works on this machine, and how to mend the rest.

    Ends with 1 if something that is here or needed does not work.
    """
    from llenergymeasure.cli.doctor import doctor_command

    raise typer.Exit(doctor_command(as_json=as_json))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="[STUDY.yaml]", help="where to write it")] = Path(
        "study.yaml"
    ),
    defaults: Annotated[bool, typer.Option("--defaults", help="ask nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="write over what is there")] = False,
) -> None:
    """Write a study of your own from a few questions."""
    from llenergymeasure.cli.init import init_command

    init_command(path, defaults=defaults, force=force)


@app.command()
def config(
    backend: Annotated[str, typer.Argument(help="pytorch, vllm, sglang or tensorrt")],
    pattern: Annotated[
        str | None, typer.Argument(help="part of a name, or words of the help")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Look up what a study can set of an engine."""
    from llenergymeasure.cli.catalogue import config_command

    config_command(backend, pattern, as_json=as_json)


@app.command()
def prefs(
    key: Annotated[
        str | None, typer.Argument(help="one setting, such as output_dir or runners.pytorch")
    ] = None,
    value: Annotated[str | None, typer.Argument(help="what to set it to")] = None,
    unset: Annotated[bool, typer.Option("--unset", help="take KEY out of the file")] = False,
    show_origin: Annotated[
        bool, typer.Option("--show-origin", help="say where each value is from")
    ] = False,
    study: Annotated[
        Path | None, typer.Option(help="as they are in force for this study", metavar="STUDY.yaml")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Show and set your own settings, and see where each is from."""
    from llenergymeasure.cli.prefs import prefs_command

    prefs_command(key, value, unset=unset, show_origin=show_origin, study=study, as_json=as_json)


@app.command()
def catalogue(
    backend: Annotated[str, typer.Argument(help="pytorch, vllm, sglang or tensorrt")],
    wheel: Annotated[
        Path | None, typer.Option(help="a wheel of the engine, or a folder it is unpacked in")
    ] = None,
    installed: Annotated[
        bool, typer.Option("--installed", help="read the engine that is installed here")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="where to write; default: this program's own catalogue")
    ] = None,
) -> None:
    """Read an engine's knobs from its release.

    Nothing of it is imported. Without options it says what is known.
    """
    from llenergymeasure.cli.catalogue import catalogue_command

    catalogue_command(backend, wheel=wheel, installed=installed, out=out)


engines = App(no_args_is_help=True, help="Show and remove compiled engines of TensorRT-LLM.")
app.add_typer(engines, name="engines")


@engines.command("list")
def engines_list(
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """List the engines that are kept between runs, the one used last first."""
    from llenergymeasure.cli.engines import list_command

    list_command(as_json=as_json)


@engines.command("prune")
def engines_prune(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[ENGINE]…", help="how they begin; default: all")
    ] = None,
    unused_days: Annotated[
        float | None, typer.Option(min=0, help="only those no run has loaded for so long")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove them, not only show them")] = False,
) -> None:
    """Show which engines would be removed; with --yes, remove them."""
    from llenergymeasure.cli.engines import prune_command

    raise typer.Exit(prune_command(names or [], unused_days=unused_days, yes=yes))
