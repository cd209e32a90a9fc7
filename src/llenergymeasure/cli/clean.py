"""``llem clean``: what killed runs and workflows left, shown first, removed when agreed."""

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.cli.find_study import studies_in, study_folder
from llenergymeasure.cli.output import JsonOption, print_json
from llenergymeasure.config.preferences import preferred_folder
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, LlemError, Problem
from llenergymeasure.files import locked
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow.clean import Leftover, compiled_engines, leftovers, machine_leftovers

OWNER = "llem clean"
_MAX_SHOWN = 40


def clean(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="STUDY|RESULTS",
            help="a study, its results, or a folder of results; default: that of your studies",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="remove without asking")] = False,
    engines: Annotated[
        bool,
        typer.Option(
            "--engines",
            help="also remove compiled TensorRT-LLM engines that no run is loading",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Show what killed runs left behind, and remove it.

    Processes, servers, cluster jobs, containers, files with the hub's token, temporary files,
    unfinished results, GPU limits. Finished and running work is never touched.
    """
    with ExitStack() as locks:
        items: list[Leftover] = []
        for folder in _folders(path):
            locks.enter_context(locked(folder.lock, OWNER))
            items += leftovers(folder)
        items += [*machine_leftovers(), *(compiled_engines() if engines else ())]
        if as_json:
            print_json([item.as_dict() for item in items])
        else:
            _show(items)
        if not items or (as_json and not yes):
            return EXIT_OK
        if not yes and not sys.stdin.isatty():
            print("Nothing is removed: --yes removes it.")
        elif yes or input("Remove? [y/N] ").strip().lower() in {"y", "yes"}:
            return _remove(items)
        return EXIT_OK


def _folders(path: Path | None) -> list[StudyFolder]:
    """Return the study's folder, or those of all studies below a folder of results."""
    root = path or preferred_folder(None)
    if path is None and not root.is_dir():
        return []
    if root.is_dir() and not (root / "plan.json").is_file():
        studies = studies_in(root)
        if path is not None and not studies:
            raise ConfigurationError(Problem("holds no results of any study", file=path))
        return studies
    return [study_folder(root)]


def _show(items: list[Leftover]) -> None:
    if not items:
        print("Nothing is left behind.")
        return
    for item in items[:_MAX_SHOWN]:
        print(f"{item.kind} {item.name}: {item.reason}")
    if len(items) > _MAX_SHOWN:
        print(f"… and {len(items) - _MAX_SHOWN} more")
    print(f"{len(items)} to remove, {sum(item.size_bytes for item in items) / 1e6:.1f} MB")


def _remove(items: Iterable[Leftover]) -> int:
    code = EXIT_OK
    for item in items:
        try:
            item.remove()
        except (LlemError, OSError) as error:
            print(f"llem: {item.kind} {item.name} stays: {error}", file=sys.stderr)
            code = EXIT_FAILED
    return code
