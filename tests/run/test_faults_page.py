"""The page of faults says what the tests hold, and names tests that are there."""

import ast
import re

from run.faults_page import PAGE, ROOT, named_tests, page


def test_the_page_is_the_list() -> None:
    assert PAGE.read_text() == page(), "run python tests/run/faults_page.py"


def test_every_test_it_names_is_there() -> None:
    for test in named_tests():
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test


def test_rows_are_numbered_without_a_gap() -> None:
    numbers = [int(found) for found in re.findall(r"^\| (\d+) \|", page(), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 25
