"""A study that cannot be used: one message, exit code 2 (bare Snakemake: 1), nothing written."""

from pathlib import Path

import pytest

from cli.commands import Call
from support.malformed import CASES, Bad
from support.studies import snakemake


def _write(bad: Bad, folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(bad.text if isinstance(bad.text, bytes) else bad.text.encode())
    return path


# What is said of each is in tests/config/test_malformed.py; here it is how a command says it.
@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("bad", CASES[::10], ids=lambda bad: bad.name)
def test_llem_says_it_once_and_exits_with_2(
    bad: Bad, command: str, tmp_path: Path, call: Call
) -> None:
    result = call(command, _write(bad, tmp_path).name)
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("llem: ") == 1
    for part in ("study.yaml", *bad.said):
        assert part in result.err
    assert "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


# Snakemake reads the file before the workflow does, and refuses these in its own words.
ITS_OWN = {
    *("map bomb", "merge bomb", "anchor of itself", "merge of itself", "deep", "too large"),
    *("python tag", "own tag", "set", "binary", "not UTF-8", "UTF-16", "NUL", "escape sequence"),
    *("a list", "plain text", "only a comment", "empty file", "list as key"),
    *("merge of text", "tab", "open bracket", "unknown alias", "two documents"),
    *("number too long to read", "no colon", "no colon, a value", "no blank"),
    *("indented too little", "indented too much", "bare tag of a key"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad", [bad for bad in CASES if bad.name not in ITS_OWN][::40], ids=lambda bad: bad.name
)
def test_bare_snakemake_says_the_same_and_exits_with_1(bad: Bad, tmp_path: Path) -> None:
    result = snakemake(tmp_path, "-n", "--configfile", str(_write(bad, tmp_path)), timeout_s=60)
    output = result.stdout + result.stderr
    assert result.returncode == 1
    for part in bad.said:
        assert part in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()
