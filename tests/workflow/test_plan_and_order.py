"""Snakemake plans what the study asks for, and runs it in exactly the planned order."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

from llenergymeasure.workflow.open_study import config_settings, runs_nothing
from support.studies import ROOT, SERVED, plan_of, snakemake, write_study


def test_a_bare_call_plans_the_default_study(tmp_path: Path) -> None:
    result = snakemake(tmp_path, "-n", variables={"LLEM_IMAGES": str(tmp_path / "{u} x")})
    assert result.returncode == 0, result.stderr
    planned = re.search(r"^measure\s+(\d+)$", result.stdout + result.stderr, re.MULTILINE)
    assert planned is not None
    assert int(planned[1]) == 12


def test_two_studies_in_one_workflow_as_modules(tmp_path: Path) -> None:
    """Each job makes the plan of its own study: what names one plan to all would be wrong."""
    modules = "".join(
        f"""
module {name}:
    snakefile: {str(ROOT / "workflow" / "Snakefile")!r}
    config: {{"name": {name!r}, "model": "tiny-llama", "execution": {{"n_cycles": {cycles}}}}}

use rule * from {name} as {name}_*
"""
        for name, cycles in (("one", 2), ("two", 3))
    )
    (tmp_path / "Snakefile").write_text(
        f"{modules}\nimport os\nprint('named:', os.environ.get('LLEM_PLAN'))\n"
    )
    result = snakemake(
        tmp_path, "-n", "one_all", "two_all", "-c1", snakefile=tmp_path / "Snakefile"
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert not (tmp_path / "results").exists()
    assert re.search(r"^one_measure\s+2$", output, re.MULTILINE)
    assert re.search(r"^two_measure\s+3$", output, re.MULTILINE)
    assert "named: None" in output


def test_a_user_s_own_rules_are_not_rerun_for_an_input_of_the_same_content(tmp_path: Path) -> None:
    """Where the study is a module of theirs, and asks for its tables in the same workflow."""
    (tmp_path / "Snakefile").write_text(
        f"""
module study:
    snakefile: {str(ROOT / "workflow" / "Snakefile")!r}
    config: {{"name": "one", "model": "tiny-llama", "execution": {{"n_cycles": 1}}}}

use rule * from study as study_*

rule own:
    input: "raw.txt"
    output: "prepared.txt"
    shell: "cp {{input}} {{output}}"
"""
    )
    (tmp_path / "raw.txt").write_text("costly\n")
    options = ("--rerun-triggers", "mtime", "-c1", "prepared.txt")
    made = snakemake(tmp_path, *options, snakefile=tmp_path / "Snakefile")
    assert made.returncode == 0, made.stderr
    later_s = time.time() + 60
    os.utime(tmp_path / "raw.txt", (later_s, later_s))
    result = snakemake(tmp_path, "-n", *options, "study_all", snakefile=tmp_path / "Snakefile")
    output = result.stdout + result.stderr
    assert re.search(r"^study_summary\s+1$", output, re.MULTILINE), output
    assert not re.search(r"^own\s", output, re.MULTILINE)


def test_a_look_leaves_a_study_s_plan_alone(tmp_path: Path) -> None:
    study = ("--configfile", str(write_study(tmp_path)))
    plan = tmp_path / "results" / "small" / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{}")
    result = snakemake(tmp_path, "--summary", *study, "--config", "max_output_tokens=9")
    assert result.returncode == 0, result.stderr
    assert [path.name for path in plan.parent.iterdir()] == ["plan.json"]
    assert plan.read_text() == "{}"


LOOKS = (
    *("-n", "-np", "-kn", "-pnc1", "-l", "-S", "-D", "--dry-run", "--dag=dot"),
    *("--list-rules", "--summary", "--lint"),
)
OTHERS = ("-call", "-kcall", "-jall", "-sSnakefile", "-dresults", "-k", "-pk", "--nolock")
VALUES = ("-B /mnt/lustre", "-B /nfs", "-S/tmp x", "-B nfs:/n --nv")


@pytest.mark.parametrize(
    ("words", "looks"),
    [
        *(([word], True) for word in LOOKS),
        *(([word, "--configfile", "study.yaml"], False) for word in OTHERS),
        *((["--apptainer-args", value], False) for value in VALUES),
    ],
)
def test_words_of_a_look_are_known_and_letters_of_a_value_are_none(
    words: list[str], looks: bool
) -> None:
    """By a look, which runs nothing, no plan is made."""
    assert runs_nothing(["snakemake", *words, "-c", "1"]) is looks


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


@pytest.mark.parametrize("runner", ["local", "apptainer"])
def test_braces_in_a_home_s_path_matter_only_to_images_that_are_built_there(
    tmp_path: Path, runner: str
) -> None:
    study = write_study(tmp_path, runners={"pytorch": runner})
    words = ("--configfile", str(study), "--dry-run", "--use-apptainer")
    variables = {"LLEM_IMAGES": str(tmp_path / "{u} x")}
    result = snakemake(tmp_path, *words, variables=variables)
    output = result.stdout + result.stderr
    if runner == "local":
        assert result.returncode == 0, output
    else:
        assert result.returncode == 1
        assert "LLEM_IMAGES: " in output
    assert "RuleException" not in output


def test_values_of_config_arrive_as_written() -> None:
    settings = {"np": "3", "dataset": {"input_len": "4"}, "model": "a/b", "precision": "fp32"}
    assert config_settings(settings) == {
        "n": 3,
        "dataset": {"input_len": 4},
        "model": "a/b",
        "precision": "fp32",
    }


def test_a_bad_study_is_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path, precison="bf16")
    result = snakemake(tmp_path, "--configfile", str(study))
    assert result.returncode == 1
    assert "StudyError:\n" in result.stderr
    assert "precison" in result.stderr
    assert "precision" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_runs_start_in_the_planned_order(tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        **SERVED,
        experiments=[{"n": 1}, {"n": 2}],
        execution={"n_cycles": 2, "cycle_order": "shuffled", "shuffle_seed": 3},
    )
    process = snakemake(tmp_path, "--configfile", str(study))
    assert process.returncode == 0, process.stderr
    planned = [(run["experiment"], run["cycle"]) for run in plan_of(tmp_path)["runs"]]
    results = [
        json.loads(path.read_text()) for path in tmp_path.glob("results/small/runs/*/*/result.json")
    ]
    results.sort(key=lambda result: result["phases"][0]["start_monotonic_ns"])
    assert [(result["experiment"], result["cycle"]) for result in results] == planned
    assert [result["order"] for result in results] == [1, 2, 3, 4]
