"""What comes from outside never steers a terminal."""

import json
import os
import sys
from pathlib import Path

import pytest

from cli.commands import Call
from llenergymeasure.errors import ConfigurationError, errors_as_messages
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import only_printable, printable, write_control_sequence
from llenergymeasure.workload.load_study import load_study
from report.studies import without_drawing
from results.synthetic import write_outcome
from support.studies import write_study

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\x00\x9b1m\r"
STEERING = set(HOSTILE) - set("[2J]0;ownedgnp.exe1m")


@pytest.mark.parametrize(
    "char",
    [
        *sorted(STEERING),
        "\u2066",
        "\u200b",
        "\u2028",
        "\ud800",
        "\U000e0041",
        "\u3164",
        "\ufe0f",
        "\u034f",
    ],
)
def test_what_steers_is_written_out(char: str) -> None:
    text = printable(f"a{char}b")
    assert text.isprintable()
    assert char not in text
    assert json.loads(f'"{text}"') == f"a{char}b"


@pytest.mark.parametrize(
    "text",
    ["two\nlines\tand a tab", "µJ ± 1 %, 1\u00a0234", "模型 é ✓", "⚠\ufe0f 1\ufe0f\u20e3", ""],
)
def test_other_text_stays(text: str) -> None:
    assert printable(text) == text


def test_whoever_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with only_printable():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        write_control_sequence("\r\x1b[K")
    out, err = capsys.readouterr()
    assert not STEERING & set(out)
    assert err.endswith("\r\x1b[K")
    assert not STEERING & set(err.removesuffix("\r\x1b[K"))
    print("\x1b", end="")
    assert capsys.readouterr().out == "\x1b"


def test_an_error_s_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), errors_as_messages():
        raise ConfigurationError(HOSTILE)
    assert not STEERING & set(capsys.readouterr().err)


@pytest.fixture
def folder(tmp_path: Path) -> None:
    """A study's results with a hostile word wherever a results folder may have one."""
    study = write_study(tmp_path, notify={"command": [f"mail{HOSTILE}".replace("\x00", "")]})
    plan = make_plan(load_study(study))
    results = StudyFolder(tmp_path / "results" / "small")
    results.path.mkdir(parents=True)
    document = json.loads(plan.to_json_bytes())
    document["notes"] = [HOSTILE]
    document["study"] = f"small{HOSTILE}"
    results.plan.write_text(json.dumps(document))
    error = {"class": f"Odd{HOSTILE}", "message": HOSTILE}
    write_outcome(results.path, document["runs"][0], status="failed", error=error)
    (results.path / f".{HOSTILE}.part".replace("\x00", "")).touch()


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "results/small"),
        ("plan", "study.yaml"),
        ("verify", "results/small"),
        ("clean", "results/small"),
        ("results", "results/small"),
        ("report", "results/small"),
        ("status", f"nowhere{HOSTILE}".replace("\x00", "")),
        (f"no-such{HOSTILE}".replace("\x00", ""),),
    ],
    ids=lambda arguments: arguments[0][:7],
)
@pytest.mark.usefixtures("folder")
def test_every_command(call: Call, arguments: tuple[str, ...]) -> None:
    with without_drawing():
        result = call(*arguments)
    assert not STEERING & set(result.out + result.err), os.linesep.join([result.out, result.err])
