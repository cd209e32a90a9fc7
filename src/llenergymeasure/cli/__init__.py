"""``llem``: the command line."""

import os
import re
import sys
from contextlib import suppress
from typing import NoReturn

from llenergymeasure.errors import (
    EXIT_CONFIGURATION,
    EXIT_FAILED,
    EXIT_SIGINT,
    discard_output,
    errors_as_messages,
)
from llenergymeasure.installation import install_command, namesake_warning
from llenergymeasure.screen import only_printable, say


def main() -> NoReturn:
    """Run the command and exit with its code; an error is one message."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # a sign that the terminal's encoding lacks is a ?
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        import typer
    except ImportError:
        say(f"llem: the command line's own packages are missing: {install_command('host')}")
        sys.exit(EXIT_CONFIGURATION)
    from typer.main import get_command

    from llenergymeasure.cli.app import app
    from llenergymeasure.cli.output import Level, level, set_level

    set_level(Level.NORMAL)
    warning = namesake_warning()
    # Newer releases of typer hold a copy of click; this is UsageError in both.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    with only_printable(), errors_as_messages(lambda: level() == Level.VERBOSE):
        if warning is not None:
            say(f"llem: {warning}")
        try:
            result = get_command(app).main(prog_name="llem", standalone_mode=False)
            sys.stdout.flush()
        except BrokenPipeError:
            discard_output(sys.stdout)
            sys.exit(EXIT_FAILED)  # as click does where it meets one earlier
        except usage_error as error:
            say(_usage_error(error))
            sys.exit(EXIT_CONFIGURATION)
        except typer.Abort:
            sys.exit(EXIT_SIGINT)
    sys.exit(result if isinstance(result, int) else 0)


def _open_closed_streams() -> None:
    """Let a standard stream that is closed (``>&-``) go nowhere: a file would take its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))


def _usage_error(error: BaseException) -> str:
    """Return what is wrong with the arguments in one line; the whole help if there were none."""
    message = str(getattr(error, "format_message", error.__str__)())
    if type(error).__name__ == "NoArgsIsHelpError":
        return message
    context = getattr(error, "ctx", None)
    command = "llem" if context is None else str(context.command_path)
    line = " ".join(message.split()).rstrip(".")
    line = re.sub("Input should be ([^,]*)(, unable .*)?", r"must be \1", line)
    verb = "See" if line.endswith("?") else "see"
    separator = "" if line.endswith("?") else ";"
    return f"{command}: {line[:1].lower()}{line[1:]}{separator} {verb} {command} --help"
