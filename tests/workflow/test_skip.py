"""The rest before a run is ended by a person: from anywhere, or with Enter at a terminal."""

from pathlib import Path

import pytest

from support.studies import SERVED, llem, result_times, start_llem, wait_for, write_study
from support.terminal import at_a_terminal

pytestmark = pytest.mark.slow

LONG = {"n_cycles": 2, "cycle_order": "sequential", "cycle_gap_seconds": 3600}


@pytest.mark.long
def test_a_rest_is_skipped_from_anywhere(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SERVED, execution=LONG)
    assert llem(tmp_path, "skip", str(study)).returncode == 2
    process = start_llem(tmp_path, "run", str(study))
    messages: list[str] = []

    def skipped() -> bool:
        assert process.poll() is None
        result = llem(tmp_path, "skip", str(study))
        messages.append(result.stdout)
        return result.returncode == 0

    wait_for(skipped)
    assert "cycle 2 skipped" in messages[-1]
    assert process.wait(120) == 0
    assert len(result_times(tmp_path)) == 2
    result = llem(tmp_path, "skip", str(study))
    assert result.returncode == 1
    assert "no run of this study is resting" in result.stderr


def test_enter_at_a_terminal_skips_the_rest(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SERVED, execution=LONG)
    answers = iter(["\n"])
    code, text = at_a_terminal(
        tmp_path,
        *("run", str(study)),
        answer=lambda said: next(answers, None) if "Enter skips it" in said else None,
    )
    assert code == 0, text
    assert "s to go" in text
    assert "cycle 2 skipped" in text
    assert len(result_times(tmp_path)) == 2
