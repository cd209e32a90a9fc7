"""Each promise of SECURITY.md names the tests that hold it, and they are there."""

import re
from functools import cache

import pytest

from support.studies import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
PROMISES = re.findall(r"^- (.+(?:\n  .+)*)", TEXT, re.MULTILINE)
NAMED = re.findall(r"`(tests/[\w/]+\.py)`(?:::|: )?(?:`(test_\w+)`)?", TEXT)


@pytest.mark.parametrize("promise", PROMISES, ids=range(len(PROMISES)))
def test_every_promise_names_a_test(promise: str) -> None:
    assert re.search(r"`tests/[\w/]+\.py`", promise), promise


def test_the_tests_are_there() -> None:
    assert NAMED
    for file, name in NAMED:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in source(file), f"{file}: {name}"


@cache
def source(file: str) -> str:
    return (ROOT / file).read_text()
