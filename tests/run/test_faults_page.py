"""The pages of faults and conditions have a row for each, and name tests that are there."""

import ast
import functools
import re
from pathlib import Path

import pytest

from run.fault_list import Fault, faults
from support.failed_answers import FAILED
from support.studies import ROOT
from support.whole_answers import FINE, MARKED
from workload.test_datasets import READ, REFUSED
from workload.test_traces import TRACES

FAULTS, CONDITIONS = ((ROOT / "docs" / name).read_text() for name in ("faults.md", "conditions.md"))
pages = pytest.mark.parametrize("page", [FAULTS, CONDITIONS], ids=["faults", "conditions"])


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
        assert _row(number, fault) in FAULTS
    assert f"A study of {len(injected) + 1} experiments" in FAULTS


@functools.cache
def _tests_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


@pages
def test_every_test_it_names_is_there(page: str) -> None:
    named = re.findall(r"`([a-z_/]+\.py)::(\w+)` \|$", page, re.MULTILINE)
    assert len(named) >= 25
    for path, name in named:
        assert name in _tests_in(path), name


@pages
def test_rows_are_numbered_without_a_gap(page: str) -> None:
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_counts_of_the_conditions_are_those_of_their_tables() -> None:
    descriptions = {
        "ways to answer that are right": len(FINE),
        "ways that are complete and odd": len(MARKED),
        "ways that are none": len(FAILED),
        "data sets as published": len(READ),
        "rows and files that are none": len(REFUSED),
        "traces: Azure": len(TRACES),
    }
    for words, count in descriptions.items():
        assert f"| {count} {words}" in CONDITIONS
