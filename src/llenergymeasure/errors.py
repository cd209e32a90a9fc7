"""The error tree: each error knows the exit code it ends the command with."""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llenergymeasure.screen import say

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_SIGINT = 130


class LlemError(Exception):
    """Base of every error that is shown to a person as a message, not as a traceback."""

    exit_code = EXIT_FAILED


def as_message(error: LlemError | OSError) -> str:
    """Return our own error as it is; of what the system refused, place and cause in one line."""
    if isinstance(error, LlemError):
        return str(error)
    if error.errno is None:
        return (str(error).splitlines() or [type(error).__name__])[0]
    places = [str(place) for place in (error.filename, error.filename2) if place is not None]
    if not places and error.errno == errno.ENOSPC:
        places = ["the output cannot be written"]
    cause = os.strerror(error.errno)
    return f"{' to '.join(places)}: {cause}" if places else cause


@contextmanager
def errors_as_messages(verbose: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Let an error that a person can do something about end the program with one message.

    Args:
        verbose: whether the traceback is wanted too, asked when there is one.
    """
    try:
        yield
    except (LlemError, OSError) as error:
        if verbose():
            traceback.print_exc()
        say_if_possible(f"llem: {as_message(error)}")
        if isinstance(error, LlemError):
            sys.exit(error.exit_code)
        discard_output(sys.stdout)
        sys.exit(EXIT_FAILED)


def say_if_possible(text: str) -> None:
    """Print to standard error; that nobody reads it changes no exit code."""
    try:
        say(text)
    except OSError:
        discard_output(sys.stderr)


def discard_output(stream: IO[str]) -> None:
    """Let what is left to write go nowhere: it would fail again at the end, with Python's code."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass(frozen=True)
class Problem:
    """One thing wrong, described so that it can be fixed.

    Attributes:
        message: what is wrong and what would do, as one sentence or two.
        key: the dotted key in the study file, if one is to blame.
        found: the value found there, shortened for display.
        file: the file to blame.
        line: its line, counted from 1.
        fatal: whether it keeps what is asked for from being done; else a warning.
    """

    message: str
    key: str | None = None
    found: str | None = None
    file: Path | None = None
    line: int | None = None
    fatal: bool = True

    def __str__(self) -> str:
        """Return ``file:line: key: message (found …)`` with the parts that are known."""
        place = "" if self.file is None else str(self.file)
        if place and self.line is not None:
            place += f":{self.line}"
        text = ": ".join(filter(None, (place, self.key, self.message)))
        return text if self.found is None else f"{text} (found {self.found})"


class _ProblemsError(LlemError):
    """Everything that is wrong with one thing, a line each."""

    def __init__(self, problems: Sequence[Problem] | Problem | str) -> None:
        """Take one problem, several, or a bare message."""
        if isinstance(problems, str):
            problems = Problem(problems)
        if isinstance(problems, Problem):
            problems = [problems]
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigurationError(_ProblemsError):
    """A study, setting or argument that cannot be used: nothing has been written or run."""

    exit_code = EXIT_CONFIGURATION


class PreflightError(_ProblemsError):
    """A run cannot start on this machine as it is: all reasons at once, before GPU time."""


class RunFailedError(LlemError):
    """A run ended without a result.

    Attributes:
        status: ``failed``, ``interrupted``, ``lost`` or ``missing`` (never began).
        phase: the phase it ended in, if it came to one.
        log: what its processes printed.
    """

    def __init__(self, message: str, *, status: str, phase: str | None, log: str) -> None:
        self.status = status
        self.phase = phase
        self.log = log
        super().__init__(message)


class BackendError(LlemError):
    """An engine refused its settings or failed while loading or generating."""


class MeterError(LlemError):
    """A sensor or the recorder failed."""


class ResultsError(LlemError):
    """A results folder or file is not what it should be."""


class RecordVersionError(ResultsError):
    """A record of a version that this program does not read: neither damaged nor usable."""


class StudyLockedError(LlemError):
    """Another process is using the same results folder."""
