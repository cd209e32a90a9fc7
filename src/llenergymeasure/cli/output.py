"""How much a command says, and how: ``-q`` leaves the result and errors, ``-v`` shows more."""

import json
import logging
import sys
import warnings
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Level(IntEnum):
    """How much is said."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_level = Level.NORMAL


def level() -> Level:
    """Return how much this command says."""
    return _level


def set_level(new_level: Level) -> None:
    """Say so much from here on; other libraries are heard with ``-v`` alone."""
    global _level
    _level = new_level
    if new_level == Level.VERBOSE:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def _quiet(is_set: bool) -> None:
    if is_set:
        set_level(Level.QUIET)


def _verbose(is_set: bool) -> None:
    if is_set and _level == Level.QUIET:
        raise typer.BadParameter("give -q or -v, not both")
    if is_set:
        set_level(Level.VERBOSE)


def _option(*names: str, callback: Any, help_text: str) -> Any:
    """Return an option that every command has and no command's function takes."""
    return typer.Option(*names, callback=callback, expose_value=False, help=help_text)


QuietOption = Annotated[
    bool, _option("--quiet", "-q", callback=_quiet, help_text="print only the result and errors")
]
VerboseOption = Annotated[
    bool,
    _option(
        "--verbose",
        "-v",
        callback=_verbose,
        help_text="also print what libraries log, and where errors come from",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="Snakemake profile that says where runs go, such as slurm", metavar="PROFILE"
    ),
]
StudyArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="STUDY", help="a study's file or results folder; default: the last one run"
    ),
]


def note(text: str) -> None:
    """Say what is no result: to standard error, unless ``-q`` was given."""
    if _level > Level.QUIET:
        print(text, file=sys.stderr, flush=True)


def print_raw(text: str) -> None:
    """Print a document for programs: its lines are not wrapped, whatever the terminal."""
    stream = sys.stdout
    getattr(stream, "write_unwrapped", stream.write)(text)


def print_json(value: Any) -> None:
    """Print a value for programs."""
    print_raw(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def split_names(text: str | None) -> Sequence[str]:
    """Return names that were given with commas between them."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
