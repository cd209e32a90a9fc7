"""How much a command says: ``-q`` leaves the result and errors, ``-v`` shows what is kept back."""

import functools
import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any

import typer

from llenergymeasure.screen import only_printable

Command = Callable[..., Any]


class Level(IntEnum):
    """How much is said."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="the result and errors only")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="what libraries say too, and where errors are from")
]

_OPTIONS: dict[str, Any] = {"quiet": Quiet, "verbose": Verbose}

_level = Level.NORMAL


def level() -> Level:
    """Return how much this command says."""
    return _level


def note(text: str) -> None:
    """Say what is no result: to standard error, unless ``-q`` was given."""
    if _level > Level.QUIET:
        print(text, file=sys.stderr, flush=True)


def with_verbosity(command: Command) -> Command:
    """Return ``command`` with ``-q`` and ``-v``, which it does not have to know of."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def told(*arguments: Any, quiet: bool = False, verbose: bool = False, **options: Any) -> Any:
        if quiet and verbose:
            raise typer.BadParameter("give -q or -v, not both")
        set_level(Level.QUIET if quiet else Level.VERBOSE if verbose else Level.NORMAL)
        with only_printable():
            return command(*arguments, **options)

    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _OPTIONS.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    setattr(told, "__signature__", signature.replace(parameters=parameters))  # noqa: B010
    told.__annotations__ = {**inspect.get_annotations(command), **_OPTIONS}
    return told


def set_level(new: Level) -> None:
    """Say so much from here on; other libraries are heard with ``-v`` alone."""
    global _level
    _level = new
    if new == Level.VERBOSE:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
