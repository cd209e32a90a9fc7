"""What the tests of commands have in common."""

from functools import partial
from pathlib import Path

import pytest

from cli.commands import Call, called


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Call ``llem`` in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return partial(called, monkeypatch, capsys)
