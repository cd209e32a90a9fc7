"""The page of faults has a row for each that is injected, and names tests that are there."""

import ast
import re
from pathlib import Path

from run.fault_list import Fault, faults
from support.studies import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text()


def _row(number: int, fault: Fault) -> str:
    parts = [f"phase `{fault.phase}`"] if fault.phase and not fault.kept else []
    if fault.says:
        parts.append(f"validity `{fault.says}`" if fault.kept else f"“{fault.says}”")
    says = ", ".join(parts) or ("whole" if fault.kept else "why")
    code = "none" if fault.code is None else fault.code
    after = "nothing to do" if fault.kept else "finishes it" if fault.measured else "makes it"
    return f"| {number} | {fault.text} | {fault.status} | {code} | {says} | {after} |"


def test_every_fault_of_the_study_has_its_row() -> None:
    injected = faults(Path("torn"), Path("numberless"))
    for number, fault in enumerate(injected, start=1):
        assert _row(number, fault) in PAGE
    assert f"A study of {len(injected) + 1} experiments" in PAGE


def test_every_test_it_names_is_there() -> None:
    named = re.findall(r"`([a-z_/]+\.py)::(\w+)` \|$", PAGE, re.MULTILINE)
    assert len(named) >= 25
    for path, name in named:
        tree = ast.parse((ROOT / "tests" / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_rows_are_numbered_without_a_gap() -> None:
    numbers = [int(found) for found in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
