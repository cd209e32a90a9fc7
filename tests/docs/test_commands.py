"""Every command in the documentation is run as it stands there, or says why it is not."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.pages import ROOT, RUN, Block, blocks, pages, prose
from llenergymeasure.api.sensors import sensors_report
from support.studies import environment

CLONE = (
    "Snakefile",
    "benchmarks",
    "config",
    "containers",
    "envs",
    "profiles",
    "pyproject.toml",
    "rules",
    "scripts",
    "src",
    "workflow",
)
"""What of a clone the commands need."""

INTERPRETERS = {
    "sh": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
}

BLOCK_LIMIT_S = 400
OTHER_SHELLS = {"", "bash", "console", "shell", "shell-session", "zsh"}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _with_commands() -> list[Path]:
    return [page for page in pages() if any(block.runs for block in blocks(page.read_text()))]


LONG = ("api.md", "cli.md", "results.md", "statistics.md", "troubleshooting.md", "tutorial.md")


def _marked(each: list[Path]) -> list[Any]:
    long = pytest.mark.long
    return [pytest.param(page, marks=long if page.name in LONG else ()) for page in each]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", _marked(_with_commands()), ids=_name)
def test_commands_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    _clone(tmp_path)
    compare = not _something_is_measured()
    found = list(blocks(page.read_text()))
    for block, following in pairwise([*found, Block(0, "", "")]):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text + "\n")
        if not block.runs:
            continue
        where = f"{_name(page)}:{block.line}"
        output = _run(block, tmp_path, where)
        if following.language == "text" and compare:
            _assert_shown(following.text, output, where)


def _clone(folder: Path) -> None:
    for name in CLONE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def _something_is_measured() -> bool:
    """Return whether a sensor measures here: the pages show a machine on which none does."""
    sensors = sensors_report()["sensors"]
    return any(one["kind"] == "measured" and one["unavailable"] is None for one in sensors)


def _run(block: Block, folder: Path, where: str) -> str:
    """Run one block's commands; return what they print, paths relative to the folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*INTERPRETERS[block.language], block.text],
        cwd=folder,
        env=environment(PATH=path, PYTHONPATH=str(folder / "src")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BLOCK_LIMIT_S,
        check=False,
    )
    assert done.returncode == block.exit_code, f"{where}: exit {done.returncode}\n{done.stdout}"
    return done.stdout.replace(f"{folder}/", "")


def _assert_shown(shown: str, output: str, where: str) -> None:
    printed = iter([_plain(line) for line in output.splitlines()])
    for line in shown.splitlines():
        wanted = _plain(line)
        if wanted in {"", "…"}:
            continue
        assert any(wanted == one for one in printed), f"{where}: no line {line!r} in\n{output}"


def _plain(line: str) -> str:
    """Return a line without what differs between machines and runs: ids, figures, alignment."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "#", line)
    line = re.sub(r"-?\d[\d,.]*(?:e[+-]?\d+)?\b", "#", line)
    return " ".join(line.split())


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_no_command_hides_from_the_tests(page: Path) -> None:
    for block in blocks(page.read_text()):
        where = f"{_name(page)}:{block.line}"
        assert block.language not in OTHER_SHELLS, f"{where}: commands go into sh"
        assert block.language in RUN or block.not_run is None, f"{where}: this is never run"


def _named_in_prose() -> Iterator[tuple[str, str]]:
    for page in pages():
        for command in re.findall(r"`((?:llem|make) [^`]+)`", prose(page.read_text())):
            yield _name(page), command


@pytest.mark.parametrize(("page", "command"), sorted(set(_named_in_prose())))
def test_commands_named_in_prose_exist(page: str, command: str) -> None:
    del page
    program, *words = command.split()
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words if "=" not in word and word not in targets] == []
        return
    from llenergymeasure.cli.app import app

    group = typer.main.get_command(app)
    commands = getattr(group, "commands")  # noqa: B009 - typer's own class, which has no stubs
    if words[0].startswith("-"):
        assert words[0] in {option for one in group.params for option in one.opts} | {"--help"}
        return
    assert words[0] in commands, f"llem has no command {words[0]}"
    known = {option for one in commands[words[0]].params for option in one.opts} | {"--help"}
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    assert [word for word in own if word.startswith("-") and word not in known] == []


def _said(node: ast.AST) -> str:
    """Return what a message in the source says, with a line for each of its values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_said(part) for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "\n"


def test_messages_that_the_page_quotes_are_the_program_s() -> None:
    trees = [ast.parse(path.read_text()) for path in (ROOT / "src").rglob("*.py")]
    texts = ast.JoinedStr | ast.Constant
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, texts))
    said = "\n".join(map(_said, nodes))
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quotes = [each for each in re.findall(r"`([^`]+)`", prose(page)) if len(each.split()) > 6]
    assert len(quotes) >= 5
    shown = [block.text for block in blocks(page) if block.language == "text"]
    quotes += re.findall(r"^llem: .*", "\n".join(shown), re.MULTILINE)
    values = r"…|another process|\w+ \(pid \d+\)|\d+|[:;]|did you mean.*|\(found.*|\S*[./]\S*"
    for quote in quotes:
        for part in re.split(values, quote):
            assert len(part.split()) < 3 or part.strip() in said, f"{part!r} of {quote!r}"
