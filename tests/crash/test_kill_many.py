"""Kills at random moments lose nothing, break nothing and leave nothing running."""

from pathlib import Path

import pytest

from crash.kill_many import kill_many
from crash.kill_steps import kill_at_steps

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_few_kills(tmp_path: Path) -> None:
    said: list[str] = []
    result = kill_many(tmp_path.resolve(), kills=6, seed=20, say=said.append, experiments=3)
    assert result.total() == 6, said


def test_a_few_faults_at_named_steps(tmp_path: Path) -> None:
    said: list[str] = []
    study = kill_at_steps(tmp_path.resolve(), moments=6, seed=5, say=said.append)
    assert study.done.total() == 6, said
