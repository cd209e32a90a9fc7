"""Which words of Snakemake's command line let it look and run nothing, so that no plan is made."""

import pytest
from snakemake.cli import get_argument_parser

from llenergymeasure.workflow.open_study import runs_nothing


@pytest.mark.parametrize(
    "word",
    [
        *("-n", "-np", "-kn", "-pnc1", "-l", "-S", "-D", "--dry-run", "--dag=dot"),
        *("--list-rules", "--summary", "--lint"),
    ],
)
def test_a_look(word: str) -> None:
    assert runs_nothing(["snakemake", word, "-c", "1"])


@pytest.mark.parametrize(
    "word", ["-call", "-kcall", "-jall", "-sSnakefile", "-dresults", "-k", "-pk", "--nolock"]
)
def test_letters_of_a_value_are_none(word: str) -> None:
    assert not runs_nothing(["snakemake", word, "--configfile", "study.yaml"])


@pytest.mark.parametrize("value", ["-B /mnt/lustre", "-B /nfs", "-S/tmp x", "-B nfs:/n --nv"])
def test_a_value_of_several_words_is_none(value: str) -> None:
    assert not runs_nothing(["snakemake", "--apptainer-args", value, "-c", "1"])


def test_what_follows_any_option_that_takes_a_value_is_its_value() -> None:
    short = [
        (name, action.nargs)
        for action in get_argument_parser()._actions
        for name in action.option_strings
        if len(name) == 2
    ]
    assert {name for name, nargs in short if runs_nothing([f"{name}n"])} == {
        name for name, nargs in short if nargs == 0
    }
