"""What every command does with its arguments: help, two options they share, and mistakes."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import llenergymeasure
from cli.commands import Call
from llenergymeasure.cli.app import app
from support.malformed import CASES, Bad
from support.studies import llem

COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

WRONG = {
    "run": [
        ["--no-such-option"],
        [],
        ["gone.yaml"],
        ["--n", "many", "--model", "tiny-llama"],
        ["--model"],
        ["study.yaml", "--model", "tiny-llama"],
        ["--model", "tiny-llama", "--precision", "fp8"],
        ["--model", "tiny-llama", "--order", "random"],
        ["--model", "tiny-llama", "--cycles", "0"],
        ["-q", "-v", "--model", "tiny-llama"],
        ["study.yaml", "--dataset", "no_prompt.jsonl"],
    ],
    "resume": [["--no-such-option"], [], ["gone.yaml"], ["."], ["a", "b"]],
    "plan": [
        ["--no-such-option"],
        [],
        ["gone.yaml"],
        ["a", "b"],
        ["study.yaml", "--json=yes"],
        ["no_prompt.yaml"],
    ],
    "status": [["--no-such-option"], [], ["gone.yaml"], ["."]],
    "skip": [["--no-such-option"], [], ["gone.yaml"], ["."]],
    "results": [["--no-such-option"], [], ["gone.yaml"], ["."]],
    "compare": [["--no-such-option"], [], ["gone.yaml", "."], ["a", "b", "c"]],
    "meter": [["--no-such-option"], [], ["--devices"], ["--devices", "GPU-x", "--", "true"]],
    "sensors": [["--no-such-option"], ["x"]],
    "doctor": [["--no-such-option"], ["x"]],
    "init": [["--no-such-option"], ["study.txt"], ["a.yaml", "b.yaml"], ["there.yaml"]],
    "convert": [["--no-such-option"], [], ["gone.yaml"], ["study.yaml"]],
    "config": [["--no-such-option"], [], ["pytroch"], ["pytorch", "no_such_knob_at_all"]],
    "prefs": [["--no-such-option"], ["output_dir"], ["--study", "gone.yaml"]],
}


def test_every_command_has_its_mistakes_listed() -> None:
    assert set(COMMANDS) - set(WRONG) <= ELSEWHERE


ELSEWHERE = {"clean", "export", "report", "verify"}
"""Commands whose own tests hold their mistakes."""


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(command, each) for command, those in WRONG.items() for each in those],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_mistake_ends_with_2_and_one_line(
    command: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    files = {"study.yaml": "", "there.yaml": "", "no_prompt.yaml": "dataset: no_prompt.jsonl\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(f"model: tiny-llama\n{text}")
    (tmp_path / "no_prompt.jsonl").write_text('{"answer": "x"}\n')
    result = call(command, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("llem")
    assert "Traceback" not in result.err
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*files, "no_prompt.jsonl"}


# What is said of each is in tests/config/test_malformed.py; here it is how a command says it.
@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("bad", CASES[::10], ids=lambda bad: bad.name)
def test_llem_says_it_once_and_exits_with_2(
    bad: Bad, command: str, tmp_path: Path, call: Call
) -> None:
    text = bad.text if isinstance(bad.text, bytes) else bad.text.encode()
    (tmp_path / "study.yaml").write_bytes(text)
    result = call(command, "study.yaml")
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("llem: ") == 1
    for part in ("study.yaml", *bad.said):
        assert part in result.err
    assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_no_command_and_an_unknown_one(call: Call) -> None:
    result = call()
    assert result.code == 2
    assert "Commands:" in result.out + result.err
    result = call("plna")
    assert result.code == 2
    assert result.err == "llem: no such command 'plna'. Did you mean 'plan'? See llem --help\n"


def test_a_word_where_a_number_is_meant_is_said_in_few_words(call: Call) -> None:
    result = call("run", "study.yaml", "--cycles", "many")
    assert result.code == 2
    # typer 0.26 says: 'many' is not a valid integer.
    assert re.fullmatch(
        r"llem run: invalid value for '--cycles': [^;]* a valid integer; see llem run --help\n",
        result.err,
    )


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_is_plain_text(command: list[str], call: Call) -> None:
    result = call(*command, "--help")
    assert result.code == 0
    assert result.err == ""
    assert not CONTROL.search(result.out)
    assert result.out.startswith(f"Usage: {' '.join(['llem', *command])}")
    if command:
        assert "--quiet" in result.out
        assert "--verbose" in result.out
    else:
        assert all(name in result.out for name in COMMANDS)


def test_version(call: Call) -> None:
    assert call("--version").out == f"llem {llenergymeasure.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['llem', '--help']\n"
        "from llenergymeasure.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted(sys.modules))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for heavy in ("numpy", "pyarrow", "pydantic", "torch", "snakemake", "yaml"):
        assert f"'{heavy}'" not in result.stdout


def test_where_an_error_is_from_is_shown_when_asked(call: Call) -> None:
    result = call("plan", "-v", "gone.yaml")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.endswith("llem: gone.yaml: no such file; check the path\n")


@pytest.mark.parametrize(
    ("words", "place", "completed"),
    [("llem p", 1, {"plan", "prefs"}), ("llem run --d", 2, {"--dry-run"})],
)
def test_bash_completes_commands_and_options(
    tmp_path: Path, words: str, place: int, completed: set[str]
) -> None:
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(place)}
    result = llem(tmp_path, variables={"_LLEM_COMPLETE": "complete_bash", **variables})
    assert completed <= set(result.stdout.split())
