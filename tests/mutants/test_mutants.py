"""The faults of the list can still be put in. ``run.py`` says whether a test notices them."""

import pytest

from mutants.faults import MUTANTS, Mutant
from support.studies import ROOT

SOURCE = ROOT / "src" / "llenergymeasure"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.told)
def test_a_fault_still_fits_its_place(mutant: Mutant) -> None:
    text = (SOURCE / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    changed = text.replace(mutant.old, mutant.new)
    assert compile(changed, mutant.file, "exec") != compile(text, mutant.file, "exec")
    for test in mutant.tests:
        assert (ROOT / "tests" / test.partition("::")[0]).is_file()


def test_there_are_enough_of_them_and_none_twice() -> None:
    assert len({(each.file, each.old, each.new) for each in MUTANTS}) == len(MUTANTS) >= 40
