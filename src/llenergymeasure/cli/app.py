"""The command's entry: every subcommand by name, each imported when it is called."""

import ast
from collections import UserDict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import llenergymeasure
from llenergymeasure.cli.output import QuietOption, VerboseOption

COMMANDS = (
    "run",
    "resume",
    "plan",
    "status",
    "results",
    "compare",
    "report",
    "export",
    "verify",
    "skip",
    "clean",
    "meter",
    "sensors",
    "doctor",
    "init",
    "convert",
    "config",
    "prefs",
)
"""Each is the function of this name in the module of this name.

A module may hold ``CONTEXT``: how its command takes its arguments.
"""


class _CommandTable(UserDict[str, Any]):
    """The commands by name, each made when it is first asked for."""

    def __getitem__(self, name: str) -> Any:
        command = self.data[name]
        if command is None:
            module = import_module(f"llenergymeasure.cli.{name}")
            context = getattr(module, "CONTEXT", {})
            command = _command(name, getattr(module, name), context)
            command.params += _command("", _common_options, {}).params[:2]
            self.data[name] = command
        return command


class Commands(TyperGroup):
    """A group whose help names its commands without importing them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _CommandTable(dict.fromkeys(COMMANDS))

    def list_commands(self, _context: Any) -> list[str]:
        """Return the commands in the order in which they are shown."""
        return list(COMMANDS)

    def format_commands(self, _context: Any, formatter: Any) -> None:
        """Write each command with the first line of its function's docstring."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(name).rstrip(".")) for name in COMMANDS])


app = typer.Typer(
    cls=Commands,
    name="llem",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _command(name: str, function: Any, context: dict[str, Any]) -> Any:
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, context_settings=context)(function)
    return typer.main.get_command(single)


def _common_options(quiet: QuietOption = False, verbose: VerboseOption = False) -> None:
    """Hold the options that every command has."""


def _first_line(name: str) -> str:
    """Return what a command does, from its source: to import them all takes two seconds."""
    source = Path(__file__).with_name(f"{name}.py")
    for node in ast.parse(source.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _version(is_set: bool) -> None:
    if is_set:
        typer.echo(f"llem {llenergymeasure.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Measure what LLM inference costs in energy, with error bars."""
