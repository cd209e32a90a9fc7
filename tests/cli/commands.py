"""The command line called inside the test's own process, which saves its start."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from llenergymeasure.cli import main


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]
"""Calls ``llem`` with arguments, in the test's own folder."""


def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Said:
    """Call ``llem`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["llem", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        main()
    streams = capsys.readouterr()
    code = exit_info.value.code
    assert isinstance(code, int)
    return Said(code, streams.out, streams.err)
