"""A study that cannot be used: one message, exit code 2, nothing written.

Of a bare Snakemake tests/workflow/test_plan_and_order.py says it.
"""

from pathlib import Path

import pytest

from cli.commands import Call
from support.malformed import CASES, Bad


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
